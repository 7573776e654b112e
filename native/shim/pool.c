/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "memory.h"
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
        usage->next = usages;
        usages = usage;
    }
    return usage;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void count_taken(CUmemoryPool pool, uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL) {
        usage->used += bytes;
        usage->reserved = larger(usage->reserved, usage->used);
        usage->used_high = larger(usage->used_high, usage->used);
        usage->reserved_high = larger(usage->reserved_high, usage->reserved);
    }
    pthread_mutex_unlock(&lock);
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
    gv_waiting_forget();
}

void gv_pool_given(const struct gv_range *range) { count_given(range->pool, range->asked_bytes); }

/* --- pools that stay with the driver: shared with other processes, on the host, or not pinned memory of this device ------- */

static CUmemoryPool *natives; /* under lock */
static size_t native_count;

static int gv_pool_is_native(CUmemoryPool pool)
{
    int found = 0;
    if (__atomic_load_n(&native_count, __ATOMIC_ACQUIRE) == 0)
        return 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < native_count; i++)
        found |= natives[i] == pool;
    pthread_mutex_unlock(&lock);
    return found;
}

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
    if (pool == NULL) {
        CUdevice device = gv_memory.device;
        result = REAL(cuDeviceGetMemPool)(&pool, device);
        if (result != CUDA_SUCCESS)
            return result;
    }
    gv_pool_reclaim(0);
    struct gv_range *const again = gv_pool_reuse(bytes, stream, context);
    if (again != NULL) {
        gv_memory_readmit(again, context, pool);
        *dptr = again->address;
    } else {
        result = gv_memory_take(bytes, context, pool, dptr);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && gv_pool_reclaim(1))
            result = gv_memory_take(bytes, context, pool, dptr);
    }
    if (result == CUDA_SUCCESS)
        count_taken(pool, bytes);
    return result;
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
    result = gv_pool_free_later(range, stream, context);
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
        if (gv_stream_captures(stream))                                                                                \
            return REAL(cuMemAllocAsync##suffix)(dptr, bytesize, hStream);                                             \
        return allocate(dptr, bytesize, NULL, stream);                                                                 \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool,          \
                                                       CUstream hStream)                                               \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        if (gv_stream_captures(stream) || gv_pool_is_native(pool))                                                     \
            return REAL(cuMemAllocFromPoolAsync##suffix)(dptr, bytesize, pool, hStream);                               \
        return pool == NULL ? CUDA_ERROR_INVALID_VALUE : allocate(dptr, bytesize, pool, stream);                       \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemFreeAsync##suffix(CUdeviceptr dptr, CUstream hStream)                                      \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        /* In a capture: a graph frees what a graph allocated, the driver says so. */                                  \
        if (!gv_memory_owns(dptr) || gv_stream_captures(stream))                                                       \
            return REAL(cuMemFreeAsync##suffix)(dptr, hStream);                                                        \
        return release(dptr, stream);                                                                                  \
    }

STREAM_ORDERED(, NULL)
STREAM_ORDERED(_ptsz, CU_STREAM_PER_THREAD)

static void add_native(CUmemoryPool pool)
{
    pthread_mutex_lock(&lock);
    CUmemoryPool *grown = realloc(natives, (native_count + 1) * sizeof *natives);
    if (grown != NULL) {
        natives = grown;
        natives[native_count] = pool;
        __atomic_store_n(&native_count, native_count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
}

GV_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    const CUresult result = REAL(cuMemPoolCreate)(pool, poolProps);
    if (result == CUDA_SUCCESS &&
        (poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE || poolProps->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
         poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
         (gv_memory.bytes != 0 && poolProps->location.id != gv_memory.device)))
        add_native(*pool);
    return result;
}

GV_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    const CUresult result = REAL(cuMemPoolDestroy)(pool);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lock); /* the handle may come again for another pool */
    for (struct usage **link = &usages; *link != NULL; link = &(*link)->next) {
        if ((*link)->pool == pool) {
            struct usage *const old = *link;
            *link = old->next;
            free(old);
            break;
        }
    }
    for (size_t i = 0; i < native_count; i++)
        if (natives[i] == pool)
            natives[i] = NULL;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle,
                                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    const CUresult result = REAL(cuMemPoolImportFromShareableHandle)(pool_out, handle, handleType, flags);
    if (result == CUDA_SUCCESS)
        add_native(*pool_out);
    return result;
}

/* Figures of what was allocated from the pool are ours; thresholds and switches are the driver's. */
GV_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    const CUresult result = REAL(cuMemPoolGetAttribute)(pool, attr, value);
    if (result != CUDA_SUCCESS || value == NULL || gv_pool_is_native(pool))
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
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lock); /* the high marks can only be set back, to what is there now */
    struct usage *const usage = usage_of(pool);
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        usage->used_high = usage->used;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        usage->reserved_high = usage->reserved;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
{
    gv_pool_reclaim(0);
    count_released(pool, minBytesToKeep);
    return REAL(cuMemPoolTrimTo)(pool, minBytesToKeep);
}
