/* SPDX-License-Identifier: Apache-2.0 */
#include "contexts.h"

#include <pthread.h>
#include <string.h>

#include "capture.h"
#include "gate.h"
#include "log.h"
#include "memory.h"
#include "real_driver.h"
#include "session.h"
#include "streams.h"

enum { CONTEXTS_MAX = 64 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static CUcontext known[CONTEXTS_MAX]; /* under lock */
static int known_count;
static CUcontext entered; /* control thread: where `stream` lives */
static CUstream stream;

void gv_contexts_add(CUcontext context)
{
    if (context == NULL)
        return;
    pthread_mutex_lock(&lock);
    int found = 0;
    for (int i = 0; i < known_count; i++)
        found |= known[i] == context;
    if (!found && known_count < CONTEXTS_MAX)
        known[known_count++] = context;
    pthread_mutex_unlock(&lock);
}

void gv_contexts_remove(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < known_count; i++)
        if (known[i] == context)
            known[i--] = known[--known_count];
    pthread_mutex_unlock(&lock);
}

void gv_contexts_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    known_count = 0;
    entered = NULL;
    stream = NULL;
}

static int copy_known(CUcontext *contexts)
{
    pthread_mutex_lock(&lock);
    const int count = known_count;
    memcpy(contexts, known, sizeof known);
    pthread_mutex_unlock(&lock);
    return count;
}

int gv_contexts_count(void)
{
    pthread_mutex_lock(&lock);
    const int count = known_count;
    pthread_mutex_unlock(&lock);
    return count;
}

CUresult gv_contexts_enter(void)
{
    CUcontext contexts[CONTEXTS_MAX];
    const int count = copy_known(contexts);
    for (int i = 0; i < count; i++) {
        if (REAL(cuCtxSetCurrent)(contexts[i]) != CUDA_SUCCESS)
            continue;
        if (contexts[i] != entered)
            stream = NULL; /* it went with its context */
        entered = contexts[i];
        /* Our calls must be legal while some stream of the program captures. */
        CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
        REAL(cuThreadExchangeStreamCaptureMode)(&mode);
        return CUDA_SUCCESS;
    }
    return CUDA_ERROR_INVALID_CONTEXT;
}

CUstream gv_contexts_stream(void)
{
    /* Never the legacy stream nor one that synchronises with it: a copy of ours must not wait for the program's work. */
    if (stream == NULL && REAL(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS)
        stream = NULL;
    return stream;
}

CUresult gv_contexts_drain(void)
{
    CUcontext contexts[CONTEXTS_MAX];
    const int count = copy_known(contexts);
    CUresult worst = CUDA_SUCCESS;
    for (int i = 0; i < count; i++) {
        if (REAL(cuCtxSetCurrent)(contexts[i]) != CUDA_SUCCESS)
            continue;
        const CUresult result = gv_anything_captures() ? gv_streams_drain() : REAL(cuCtxSynchronize)();
        if (result != CUDA_SUCCESS)
            worst = result;
    }
    return worst;
}

/* --- entry points ------------------------------------------------------------------------------------------------------- */

/* A context came into being: put the process under control before it can do anything with it, or take it back. */
static CUresult admit(CUcontext *context, CUdevice device, CUresult (*take_back)(CUcontext, CUdevice))
{
    const CUresult refused = gv_session_attach(device);
    if (refused == CUDA_SUCCESS) {
        gv_contexts_add(*context);
        return CUDA_SUCCESS;
    }
    take_back(*context, device);
    *context = NULL;
    return refused;
}

static CUresult release_primary(CUcontext context, CUdevice device)
{
    (void)context;
    return REAL(cuDevicePrimaryCtxRelease_v2)(device);
}

static CUresult destroy_created(CUcontext context, CUdevice device)
{
    (void)device;
    return REAL(cuCtxDestroy_v2)(context);
}

GV_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    const CUresult result = REAL(cuDevicePrimaryCtxRetain)(pctx, dev);
    return result == CUDA_SUCCESS ? admit(pctx, dev, release_primary) : result;
}

#define CREATE(symbol, parameters, arguments)                                                                          \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        const CUresult result = REAL(symbol) arguments;                                                                \
        return result == CUDA_SUCCESS ? admit(pctx, dev, destroy_created) : result;                                    \
    }
CREATE(cuCtxCreate, (CUcontext * pctx, unsigned int flags, CUdevice dev), (pctx, flags, dev))
CREATE(cuCtxCreate_v2, (CUcontext * pctx, unsigned int flags, CUdevice dev), (pctx, flags, dev))
CREATE(cuCtxCreate_v3,
       (CUcontext * pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags, CUdevice dev),
       (pctx, paramsArray, numParams, flags, dev))
CREATE(cuCtxCreate_v4, (CUcontext * pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev),
       (pctx, ctxCreateParams, flags, dev))

/* The driver frees what was allocated in a context with it; our ranges must go the same way. */
static void gone(CUcontext context)
{
    gv_contexts_remove(context);
    gv_memory_give_context(context);
    __atomic_store_n(&gv_gate.lost, 0, __ATOMIC_RELAXED);
}

static CUresult destroyed(CUresult (*destroy)(CUcontext), CUcontext context)
{
    gv_contexts_remove(context); /* before the driver ends it: the control thread must not enter it now */
    const CUresult result = destroy(context);
    if (result == CUDA_SUCCESS)
        gone(context);
    else if (result != CUDA_ERROR_INVALID_CONTEXT && result != CUDA_ERROR_INVALID_VALUE)
        gv_contexts_add(context);
    return result;
}

GV_EXPORT CUresult cuCtxDestroy(CUcontext ctx) { return destroyed(REAL(cuCtxDestroy), ctx); }
GV_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx) { return destroyed(REAL(cuCtxDestroy_v2), ctx); }

/* Release and reset of the primary context: it is gone when the driver says that it is not active any more. */
static CUresult primary(CUresult (*end)(CUdevice), CUdevice device, int always)
{
    CUcontext context = NULL;
    unsigned int flags = 0;
    int active = 0;
    if (REAL(cuDevicePrimaryCtxGetState)(device, &flags, &active) == CUDA_SUCCESS && active &&
        REAL(cuDevicePrimaryCtxRetain)(&context, device) == CUDA_SUCCESS)
        REAL(cuDevicePrimaryCtxRelease_v2)(device);
    const CUresult result = end(device);
    active = 0;
    const CUresult state = REAL(cuDevicePrimaryCtxGetState)(device, &flags, &active);
    if (result == CUDA_SUCCESS && context != NULL && (always || (state == CUDA_SUCCESS && !active))) {
        gone(context);
        if (active)
            gv_contexts_add(context); /* reset keeps the handle alive for those who retained it */
    }
    return result;
}

GV_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev) { return primary(REAL(cuDevicePrimaryCtxRelease), dev, 0); }
GV_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    return primary(REAL(cuDevicePrimaryCtxRelease_v2), dev, 0);
}
GV_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev) { return primary(REAL(cuDevicePrimaryCtxReset), dev, 1); }
GV_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    return primary(REAL(cuDevicePrimaryCtxReset_v2), dev, 1);
}
