/* SPDX-License-Identifier: Apache-2.0
 *
 * The entry points that make and end contexts.
 */
#include "contexts.h"
#include "log.h"
#include "real_driver.h"
#include "session.h"

/* Release and reset of the primary context: it is gone when the driver says that it is not active any more. */
static CUresult primary(CUresult (*end)(CUdevice), CUdevice device, int always)
{
    CUcontext context = NULL;
    unsigned int flags = 0;
    int active = 0;
    if (REAL(cuDevicePrimaryCtxGetState)(device, &flags, &active) == CUDA_SUCCESS && active &&
        REAL(cuDevicePrimaryCtxRetain)(&context, device) == CUDA_SUCCESS)
        REAL(cuDevicePrimaryCtxRelease_v2)(device);
    if (context == NULL)
        return end(device);
    struct waiting *const waiting = gv_contexts_begin_end(context);
    const CUresult result = end(device);
    active = 0;
    const CUresult state = REAL(cuDevicePrimaryCtxGetState)(device, &flags, &active);
    const int lives = state != CUDA_SUCCESS || active; /* reset keeps the handle alive for those who retained it */
    gv_contexts_end_end(context, waiting, result == CUDA_SUCCESS && (always || !lives), lives);
    return result;
}

/* The program comes to have a context, or counts its references to the primary one: ours must not be among them. */
static void move_out(void)
{
    if (gv_contexts_move_out())
        primary(REAL(cuDevicePrimaryCtxRelease_v2), gv_session.device, 0);
}

/* A context came into being: put the process under control before it can do anything with it, or take it back. */
static CUresult admit(CUcontext *context, CUdevice device, CUresult (*take_back)(CUcontext, CUdevice))
{
    CUresult refused = gv_session_attach(device);
    if (refused == CUDA_SUCCESS && gv_contexts_add(*context) != 0) {
        gv_log("more than %d contexts in one process are not supported", CONTEXTS_MAX);
        refused = CUDA_ERROR_OUT_OF_MEMORY; /* one that is not drained would work on memory that is taken away */
    }
    move_out();
    if (refused == CUDA_SUCCESS)
        return CUDA_SUCCESS;
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

static CUresult destroyed(CUresult (*destroy)(CUcontext), CUcontext context)
{
    struct waiting *const waiting = gv_contexts_begin_end(context);
    const CUresult result = destroy(context);
    const int unknown = result == CUDA_ERROR_INVALID_CONTEXT || result == CUDA_ERROR_INVALID_VALUE;
    gv_contexts_end_end(context, waiting, result == CUDA_SUCCESS, result != CUDA_SUCCESS && !unknown);
    return result;
}

GV_EXPORT CUresult cuCtxDestroy(CUcontext ctx) { return destroyed(REAL(cuCtxDestroy), ctx); }
GV_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx) { return destroyed(REAL(cuCtxDestroy_v2), ctx); }

/* The usage count of the current context, as old programs keep it. */
GV_EXPORT CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
    const CUresult result = REAL(cuCtxAttach)(pctx, flags);
    if (result == CUDA_SUCCESS)
        gv_contexts_attached(*pctx);
    return result;
}

GV_EXPORT CUresult cuCtxDetach(CUcontext ctx)
{
    struct waiting *const waiting = gv_contexts_begin_end(ctx);
    const CUresult result = REAL(cuCtxDetach)(ctx);
    const int gone = result == CUDA_SUCCESS && gv_contexts_detached(ctx);
    gv_contexts_end_end(ctx, waiting, gone, !gone);
    return result;
}

GV_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev)
{
    move_out();
    return primary(REAL(cuDevicePrimaryCtxRelease), dev, 0);
}
GV_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    move_out();
    return primary(REAL(cuDevicePrimaryCtxRelease_v2), dev, 0);
}
GV_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev)
{
    move_out();
    return primary(REAL(cuDevicePrimaryCtxReset), dev, 1);
}
GV_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    move_out();
    return primary(REAL(cuDevicePrimaryCtxReset_v2), dev, 1);
}
