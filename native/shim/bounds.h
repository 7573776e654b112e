/* SPDX-License-Identifier: Apache-2.0
 *
 * What the driver would know of plain allocations and cannot know of ours: where one ends, and whether copies of it must wait.
 * Called by the generated gates of copies and memsets (native/generate/bounds.py).
 */
#ifndef GPUVIRT_SHIM_BOUNDS_H
#define GPUVIRT_SHIM_BOUNDS_H

#include "gate.h"
#include "memory.h"

/* Is this governed memory, and do not all of the bytes lie in one allocation? */
int gv_bounds_leave_range(CUdeviceptr address, uint64_t bytes);
static inline int gv_bounds_left(CUdeviceptr address, uint64_t bytes)
{
    return gv_memory_owns(address) && bytes != 0 && gv_bounds_leave_range(address, bytes);
}

/* Bytes from the first to the last of a plane. */
static inline uint64_t gv_bounds_plane(uint64_t pitch, uint64_t width, uint64_t height)
{
    return height == 0 || width == 0 ? 0 : pitch * (height - 1) + width;
}

/* A synchronous copy or memset of these addresses has been given to the GPU: waits for it, if one has SYNC_MEMOPS. */
void gv_bounds_finish(CUresult result, CUdeviceptr one, CUdeviceptr other, int per_thread);

#endif
