/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream-ordered allocation (cuMemAllocAsync, pools) on the same addresses as cuMemAlloc.
 *
 * The driver's pools stay what they are (handles, attributes, access), but no memory is taken from them: an allocation is a
 * range of ours, valid at once, which is more than stream order promises. A free records an event on its stream; the range is
 * given back when that has passed, or goes to the next allocation of the same size on the same stream without waiting.
 * Allocations on a capturing stream become graph memory nodes and stay with the driver.
 */
#ifndef GPUVIRT_SHIM_POOL_H
#define GPUVIRT_SHIM_POOL_H

#include "cuda_api.h"
#include "ranges.h"
#include "waiting.h"

/* What a pool allows (CU_MEMPOOL_ATTR_REUSE_*), by default all of it. */
struct gv_reuse {
    uint8_t follow, opportunistic, internal;
};

/* The program gave back a range of a pool by another way than stream order. */
void gv_pool_given(const struct gv_range *range);

void gv_pool_forget(void);

#endif
