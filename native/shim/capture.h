/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture: on a capturing stream nothing is gated, synchronised, allocated or queried; the work runs later, as a graph.
 *
 * The captures of the process are counted in gv_gate.obstacles, from before the driver knows of one until it has ended.
 */
#ifndef GPUVIRT_SHIM_CAPTURE_H
#define GPUVIRT_SHIM_CAPTURE_H

#include "cuda_api.h"
#include "real_driver.h"

/* Does this stream capture now? Costs one load while nothing in the process captures. */
int gv_stream_captures(CUstream stream);

/* Does any stream of the process capture? */
int gv_anything_captures(void);

/*
 * Before a call of ours that would spoil a capture (of a context, or of a stream that might begin one): 1 when nothing captures,
 * and until gv_capture_let_begin nothing begins to, for a while. The bound lets a capture begin beside a call that waits: that
 * one looked at its entry. 0: something captures; find another way.
 */
int gv_capture_hold_off(void);
void gv_capture_let_begin(void);

/* Between these no stream becomes one that captures (the same bound). For calls that do not wait, on streams that do not capture. */
void gv_capture_take_turn(void);
void gv_capture_give_turn(void);

/* The driver's answer to a program that makes an unsafe call beside a capture: error, and the capture is spoiled. */
CUresult gv_capture_permits_unsafe(void);

/* The stream or the context is gone: so are the captures that began there. */
void gv_capture_stream_ended(CUstream stream);
void gv_capture_context_ended(CUcontext context);
void gv_capture_forget(void);

/* Calls of ours must be legal beside a capture, whoever began it and whichever mode this thread is in. */
static inline CUstreamCaptureMode gv_capture_relax(void)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    REAL(cuThreadExchangeStreamCaptureMode)(&mode);
    return mode;
}

static inline void gv_capture_restore(CUstreamCaptureMode mode) { REAL(cuThreadExchangeStreamCaptureMode)(&mode); }

#endif
