/* SPDX-License-Identifier: Apache-2.0
 *
 * The streams that the program made. Needed to drain while one of them captures: a context cannot be synchronised then.
 */
#ifndef GPUVIRT_SHIM_STREAMS_H
#define GPUVIRT_SHIM_STREAMS_H

#include "cuda_api.h"

/* Beside a capture: waits for all that was given to streams of the context, which is current and held. Control thread. */
CUresult gv_streams_drain(CUcontext context);
/*
 * Has every stream finished? Asks the current context's legacy stream and each stream that the program made. 0 also when that
 * proves nothing: something captures, there are several contexts, or some thread uses its per-thread stream.
 */
int gv_streams_finished(void);
/* The streams of a context that is gone went with it. */
void gv_streams_context_ended(CUcontext context);
void gv_streams_forget(void);

/* The context that a stream of the program was made in; NULL for one that is not known. */
CUcontext gv_streams_context_of(CUstream stream);

/* What tells the per-thread default streams apart, which all have one handle: a number of the calling thread, not 0. */
uint64_t gv_streams_thread_number(void);

#endif
