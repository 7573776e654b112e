/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: host memory for extents that are not in device memory. A sparse, unnamed tmpfs file from the daemon, one per
 * process, in slots of one extent. Control thread only, but for gv_arena_drop.
 */
#ifndef GPUVIRT_SHIM_ARENA_H
#define GPUVIRT_SHIM_ARENA_H

#include <stdint.h>

/* Takes the descriptor of WELCOME. A process that attaches again keeps its first arena; the new descriptor is closed. */
int gv_arena_attach(int descriptor, uint64_t bytes, uint64_t slot_bytes);

/* A slot whose host memory is there for certain (so that a copy cannot fail for lack of it), or -1. Pins it if it can. */
int32_t gv_arena_reserve(void);
void *gv_arena_address(int32_t slot);

/* The content of a slot is no longer wanted. Its memory goes back to the host at the next sweep. Any thread. */
void gv_arena_drop(int32_t slot);
void gv_arena_sweep(void);

void gv_arena_forget(void);

#endif
