/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed memory. It is plain memory of the process, reached at one address by host and kernels; nothing migrates by itself.
 * What is prefetched to a device is charged to it while there is room, as the real driver would move it; a real allocation
 * that needs the room sends it back.
 *
 *     managed.c           allocation, the budget, which part has which properties and where it counts
 *     managed_advice.c    advice and the questions about it
 *     managed_prefetch.c  prefetch, discard, attach
 *
 * One lock, in managed.c, taken inside gv_memory_lock and never the other way round.
 */
#ifndef GPUVIRT_SOFTGPU_MANAGED_H
#define GPUVIRT_SOFTGPU_MANAGED_H

#include "memory.h"
#include "stream.h"

/* Where memory is wanted: a device, or host memory (of a node). `type` INVALID: nowhere. */
struct gv_advice {
    bool read_mostly;
    CUmemLocation preferred;
    uint64_t accessed_by; /* bit: device; GV_BY_HOST */
    CUmemLocation prefetched;
};
#define GV_BY_HOST (1ull << 63)

/* A range that has been checked: all of it managed, rounded to pages. */
struct gv_managed_range {
    uint64_t first, end;
};
CUresult gv_managed_check(CUdeviceptr pointer, size_t bytes, struct gv_managed_range *range);
/* A location as documented for advice and prefetches, NUMA_CURRENT resolved. */
CUresult gv_managed_location(CUmemLocation given, CUmemLocation *location);
/* Calls `visit` for each part of the range with the same properties; with `change` it may change them. */
void gv_managed_each(const struct gv_managed_range *range, bool change,
                     void (*visit)(struct gv_advice *advice, void *data), void *data);
/* Counts the range where it was prefetched to; host memory when there is no room. */
void gv_managed_move(const struct gv_managed_range *range, int device);

/* The state behind a managed region; under gv_memory_lock. A pool's has its preferred location. */
bool gv_managed_begin(struct gv_region *region, CUmemLocation preferred);
void gv_managed_end(struct gv_region *region);

#endif
