/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaps that the driver keeps: memory of graphs, pools that stay with it. Each is one piece of fixed memory, charged as what
 * the driver says it has reserved. Before a call that may make it grow the growth is charged (gv_fixed_charge: the quota
 * holds, and the device has room); gv_driver_heap_settle turns that into what really came of it.
 */
#ifndef GPUVIRT_SHIM_DRIVER_HEAP_H
#define GPUVIRT_SHIM_DRIVER_HEAP_H

#include "fixed.h"

enum { GV_DRIVER_CHUNK = 2 << 20 }; /* what the driver takes from the device at a time, at least */

struct gv_driver_heap {
    enum gv_fixed_kind kind;
    CUresult (*reserved)(const struct gv_driver_heap *heap, cuuint64_t *bytes); /* asks the driver */
    uint64_t charged; /* bytes of its piece; read without the lock to learn whether there are any */
    uint64_t looks;   /* questions begun, and the last one whose answer counted; the lock is the file's */
    uint64_t latest;
};

/* The charge becomes what the driver has reserved now. `taken`: what was charged for a call that is over, or 0. */
void gv_driver_heap_settle(struct gv_driver_heap *heap, uint64_t taken);

/* The same, unless there is nothing that could have become less. */
static inline void gv_driver_heap_look(struct gv_driver_heap *heap)
{
    if (__atomic_load_n(&heap->charged, __ATOMIC_RELAXED) != 0)
        gv_driver_heap_settle(heap, 0);
}

static inline uint64_t gv_driver_chunks(uint64_t bytes)
{
    return bytes > UINT64_MAX - GV_DRIVER_CHUNK ? bytes
                                                : (bytes + GV_DRIVER_CHUNK - 1) / GV_DRIVER_CHUNK * GV_DRIVER_CHUNK;
}

void gv_driver_heap_forget(void); /* in the child of a fork */

#endif
