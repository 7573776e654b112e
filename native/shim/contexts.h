/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA contexts of this process on the governed GPU: which to drain, and one to copy with.
 */
#ifndef GPUVIRT_SHIM_CONTEXTS_H
#define GPUVIRT_SHIM_CONTEXTS_H

#include "cuda_api.h"

enum { CONTEXTS_MAX = 64 };

/* Notes a context that came into being; -1 when there are too many. */
int gv_contexts_add(CUcontext context);
void gv_contexts_forget(void);
int gv_contexts_count(void);

/* Is the calling thread's context the only one? Then what the driver says of it holds for the process. */
int gv_contexts_only_current(void);

/* CUDA_ERROR_CONTEXT_IS_DESTROYED when the calling thread's context is a destroyed one. */
CUresult gv_contexts_check(CUcontext context);

/*
 * Makes some living context current on the control thread, and holds it: who destroys it waits for gv_contexts_leave.
 * CUDA_ERROR_INVALID_CONTEXT when there is none.
 */
CUresult gv_contexts_enter(void);
/* The same, but a process without any context gets its primary one: until the program itself comes to have a context. */
CUresult gv_contexts_enter_any(void);
/* The calling thread, which drains, holds a context of its own beside the control thread's. */
void gv_contexts_second_seat(void);
void gv_contexts_leave(void);

/* A stream for our own copies in the context that gv_contexts_enter chose. */
CUstream gv_contexts_stream(void);

/* Waits until everything given to the GPU through any context has finished. Control thread. */
CUresult gv_contexts_drain(void);

/* Waits for the context that memory belongs to. Any thread; it needs a current context of its own, as for the driver. */
CUresult gv_contexts_finish(CUcontext owner);

/*
 * Around the driver's call that ends a context, or only releases it. The control thread neither uses it meanwhile nor believes
 * that it is gone; what waits for it in the pools is set aside. `gone`: the driver freed what was allocated in the context; our
 * ranges go the same way. `lives`: the handle stays good.
 */
struct waiting;
struct waiting *gv_contexts_begin_end(CUcontext context);
void gv_contexts_end_end(CUcontext context, struct waiting *waiting, int gone, int lives);

/* cuCtxAttach added a use; cuCtxDetach took one: was it the last? */
void gv_contexts_attached(CUcontext context);
int gv_contexts_detached(CUcontext context);

/* The program comes to have a context: is there a primary one for our sake alone, to be released by the caller? Once. */
int gv_contexts_move_out(void);

#endif
