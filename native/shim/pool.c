/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "graph_memory.h"
#include "memory.h"
#include "pool_native.h"
#include "real_driver.h"
#include "session.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/*
 * What one pool says of itself; under lock. `reserved` follows the rules of the driver's pools (it grows with use, and falls to
 * the release threshold when memory is given back), so that programs which tune pools see what they expect. The memory itself
 * goes back to the job at once: reserving it would only be charged to nobody's use.
 */
struct usage {
    CUmemoryPool pool;
    uint64_t used, used_high, reserved, reserved_high;
    uint64_t limit; /* CUmemPoolProps.maxSize, in whole chunks; 0 = none */
    struct gv_reuse reuse;
    struct usage *next;
};
static struct usage *usages;

static struct usage *usage_of(CUmemoryPool pool)
{
    for (struct usage *usage = usages; usage != NULL; usage = usage->next)
        if (usage->pool == pool)
            return usage;
    struct usage *usage = calloc(1, sizeof *usage);
    if (usage != NULL) {
        usage->pool = pool;
        usage->reuse = (struct gv_reuse){1, 1, 1};
        usage->next = usages;
        usages = usage;
    }
    return usage;
}

/* Is this a pool? Asks the driver for the first allocation only. */
static int is_pool(CUmemoryPool pool)
{
    cuuint64_t threshold;
    pthread_mutex_lock(&lock);
    const struct usage *usage = usages;
    while (usage != NULL && usage->pool != pool)
        usage = usage->next;
    pthread_mutex_unlock(&lock);
    return usage != NULL ||
           REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold) == CUDA_SUCCESS;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* 0 when the pool may not be as large. `reuse`: what it allows. */
static int count_taken(CUmemoryPool pool, uint64_t bytes, struct gv_reuse *reuse)
{
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    const int fits = usage == NULL || usage->limit == 0 || bytes <= usage->limit - smaller(usage->used, usage->limit);
    if (usage != NULL && fits) {
        *reuse = usage->reuse;
        usage->used += bytes;
        usage->reserved = larger(usage->reserved, usage->used);
        usage->used_high = larger(usage->used_high, usage->used);
        usage->reserved_high = larger(usage->reserved_high, usage->reserved);
    }
    pthread_mutex_unlock(&lock);
    return fits;
}

static void count_given(CUmemoryPool pool, uint64_t bytes)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL) /* a pool may go before its memory does */
        usage->used = usage->used > bytes ? usage->used - bytes : 0;
    pthread_mutex_unlock(&lock);
}

/* The pool keeps at most `limit` bytes beyond what is in use. */
static void count_released(CUmemoryPool pool, uint64_t limit)
{
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL)
        usage->reserved = larger(usage->used, smaller(usage->reserved, limit));
    pthread_mutex_unlock(&lock);
}

void gv_pool_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    usages = NULL;
    gv_pool_natives_forget();
    gv_waiting_forget();
}

void gv_pool_given(const struct gv_range *range) { count_given(range->pool, range->asked_bytes); }

static CUresult allocate(CUdeviceptr *dptr, uint64_t bytes, CUmemoryPool pool, CUstream stream)
{
    if (dptr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUcontext context = NULL;
    CUresult result = gv_session_attach_current();
    if (result == CUDA_SUCCESS)
        result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS)
        result = gv_gate_lost_context();
    if (result != CUDA_SUCCESS)
        return result;
    if (!is_pool(pool) || bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_reuse reuse = {1, 1, 1};
    if (!count_taken(pool, bytes, &reuse))
        return CUDA_ERROR_OUT_OF_MEMORY;
    gv_pool_reclaim(0);
    struct gv_range *again = gv_pool_reuse(bytes, stream, context, reuse.follow);
    if (again == NULL) {
        result = gv_memory_take(bytes, context, pool, dptr);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && reuse.internal)
            again = gv_pool_reuse_later(bytes, stream);
    }
    if (again != NULL) {
        gv_memory_readmit(again, context, pool);
        *dptr = again->address;
        return CUDA_SUCCESS;
    }
    if (result == CUDA_ERROR_OUT_OF_MEMORY && gv_pool_reclaim(1))
        result = gv_memory_take(bytes, context, pool, dptr);
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        gv_memory_refused(bytes);
    if (result != CUDA_SUCCESS)
        count_given(pool, bytes);
    return result;
}

/* May memory that was freed go to whoever asks as soon as its stream has passed the free? */
static int may_reuse(CUmemoryPool pool)
{
    int may = 1;
    pthread_mutex_lock(&lock);
    for (const struct usage *usage = usages; pool != NULL && usage != NULL; usage = usage->next)
        if (usage->pool == pool)
            may = usage->reuse.opportunistic;
    pthread_mutex_unlock(&lock);
    return may;
}

/* What cuMemAllocAsync takes from. */
static CUresult current_pool(CUmemoryPool *pool)
{
    CUresult result = gv_session_attach_current();
    return result == CUDA_SUCCESS ? REAL(cuDeviceGetMemPool)(pool, gv_memory.device) : result;
}

static CUresult release(CUdeviceptr dptr, CUstream stream)
{
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS && context == NULL)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result != CUDA_SUCCESS)
        return result;
    struct gv_range *const range = gv_memory_claim(dptr);
    if (range == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const CUmemoryPool pool = range->pool; /* once it waits, another thread may end it */
    const uint64_t bytes = range->asked_bytes;
    result = gv_pool_free_later(range, stream, context, !may_reuse(pool));
    if (result == CUDA_SUCCESS)
        count_given(pool, bytes);
    else
        gv_memory_readmit(range, range->context, range->pool);
    return result;
}

#define STREAM_ORDERED(suffix, default_stream)                                                                         \
    GV_EXPORT CUresult cuMemAllocAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)                   \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        CUmemoryPool pool = NULL;                                                                                      \
        if (gv_stream_captures(stream))                                                                                \
            return REAL(cuMemAllocAsync##suffix)(dptr, bytesize, hStream);                                             \
        const CUresult result = current_pool(&pool);                                                                   \
        if (result != CUDA_SUCCESS)                                                                                    \
            return result;                                                                                             \
        if (gv_pool_is_native(pool))                                                                                   \
            return GV_POOL_NATIVE(pool, bytesize, REAL(cuMemAllocAsync##suffix)(dptr, bytesize, hStream));             \
        return allocate(dptr, bytesize, pool, stream);                                                                 \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool,          \
                                                       CUstream hStream)                                               \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        if (gv_stream_captures(stream))                                                                                \
            return REAL(cuMemAllocFromPoolAsync##suffix)(dptr, bytesize, pool, hStream);                               \
        if (gv_pool_is_native(pool))                                                                                   \
            return GV_POOL_NATIVE(pool, bytesize,                                                                      \
                                  REAL(cuMemAllocFromPoolAsync##suffix)(dptr, bytesize, pool, hStream));               \
        return pool == NULL ? CUDA_ERROR_INVALID_VALUE : allocate(dptr, bytesize, pool, stream);                       \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemFreeAsync##suffix(CUdeviceptr dptr, CUstream hStream)                                      \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        /* In a capture: a graph frees what a graph allocated, the driver says so. */                                  \
        if (gv_memory_owns(dptr) && !gv_stream_captures(stream))                                                       \
            return release(dptr, stream);                                                                              \
        const CUresult result = REAL(cuMemFreeAsync##suffix)(dptr, hStream);                                           \
        gv_pool_natives_look();                                                                                        \
        gv_graph_memory_look();                                                                                        \
        return result;                                                                                                 \
    }

STREAM_ORDERED(, NULL)
STREAM_ORDERED(_ptsz, CU_STREAM_PER_THREAD)

GV_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    const CUresult result = REAL(cuMemPoolCreate)(pool, poolProps);
    if (result != CUDA_SUCCESS)
        return result;
    const int native = gv_pool_stays_native(poolProps);
    pthread_mutex_lock(&lock);
    struct usage *const usage = native ? NULL : usage_of(*pool);
    if (usage != NULL)
        usage->limit = gv_driver_chunks(poolProps->maxSize);
    pthread_mutex_unlock(&lock);
    if (native ? gv_pool_add_native(*pool, poolProps) == 0 : usage != NULL)
        return CUDA_SUCCESS;
    REAL(cuMemPoolDestroy)(*pool);
    return CUDA_ERROR_OUT_OF_MEMORY; /* of the host */
}

GV_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    cuuint64_t used = 0;
    if (gv_pool_is_native(pool))
        REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used);
    const CUresult result = REAL(cuMemPoolDestroy)(pool);
    if (result != CUDA_SUCCESS)
        return result;
    gv_pool_native_destroyed(pool, used);
    pthread_mutex_lock(&lock); /* the handle may come again for another pool */
    for (struct usage **link = &usages; *link != NULL; link = &(*link)->next) {
        if ((*link)->pool == pool) {
            struct usage *const old = *link;
            *link = old->next;
            free(old);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle,
                                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    const CUresult result = REAL(cuMemPoolImportFromShareableHandle)(pool_out, handle, handleType, flags);
    if (result != CUDA_SUCCESS || gv_pool_add_native(*pool_out, NULL) == 0)
        return result;
    REAL(cuMemPoolDestroy)(*pool_out);
    return CUDA_ERROR_OUT_OF_MEMORY; /* of the host */
}

/* Figures of what was allocated from the pool are ours; thresholds and switches are the driver's. */
GV_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    const CUresult result = REAL(cuMemPoolGetAttribute)(pool, attr, value);
    if (result != CUDA_SUCCESS || value == NULL || gv_pool_is_native(pool))
        return result;
    if (attr != CU_MEMPOOL_ATTR_USED_MEM_CURRENT && attr != CU_MEMPOOL_ATTR_USED_MEM_HIGH &&
        attr != CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT && attr != CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        return result;
    cuuint64_t threshold = 0;
    gv_pool_reclaim(0);
    if (REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold) == CUDA_SUCCESS)
        count_released(pool, threshold);
    pthread_mutex_lock(&lock);
    const struct usage *const usage = usage_of(pool);
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        *(cuuint64_t *)value = usage->used;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        *(cuuint64_t *)value = usage->used_high;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
        *(cuuint64_t *)value = usage->reserved;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        *(cuuint64_t *)value = usage->reserved_high;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    const CUresult result = REAL(cuMemPoolSetAttribute)(pool, attr, value);
    if (result != CUDA_SUCCESS || gv_pool_is_native(pool))
        return result;
    pthread_mutex_lock(&lock); /* the high marks can only be set back, to what is there now */
    struct usage *const usage = usage_of(pool);
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        usage->used_high = usage->used;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        usage->reserved_high = usage->reserved;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES)
        usage->reuse.follow = *(const int *)value;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC)
        usage->reuse.opportunistic = *(const int *)value;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES)
        usage->reuse.internal = *(const int *)value;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
{
    gv_pool_reclaim(0);
    count_released(pool, minBytesToKeep);
    const CUresult result = REAL(cuMemPoolTrimTo)(pool, minBytesToKeep);
    gv_pool_natives_look();
    return result;
}
