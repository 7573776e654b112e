/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory operations of streams: write a value, wait for a value, reduce. As a batch also a node of a graph.
 */
#ifndef GPUVIRT_SOFTGPU_STREAM_VALUES_H
#define GPUVIRT_SOFTGPU_STREAM_VALUES_H

#include "stream.h"

enum { GV_VALUES_MOST = 255 };

/* What cuStreamBatchMemOp checks before anything is submitted. `old`: the interface before CUDA 12 (_v1). */
CUresult gv_values_check(const CUstreamBatchMemOpParams *operations, unsigned count, bool old);
/* Performs them in order; waits end early when the context fails or ends. */
CUresult gv_values_run(const CUstreamBatchMemOpParams *operations, unsigned count, struct gv_context *context);
/* As work, for a stream or a graph. */
CUresult gv_values_make(const CUstreamBatchMemOpParams *operations, unsigned count, bool old,
                        struct gv_operation **operation);

#endif
