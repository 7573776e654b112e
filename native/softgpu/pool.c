/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream-ordered allocation. A pool is a heap that keeps its blocks: memory stays reserved until the program waits for
 * something and the pool holds more than its release threshold, or trims.
 */
#include "memory.h"
#include "stream.h"

#include <string.h>

struct gv_pool {
    struct gv_object object;
    struct gv_heap heap;
    uint64_t threshold;
    int reuse[3]; /* follow event dependencies, opportunistic, internal dependencies: kept, always honoured */
    bool is_default, destroyed;
    uint32_t allocations; /* a destroyed pool lives until they are gone */
    CUmemAllocationHandleType handle_types;
    struct gv_pool *next;
};

static struct gv_pool *pools;                          /* all; under gv_memory_lock */
static struct gv_pool *default_pool[GV_BOARD_DEVICES]; /* made at first use; under gv_memory_lock */
static struct gv_pool *current_pool[GV_BOARD_DEVICES];
static atomic_bool trim_wanted; /* a pool may hold more than it should: look at the next wait */

static struct gv_pool *new_pool(int device)
{
    struct gv_pool *pool = gv_object_new(GV_POOL, sizeof *pool);
    if (pool == NULL)
        return NULL;
    memset(&pool->heap, 0, sizeof pool->heap);
    pool->heap.device = device;
    pool->heap.keep = true;
    pool->threshold = 0;
    pool->reuse[0] = pool->reuse[1] = pool->reuse[2] = 1;
    pool->is_default = pool->destroyed = false;
    pool->allocations = 0;
    pool->handle_types = CU_MEM_HANDLE_TYPE_NONE;
    pool->next = pools;
    pools = pool;
    return pool;
}

static struct gv_pool *default_of(int device)
{
    if (default_pool[device] == NULL) {
        default_pool[device] = new_pool(device);
        if (default_pool[device] != NULL)
            default_pool[device]->is_default = true;
    }
    return default_pool[device];
}

static struct gv_pool *pool_of(CUmemoryPool handle)
{
    struct gv_pool *pool = gv_is(handle, GV_POOL) ? (struct gv_pool *)handle : NULL;
    return pool != NULL && !pool->destroyed ? pool : NULL;
}

/* Under the lock. */
static void end_pool(struct gv_pool *pool)
{
    gv_heap_trim(&pool->heap, 0);
    if (pool->heap.reserved > 0)
        return; /* pending frees: the next trim ends it */
    for (struct gv_pool **link = &pools; *link != NULL; link = &(*link)->next)
        if (*link == pool) {
            *link = pool->next;
            break;
        }
    gv_object_free(pool, GV_POOL);
}

void gv_pools_trim(void)
{
    if (!atomic_load_explicit(&trim_wanted, memory_order_relaxed))
        return;
    pthread_mutex_lock(&gv_memory_lock);
    atomic_store(&trim_wanted, false);
    for (struct gv_pool *pool = pools, *next; pool != NULL; pool = next) {
        struct gv_gauge *gauge;
        uint64_t until;
        next = pool->next;
        if (pool->heap.reserved > pool->threshold)
            gv_heap_trim(&pool->heap, pool->threshold);
        if (gv_heap_pending(&pool->heap, &gauge, &until))
            atomic_store(&trim_wanted, true);
        if (pool->destroyed && pool->allocations == 0)
            end_pool(pool);
    }
    pthread_mutex_unlock(&gv_memory_lock);
}

void gv_pool_free(struct gv_region *region, struct gv_gauge *gauge, uint64_t busy_until)
{
    struct gv_pool *pool = region->pool;
    gv_heap_free(&pool->heap, region->segment, gauge, busy_until);
    pool->allocations--;
    gv_region_remove(region);
    atomic_store(&trim_wanted, true);
}

static CUresult allocate_once(struct gv_pool *pool, struct gv_stream *stream, size_t bytes, CUdeviceptr *address)
{
    struct gv_segment *segment;
    GV_TRY(gv_heap_allocate(&pool->heap, bytes, &stream->completed, &segment));
    struct gv_region *region = gv_region_add(segment->base, bytes, GV_REGION_POOL, pool->heap.device, NULL);
    if (region == NULL) {
        gv_heap_free(&pool->heap, segment, NULL, 0);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    region->segment = segment;
    region->heap = &pool->heap;
    region->pool = pool;
    region->context = NULL;
    pool->allocations++;
    *address = segment->base;
    return CUDA_SUCCESS;
}

/* Out of memory is final only when no freed memory of the pools is still in use by a stream. */
static CUresult allocate(struct gv_pool *pool, struct gv_stream *stream, size_t bytes, CUdeviceptr *address)
{
    for (;;) {
        struct gv_gauge *gauge = NULL;
        uint64_t until = 0;
        pthread_mutex_lock(&gv_memory_lock);
        CUresult result = allocate_once(pool, stream, bytes, address);
        bool pending = false;
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            for (struct gv_pool *other = pools; other != NULL && !pending; other = other->next) {
                if (other->heap.device != pool->heap.device)
                    continue;
                gv_heap_trim(&other->heap, 0);
                pending = gv_heap_pending(&other->heap, &gauge, &until);
            }
        if (result == CUDA_ERROR_OUT_OF_MEMORY && !pending)
            result = allocate_once(pool, stream, bytes, address); /* with what the trimming gave back */
        pthread_mutex_unlock(&gv_memory_lock);
        if (!pending)
            return result;
        gv_gauge_wait(gauge, until);
    }
}

GV_EXPORT CUresult cuMemAllocFromPoolAsync(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool handle, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_pool *pool = pool_of(handle);
    if (dptr == NULL || bytesize == 0 || pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    return allocate(pool, stream, bytesize, dptr);
}

GV_EXPORT CUresult cuMemAllocAsync(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    CUmemoryPool pool;
    GV_TRY(cuDeviceGetMemPool(&pool, stream->context->device));
    return cuMemAllocFromPoolAsync(dptr, bytesize, pool, hStream);
}

GV_EXPORT CUresult cuMemFreeAsync(CUdeviceptr dptr, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (dptr == 0)
        return CUDA_SUCCESS;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    bool plain = false;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(dptr);
    if (region != NULL && region->base == dptr && region->kind == GV_REGION_POOL) {
        gv_pool_free(region, &stream->completed, atomic_load(&stream->submitted.value));
        result = CUDA_SUCCESS;
    } else if (region != NULL && region->base == dptr && region->kind == GV_REGION_DEVICE) {
        plain = true;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return plain ? cuMemFree_v2(dptr)
                 : result; /* memory of cuMemAlloc may be freed here too; ours waits for the device */
}

GV_EXPORT CUresult cuDeviceGetDefaultMemPool(CUmemoryPool *pool_out, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pool_out == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    *pool_out = (CUmemoryPool)default_of(dev);
    pthread_mutex_unlock(&gv_memory_lock);
    return *pool_out == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    *pool = (CUmemoryPool)(current_pool[dev] != NULL ? current_pool[dev] : default_of(dev));
    pthread_mutex_unlock(&gv_memory_lock);
    return *pool == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceSetMemPool(CUdevice dev, CUmemoryPool handle)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    struct gv_pool *pool = pool_of(handle);
    if (pool == NULL || pool->heap.device != dev)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    current_pool[dev] = pool;
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    GV_ENTER();
    if (pool == NULL || poolProps == NULL || poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED)
        return CUDA_ERROR_INVALID_VALUE;
    if (poolProps->location.type != CU_MEM_LOCATION_TYPE_DEVICE || poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
        return CUDA_ERROR_NOT_SUPPORTED; /* pools of host memory, shared pools */
    GV_TRY(gv_check_device(poolProps->location.id));
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_pool *made = new_pool(poolProps->location.id);
    if (made != NULL)
        made->heap.limit = gv_round_up(poolProps->maxSize, GV_GRANULARITY);
    pthread_mutex_unlock(&gv_memory_lock);
    *pool = (CUmemoryPool)made;
    return made == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    GV_ENTER();
    struct gv_pool *pool = pool_of(handle);
    if (pool == NULL || pool->is_default)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    const int device = pool->heap.device;
    if (current_pool[device] == pool)
        current_pool[device] = NULL; /* the default pool again, as documented */
    pool->destroyed = true;
    pool->threshold = 0;
    atomic_store(&trim_wanted, true);
    if (pool->allocations == 0)
        end_pool(pool);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool handle, size_t minBytesToKeep)
{
    GV_ENTER();
    struct gv_pool *pool = pool_of(handle);
    if (pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    gv_heap_trim(&pool->heap, minBytesToKeep);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}

static uint64_t get_number(const struct gv_pool *pool, CUmemPool_attribute attribute)
{
    switch (attribute) {
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        return pool->threshold;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        return pool->heap.reserved;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return pool->heap.reserved_high;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        return pool->heap.used;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return pool->heap.used_high;
    default:
        return pool->heap.limit; /* CU_MEMPOOL_ATTR_MAX_POOL_SIZE */
    }
}

GV_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
    GV_ENTER();
    struct gv_pool *pool = pool_of(handle);
    if (pool == NULL || value == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory_lock);
    switch (attr) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        *(int *)value = pool->reuse[attr - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES];
        break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
    case CU_MEMPOOL_ATTR_MAX_POOL_SIZE:
        *(cuuint64_t *)value = get_number(pool, attr);
        break;
    case CU_MEMPOOL_ATTR_ALLOCATION_TYPE:
        *(CUmemAllocationType *)value = CU_MEM_ALLOCATION_TYPE_PINNED;
        break;
    case CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES:
        *(CUmemAllocationHandleType *)value = pool->handle_types;
        break;
    case CU_MEMPOOL_ATTR_LOCATION_ID:
        *(int *)value = pool->heap.device;
        break;
    case CU_MEMPOOL_ATTR_LOCATION_TYPE:
        *(CUmemLocationType *)value = CU_MEM_LOCATION_TYPE_DEVICE;
        break;
    case CU_MEMPOOL_ATTR_HW_DECOMPRESS_ENABLED:
        *(int *)value = 0;
        break;
    default:
        result = CUDA_ERROR_INVALID_VALUE;
        break;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool handle, CUmemPool_attribute attr, void *value)
{
    GV_ENTER();
    struct gv_pool *pool = pool_of(handle);
    if (pool == NULL || value == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory_lock);
    switch (attr) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        pool->reuse[attr - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES] = *(const int *)value != 0;
        break;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        pool->threshold = *(const cuuint64_t *)value;
        atomic_store(&trim_wanted, true);
        break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH: /* high marks can only be reset */
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        if (*(const cuuint64_t *)value != 0)
            result = CUDA_ERROR_INVALID_VALUE;
        else if (attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
            pool->heap.used_high = pool->heap.used;
        else
            pool->heap.reserved_high = pool->heap.reserved;
        break;
    default:
        result = CUDA_ERROR_INVALID_VALUE;
        break;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool memPool, CUmemLocation *location)
{
    GV_ENTER();
    const struct gv_pool *pool = pool_of(memPool);
    if (flags == NULL || location == NULL || pool == NULL || location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_check_device(location->id));
    *flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE; /* soft devices of a process reach all its memory */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t count)
{
    GV_ENTER();
    const struct gv_pool *pool = pool_of(handle);
    if (pool == NULL || (map == NULL && count > 0))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_check_device(map[i].location.id));
        if (map[i].location.id == pool->heap.device && map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            return CUDA_ERROR_INVALID_DEVICE; /* the own device's access cannot be taken away */
    }
    return CUDA_SUCCESS;
}
