/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory that is used again (parking.h) holds what it held before until somebody could see it: a kernel, a copy from it
 * or to a part of it. What is overwritten as a whole first is never cleared. Pieces of 2 MiB.
 */
#ifndef GPUVIRT_SOFTGPU_STALE_H
#define GPUVIRT_SOFTGPU_STALE_H

#include "memory.h"

extern _Atomic uint64_t gv_stale_pieces; /* of the process */

/* Out of line; each takes gv_memory_lock. */
void gv_stale_clear_all(void);
void gv_stale_clear_range(uint64_t address, uint64_t bytes);
void gv_stale_forget_range(uint64_t address, uint64_t bytes);

static inline bool gv_any_stale(void) { return atomic_load_explicit(&gv_stale_pieces, memory_order_relaxed) != 0; }

/* Before work that may look at anything. */
static inline void gv_stale_settle(void)
{
    if (__builtin_expect(gv_any_stale(), 0))
        gv_stale_clear_all();
}
/* Before work that looks at this range, or writes to some of it. */
static inline void gv_stale_look(uint64_t address, uint64_t bytes)
{
    if (__builtin_expect(gv_any_stale(), 0))
        gv_stale_clear_range(address, bytes);
}
/* Before work that writes to all of this range and has not looked at it. */
static inline void gv_stale_overwrite(uint64_t address, uint64_t bytes)
{
    if (__builtin_expect(gv_any_stale(), 0))
        gv_stale_forget_range(address, bytes);
}

/* Under gv_memory_lock, or nobody else knows it: what was written to the parked memory is stale. False: it cannot be told. */
bool gv_stale_note(struct gv_physical *physical);
void gv_stale_clear(struct gv_physical *physical);
/* Nobody is going to look at it. */
void gv_stale_drop(struct gv_physical *physical);

#endif
