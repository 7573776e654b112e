/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts: life, the thread's stack of current ones, sticky errors.
 */
#include "context.h"
#include "driver_faults.h"
#include "memory.h"
#include "model.h"
#include "module.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>

enum { STACK_DEPTH = 64 };

GV_THREAD_LOCAL struct gv_context **stack; /* of current contexts; allocated at first push */
GV_THREAD_LOCAL int depth;

static pthread_key_t thread_end; /* frees `stack` */
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;

static pthread_mutex_t primaries = PTHREAD_MUTEX_INITIALIZER;
static struct gv_context *primary[GV_BOARD_DEVICES]; /* under `primaries`; kept for ever: the handle is stable */
static int retained[GV_BOARD_DEVICES];
static unsigned primary_flags[GV_BOARD_DEVICES];
static _Atomic uint64_t last_id;
/* All that were ever created: a destroyed one stays, for threads that have it current and must be told so. */
static _Atomic(struct gv_context *) all_contexts;

struct gv_context *gv_thread_context(void) { return depth == 0 ? NULL : stack[depth - 1]; }

/* Known ones, and at most one of how to wait. */
bool gv_context_flags_valid(unsigned flags)
{
    const unsigned scheduling = flags & CU_CTX_SCHED_MASK;
    return (flags & ~(unsigned)CU_CTX_FLAGS_MASK) == 0 && (scheduling & (scheduling - 1)) == 0;
}

struct gv_context *gv_context_of(CUcontext handle)
{
    struct gv_context *context = (struct gv_context *)handle;
    return gv_is(context, GV_CONTEXT) ? context : NULL;
}

CUresult gv_context_state(struct gv_context *context)
{
    if (!atomic_load_explicit(&context->alive, memory_order_acquire))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return (CUresult)atomic_load_explicit(&context->error, memory_order_acquire);
}

CUresult gv_current_context(struct gv_context **context)
{
    GV_READY();
    *context = gv_thread_context();
    return *context == NULL ? CUDA_ERROR_INVALID_CONTEXT : gv_context_state(*context);
}

bool gv_contexts_each(bool (*visit)(struct gv_context *context, void *data), void *data)
{
    for (struct gv_context *context = atomic_load(&all_contexts); context != NULL; context = context->next_made)
        if (atomic_load_explicit(&context->alive, memory_order_acquire) && !visit(context, data))
            return false;
    return true;
}

static void free_stack(void *of_thread)
{
    free(of_thread);
    stack = NULL;
    depth = 0;
}

static void make_key(void) { pthread_key_create(&thread_end, free_stack); }

static bool push(struct gv_context *context)
{
    if (stack == NULL) {
        stack = calloc(STACK_DEPTH, sizeof(struct gv_context *));
        pthread_once(&thread_end_once, make_key);
        pthread_setspecific(thread_end, stack);
    }
    if (stack == NULL || depth == STACK_DEPTH)
        return false;
    stack[depth++] = context;
    return true;
}

static CUresult open_context(struct gv_context *context, int device, unsigned flags)
{
    if (gv_device_lost(device))
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    context->losses = gv_device_losses(device);
    context->device = device;
    context->flags = flags;
    context->api_version = 3020;
    context->attached = 1;
    context->id = atomic_fetch_add(&last_id, 1) + 1;
    context->streams = NULL;
    context->instances = NULL;
    context->kernel_heap = NULL;
    context->peer_count = 0;
    context->cache_preference = CU_FUNC_CACHE_PREFER_NONE;
    memset(context->limits, 0, sizeof context->limits);
    context->limits[CU_LIMIT_STACK_SIZE] = 1024;
    context->limits[CU_LIMIT_PRINTF_FIFO_SIZE] = 1 << 20;
    context->limits[CU_LIMIT_MALLOC_HEAP_SIZE] = 8 << 20;
    context->limits[CU_LIMIT_DEV_RUNTIME_SYNC_DEPTH] = 2;
    context->limits[CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT] = 2048;
    context->limits[CU_LIMIT_MAX_L2_FETCH_GRANULARITY] = 128;
    atomic_store(&context->error, CUDA_SUCCESS);
    if (!gv_model_keep(device, &context->kept_bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    context->legacy = gv_stream_create(context, GV_STREAM_LEGACY, 0);
    if (context->legacy == NULL) {
        gv_model_give_up(device, context->kept_bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    gv_board_contexts(gv_driver.board, gv_place(device), 1);
    atomic_store_explicit(&context->alive, true, memory_order_release);
    return CUDA_SUCCESS;
}

static struct gv_context *new_context(bool is_primary)
{
    struct gv_context *context = gv_object_new(GV_CONTEXT, sizeof *context);
    if (context != NULL) {
        pthread_mutex_init(&context->lock, NULL);
        context->primary = is_primary;
        atomic_store(&context->alive, false);
        context->next_made = atomic_load(&all_contexts);
        while (!atomic_compare_exchange_weak(&all_contexts, &context->next_made, context)) {
        }
    }
    return context;
}

static void close_context(struct gv_context *context)
{
    atomic_store(&context->alive, false); /* first: a stream that waits for a value gives up */
    gv_context_synchronise(context);
    gv_instances_close(context);
    gv_streams_close(context);
    gv_memory_close(context);
    gv_model_give_up(context->device, context->kept_bytes);
    gv_board_contexts(gv_driver.board, gv_place(context->device), -1);
}

CUresult gv_context_synchronise(struct gv_context *context)
{
    gv_streams_wait(context);
    gv_after_wait();
    return gv_context_state(context);
}

struct gv_context *gv_primary_context(int device)
{
    struct gv_context *context = primary[device];
    return context != NULL && atomic_load(&context->alive) ? context : NULL;
}

GV_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pctx == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&primaries);
    if (primary[dev] == NULL)
        primary[dev] = new_context(true);
    if (primary[dev] == NULL)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    else if (!atomic_load(&primary[dev]->alive))
        result = open_context(primary[dev], dev, primary_flags[dev]);
    if (result == CUDA_SUCCESS) {
        retained[dev]++;
        *pctx = gv_context_handle(primary[dev]);
    }
    pthread_mutex_unlock(&primaries);
    return result;
}

GV_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&primaries);
    if (retained[dev] == 0)
        result = CUDA_ERROR_INVALID_CONTEXT;
    else if (--retained[dev] == 0)
        close_context(primary[dev]);
    pthread_mutex_unlock(&primaries);
    return result;
}

GV_EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice dev) { return cuDevicePrimaryCtxRelease_v2(dev); }

/* Everything in it goes; who holds it may go on with the same handle, which is as new. */
GV_EXPORT CUresult cuDevicePrimaryCtxReset_v2(CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&primaries);
    if (primary[dev] != NULL && atomic_load(&primary[dev]->alive)) {
        close_context(primary[dev]);
        if (retained[dev] > 0)
            result = open_context(primary[dev], dev, primary_flags[dev]);
    }
    pthread_mutex_unlock(&primaries);
    return result;
}

GV_EXPORT CUresult cuDevicePrimaryCtxReset(CUdevice dev) { return cuDevicePrimaryCtxReset_v2(dev); }

GV_EXPORT CUresult cuDevicePrimaryCtxSetFlags_v2(CUdevice dev, unsigned int flags)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (!gv_context_flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&primaries);
    primary_flags[dev] = flags;
    if (primary[dev] != NULL)
        primary[dev]->flags = flags;
    pthread_mutex_unlock(&primaries);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice dev, unsigned int flags)
{
    return cuDevicePrimaryCtxSetFlags_v2(dev, flags);
}

GV_EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice dev, unsigned int *flags, int *active)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (flags == NULL || active == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&primaries);
    *flags = primary_flags[dev];
    *active = gv_primary_context(dev) != NULL;
    pthread_mutex_unlock(&primaries);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxCreate_v2(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pctx == NULL || !gv_context_flags_valid(flags))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_context *context = new_context(false);
    if (context == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    GV_TRY(open_context(context, dev, flags));
    if (!push(context)) {
        close_context(context);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *pctx = gv_context_handle(context);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxCreate(CUcontext *pctx, unsigned int flags, CUdevice dev)
{
    return cuCtxCreate_v2(pctx, flags, dev);
}

GV_EXPORT CUresult cuCtxCreate_v3(CUcontext *pctx, CUexecAffinityParam *paramsArray, int numParams, unsigned int flags,
                                  CUdevice dev)
{
    GV_ENTER();
    if (paramsArray != NULL || numParams != 0)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    return cuCtxCreate_v2(pctx, flags, dev);
}

GV_EXPORT CUresult cuCtxCreate_v4(CUcontext *pctx, CUctxCreateParams *ctxCreateParams, unsigned int flags, CUdevice dev)
{
    GV_ENTER();
    if (ctxCreateParams != NULL && ctxCreateParams->numExecAffinityParams != 0)
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    if (ctxCreateParams != NULL && ctxCreateParams->cigParams != NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return cuCtxCreate_v2(pctx, flags, dev);
}

GV_EXPORT CUresult cuCtxDestroy_v2(CUcontext ctx)
{
    GV_ENTER();
    struct gv_context *context = gv_context_of(ctx);
    if (context == NULL || context->primary)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!atomic_exchange(&context->alive, false)) /* of two threads one destroys it */
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    close_context(context);
    if (gv_thread_context() == context)
        depth--;
    /* The object stays: other threads may have it current and are told that it is destroyed. */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxDestroy(CUcontext ctx) { return cuCtxDestroy_v2(ctx); }

GV_EXPORT CUresult cuCtxAttach(CUcontext *pctx, unsigned int flags)
{
    GV_ENTER_CONTEXT(context);
    if (pctx == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    context->attached++;
    *pctx = gv_context_handle(context);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxDetach(CUcontext ctx)
{
    GV_ENTER();
    struct gv_context *context = gv_context_of(ctx);
    if (context == NULL || context != gv_thread_context())
        return CUDA_ERROR_INVALID_CONTEXT;
    return --context->attached > 0 ? CUDA_SUCCESS : cuCtxDestroy_v2(ctx);
}

GV_EXPORT CUresult cuCtxPushCurrent_v2(CUcontext ctx)
{
    GV_ENTER();
    struct gv_context *context = gv_context_of(ctx);
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!atomic_load(&context->alive))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    return push(context) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

GV_EXPORT CUresult cuCtxPushCurrent(CUcontext ctx) { return cuCtxPushCurrent_v2(ctx); }

GV_EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *pctx)
{
    GV_ENTER();
    if (depth == 0)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct gv_context *context = stack[--depth];
    if (pctx != NULL)
        *pctx = gv_context_handle(context);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxPopCurrent(CUcontext *pctx) { return cuCtxPopCurrent_v2(pctx); }

GV_EXPORT CUresult cuCtxSetCurrent(CUcontext ctx)
{
    GV_ENTER();
    if (ctx == NULL) {
        if (depth > 0)
            depth--;
        return CUDA_SUCCESS;
    }
    struct gv_context *context = gv_context_of(ctx);
    if (context == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    if (!atomic_load(&context->alive))
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    if (depth == 0)
        return push(context) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    stack[depth - 1] = context;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCtxGetCurrent(CUcontext *pctx)
{
    GV_ENTER();
    if (pctx == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = gv_context_handle(gv_thread_context());
    return CUDA_SUCCESS;
}
