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

/* Gives back what streams have finished with; with `wait`, waits for all of it. Returns how many ranges were given back. */
int gv_pool_reclaim(int wait);

/* Before the driver destroys a stream: its handle may come again, while what it was given is not finished. */
void gv_pool_stream_ends(CUstream stream);

/*
 * Around the end of a context: takes out what waits for it, so that nobody asks its events any more; afterwards gives that
 * back, or with `gone` 0 (the context lives on) lets it wait again.
 */
struct waiting;
struct waiting *gv_pool_context_ends(CUcontext context);
void gv_pool_context_ended(struct waiting *its, int gone);

/*
 * Gives the range back when no stream captures any more and its context has finished; its pool counts it as given. -1: no
 * host memory to remember it, and nothing was done.
 */
int gv_pool_free_after_captures(struct gv_range *range);

/* The program gave back a range of a pool by another way than stream order. */
void gv_pool_given(const struct gv_range *range);

void gv_pool_forget(void);

#endif
