/* SPDX-License-Identifier: Apache-2.0
 *
 * The CUDA contexts of this process on the governed GPU: which to drain, and one to copy with.
 */
#ifndef GPUVIRT_SHIM_CONTEXTS_H
#define GPUVIRT_SHIM_CONTEXTS_H

#include "cuda_api.h"

void gv_contexts_add(CUcontext context);
void gv_contexts_remove(CUcontext context);
void gv_contexts_forget(void);
int gv_contexts_count(void);

/* Makes some living context current on the calling (control) thread; CUDA_ERROR_INVALID_CONTEXT when there is none. */
CUresult gv_contexts_enter(void);

/* A stream for our own copies in the context that gv_contexts_enter chose. */
CUstream gv_contexts_stream(void);

/* Waits until everything given to the GPU through any context has finished. Control thread. */
CUresult gv_contexts_drain(void);

#endif
