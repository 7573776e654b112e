/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program may ask and set about a context.
 */
#include "capture.h"
#include "context.h"
#include "memory.h"

/* The given context, or the thread's when NULL. */
static CUresult pick(CUcontext ctx, struct gv_context **context)
{
    GV_READY();
    if (ctx == NULL)
        return gv_current_context(context);
    *context = gv_context_of(ctx);
    return *context == NULL ? CUDA_ERROR_INVALID_CONTEXT : gv_context_state(*context);
}

GV_EXPORT CUresult cuCtxGetDevice_v2(CUdevice *device, CUcontext ctx)
{
    GV_ENTER();
    if (device == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_context *context = ctx == NULL ? gv_thread_context() : gv_context_of(ctx);
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    *device = context->device;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetDevice(CUdevice *device) { return cuCtxGetDevice_v2(device, NULL); }

GV_EXPORT CUresult cuCtxSynchronize_v2(CUcontext ctx)
{
    GV_ENTER();
    struct gv_context *context;
    GV_TRY(pick(ctx, &context));
    GV_TRY(gv_capture_check_context(context));
    return gv_context_synchronise(context);
}

GV_EXPORT CUresult cuCtxSynchronize(void) { return cuCtxSynchronize_v2(NULL); }

GV_EXPORT CUresult cuCtxGetApiVersion(CUcontext ctx, unsigned int *version)
{
    GV_ENTER();
    struct gv_context *context;
    GV_TRY(pick(ctx, &context));
    if (version == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *version = context->api_version;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetId(CUcontext ctx, unsigned long long *ctxId)
{
    GV_ENTER();
    struct gv_context *context;
    GV_TRY(pick(ctx, &context));
    if (ctxId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *ctxId = context->id;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetFlags(unsigned int *flags)
{
    GV_ENTER_CONTEXT(context);
    if (flags == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = context->flags;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxSetFlags(unsigned int flags)
{
    GV_ENTER_CONTEXT(context);
    if (!gv_context_flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    context->flags = flags;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetLimit(size_t *pvalue, CUlimit limit)
{
    GV_ENTER_CONTEXT(context);
    if (pvalue == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if ((unsigned)limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    *pvalue = context->limits[limit];
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    GV_ENTER_CONTEXT(context);
    if ((unsigned)limit > CU_LIMIT_PERSISTING_L2_CACHE_SIZE)
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory_lock);
    if (limit == CU_LIMIT_MALLOC_HEAP_SIZE && context->kernel_heap != NULL)
        result = CUDA_ERROR_INVALID_VALUE; /* documented: before the first kernel that uses malloc */
    else
        context->limits[limit] = value;
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuCtxGetStreamPriorityRange(int *leastPriority, int *greatestPriority)
{
    GV_ENTER_CONTEXT(context);
    if (leastPriority != NULL)
        *leastPriority = 0;
    if (greatestPriority != NULL)
        *greatestPriority = -5;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetCacheConfig(CUfunc_cache *pconfig)
{
    GV_ENTER_CONTEXT(context);
    if (pconfig == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pconfig = context->cache_preference;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxSetCacheConfig(CUfunc_cache config)
{
    GV_ENTER_CONTEXT(context);
    if ((unsigned)config > CU_FUNC_CACHE_PREFER_EQUAL)
        return CUDA_ERROR_INVALID_VALUE;
    context->cache_preference = config; /* "only a preference": there is no cache to divide */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetSharedMemConfig(CUsharedconfig *pConfig)
{
    GV_ENTER_CONTEXT(context);
    if (pConfig == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pConfig = CU_SHARED_MEM_CONFIG_FOUR_BYTE_BANK_SIZE;
    return CUDA_SUCCESS;
}

/* Documented to have no effect where the banks are of a fixed size, as here and on every GPU since Maxwell. */
GV_EXPORT CUresult cuCtxSetSharedMemConfig(CUsharedconfig config)
{
    GV_ENTER_CONTEXT(context);
    return (unsigned)config <= CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* There is no cache whose lines could persist: all of them are normal at any time. */
GV_EXPORT CUresult cuCtxResetPersistingL2Cache(void)
{
    GV_ENTER_CONTEXT(context);
    return CUDA_SUCCESS;
}
