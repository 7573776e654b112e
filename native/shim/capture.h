/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture: on a capturing stream nothing is gated, synchronised, allocated or queried; the work runs later, as a graph.
 */
#ifndef GPUVIRT_SHIM_CAPTURE_H
#define GPUVIRT_SHIM_CAPTURE_H

#include "cuda_api.h"

/* Does this stream capture now? Costs one load while nothing in the process captures. */
int gv_stream_captures(CUstream stream);

/* Does any stream of the process capture? */
int gv_anything_captures(void);

#endif
