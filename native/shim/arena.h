/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: host memory for pieces that are not in device memory. A sparse, unnamed tmpfs file from the daemon, one per
 * process.
 *
 *   place     a run of the file, as long as the piece it is for; in units of at most 2 MiB
 *   segment   a fixed slice of the file: the unit of backing it with memory and of pinning. A place may cross segments
 *
 * Control thread only, but for gv_arena_drop.
 */
#ifndef GPUVIRT_SHIM_ARENA_H
#define GPUVIRT_SHIM_ARENA_H

#include <stdint.h>

/* Takes the descriptor of WELCOME. A process that attaches again keeps its first arena; the new descriptor is closed. */
int gv_arena_attach(int descriptor, uint64_t bytes, uint64_t segment_bytes);

/* A place whose host memory is there for certain (so that a copy cannot fail for lack of it), or -1. Pins it if it can. */
int32_t gv_arena_reserve(uint64_t bytes);

/* Where byte `offset` of a place is; *run: how many bytes from there on lie in one pinned piece. */
void *gv_arena_address(int32_t place, uint64_t offset, uint64_t *run);

/* The content of a place is no longer wanted. Its memory goes back to the host at the next sweep. Any thread. */
void gv_arena_drop(int32_t place);
void gv_arena_sweep(void);

void gv_arena_forget(void);

#endif
