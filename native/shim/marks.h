/* SPDX-License-Identifier: Apache-2.0
 *
 * Marks: events behind work that a drain beside a capture could not wait for in another way, since the driver lets nobody
 * synchronise a context, or a stream, that captures:
 *
 *   - what a stream was given before it began to capture, or was drawn into a capture;
 *   - what the legacy stream was given before a blocking stream began (it refuses all calls until that ends);
 *   - what a thread gives to its own default stream meanwhile (nobody else can name that stream);
 *   - what a stream was given that has been destroyed since.
 *
 * A mark is used again for the same stream, and is freed with its context: so its event can be waited for without a lock.
 */
#ifndef GPUVIRT_SHIM_MARKS_H
#define GPUVIRT_SHIM_MARKS_H

#include "cuda_api.h"

/* Marks what the stream was given so far. It must not capture; the calling thread's context is the stream's. */
CUresult gv_marks_put(CUstream stream);

/* The same, unless the driver says that it captures or, of the legacy stream, that it is blocked. */
CUresult gv_marks_put_if_free(CUstream stream);

/* All that would be out of reach once this stream captures. */
void gv_marks_before_capture(CUstream stream);

/* Before the driver destroys a stream. */
void gv_marks_stream_ends(CUstream stream);

/* Control thread, the context current and held: waits for all marks in it. */
CUresult gv_marks_wait(CUcontext context);

/* Have all marks in the current context passed? While nothing captures. */
int gv_marks_passed(void);

/* An event of the current context that is never recorded, or NULL. */
CUevent gv_marks_probe(void);

void gv_marks_context_ended(CUcontext context);
void gv_marks_forget(void);

#endif
