/* SPDX-License-Identifier: Apache-2.0
 *
 * The streams that the program made. Needed to drain while one of them captures: a context cannot be synchronised then.
 */
#ifndef GPUVIRT_SHIM_STREAMS_H
#define GPUVIRT_SHIM_STREAMS_H

#include "cuda_api.h"

/* Waits for every stream that does not capture. Control thread. */
CUresult gv_streams_drain(void);
/*
 * Has every stream finished? Asks the current context's legacy stream and each stream that the program made. 0 also when that
 * proves nothing: something captures, there are several contexts, or some thread uses its per-thread stream.
 */
int gv_streams_finished(void);
/* The streams of a context that is gone went with it. */
void gv_streams_context_ended(CUcontext context);
void gv_streams_forget(void);

#endif
