/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream-ordered allocation. A pool is a heap that keeps its blocks: memory stays reserved until the program waits for
 * something and the pool holds more than its release threshold, or trims.
 */
#include "pool.h"
#include "capture.h"
#include "managed.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct gv_pool *pools;   /* all; under gv_memory_lock */
static uint64_t last_id;        /* the same */
static atomic_bool trim_wanted; /* a pool may hold more than it should: look at the next wait */

void gv_pools_want_trim(void) { atomic_store(&trim_wanted, true); }

bool gv_has_numa_node(int node)
{
    char path[64];
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d", node);
    return node == 0 || (node > 0 && access(path, F_OK) == 0);
}

int gv_location_device(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_DEVICE ? location->id : GV_HOST;
}

struct gv_pool *gv_pool_new(CUmemAllocationType type, CUmemLocation location)
{
    struct gv_pool *pool = gv_object_new(GV_POOL, sizeof *pool);
    if (pool == NULL)
        return NULL;
    memset(&pool->heap, 0, sizeof pool->heap);
    pool->heap.device = type == CU_MEM_ALLOCATION_TYPE_MANAGED ? GV_HOST : gv_location_device(&location);
    pool->heap.keep = true;
    pool->type = type;
    pool->location = location;
    pool->threshold = 0;
    pool->reuse[0] = pool->reuse[1] = pool->reuse[2] = 1;
    pool->is_default = pool->destroyed = pool->imported = false;
    pool->allocations = 0;
    pool->handle_types = CU_MEM_HANDLE_TYPE_NONE;
    memset(pool->access, 0, sizeof pool->access);
    if (type == CU_MEM_ALLOCATION_TYPE_MANAGED)
        memset(pool->access, CU_MEM_ACCESS_FLAGS_PROT_READWRITE, sizeof pool->access);
    else if (location.type == CU_MEM_LOCATION_TYPE_DEVICE)
        pool->access[location.id] = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    pool->fd = -1;
    pool->id = ++last_id;
    pool->next = pools;
    pools = pool;
    return pool;
}

struct gv_pool *gv_pool_of(CUmemoryPool handle)
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
    if (pool->fd >= 0)
        close(pool->fd);
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

unsigned gv_pool_handle_types(const void *pool) { return ((const struct gv_pool *)pool)->handle_types; }

void gv_pool_free(struct gv_region *region, struct gv_gauge *gauge, uint64_t busy_until)
{
    struct gv_pool *pool = region->pool;
    if (pool == NULL) { /* of a graph */
        gv_graph_memory_free(region->allocation, gauge, busy_until);
        return;
    }
    if (region->kind == GV_REGION_POOL_MANAGED)
        gv_managed_end(region);
    gv_heap_free(&pool->heap, region->segment, gauge, busy_until);
    pool->allocations--;
    gv_region_remove(region);
    atomic_store(&trim_wanted, true);
}

static bool is_after(const struct gv_heap_user *user, const struct gv_gauge *gauge, uint64_t value)
{
    return gv_stream_comes_after((struct gv_stream *)user->data, gauge, value);
}

static enum gv_region_kind kind_of(const struct gv_pool *pool)
{
    return pool->type == CU_MEM_ALLOCATION_TYPE_MANAGED ? GV_REGION_POOL_MANAGED
           : pool->heap.device == GV_HOST               ? GV_REGION_POOL_HOST
                                                        : GV_REGION_POOL;
}

static CUresult give(struct gv_pool *pool, struct gv_segment *segment, size_t bytes, CUdeviceptr *address)
{
    struct gv_region *region = gv_region_add(segment->base, bytes, kind_of(pool), pool->heap.device, NULL);
    if (region != NULL && region->kind == GV_REGION_POOL_MANAGED && !gv_managed_begin(region, pool->location)) {
        gv_region_remove(region);
        region = NULL;
    }
    if (region == NULL) {
        gv_heap_free(&pool->heap, segment, NULL, 0);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    region->segment = segment;
    region->heap = &pool->heap;
    region->pool = pool;
    pool->allocations++;
    *address = segment->base;
    return CUDA_SUCCESS;
}

static CUresult allocate_once(struct gv_pool *pool, struct gv_stream *stream, size_t bytes, CUdeviceptr *address)
{
    struct gv_segment *segment;
    const struct gv_heap_user user = {
        .gauge = &stream->completed, .is_after = pool->reuse[0] ? is_after : NULL, .data = stream};
    pool->heap.patient = !pool->reuse[1];
    GV_TRY(gv_heap_allocate(&pool->heap, bytes, &user, &segment));
    return give(pool, segment, bytes, address);
}

struct wait_operation {
    struct gv_operation operation;
    struct gv_dependency until;
};

static CUresult run_wait(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    const struct wait_operation *wait = (const struct wait_operation *)operation;
    gv_gauge_wait(wait->until.gauge, wait->until.value);
    return CUDA_SUCCESS;
}

static const struct gv_operation_kind wait_kind = {.node = GV_NO_NODE, .run = run_wait};

/* "Internal dependencies": memory that another stream still uses, after making this stream wait for that. Under the lock. */
static CUresult allocate_pending(struct gv_pool *pool, struct gv_stream *stream, size_t bytes, CUdeviceptr *address)
{
    struct wait_operation *wait = pool->reuse[2] ? malloc(sizeof *wait) : NULL;
    struct gv_segment *segment = wait != NULL ? gv_heap_take_pending(&pool->heap, bytes) : NULL;
    if (segment == NULL) {
        free(wait);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    wait->operation.kind = &wait_kind;
    wait->until = (struct gv_dependency){segment->busy_gauge, segment->busy_until};
    gv_stream_order(stream, segment->busy_gauge, segment->busy_until);
    const CUresult result = gv_stream_submit(stream, &wait->operation);
    if (result != CUDA_SUCCESS) {
        gv_heap_free(&pool->heap, segment, segment->busy_gauge, segment->busy_until);
        return result;
    }
    return give(pool, segment, bytes, address);
}

/* Out of memory is final only when no freed memory of the pools is still in use by a stream. */
static CUresult allocate(struct gv_pool *pool, struct gv_stream *stream, size_t bytes, CUdeviceptr *address)
{
    for (;;) {
        struct gv_gauge *gauge = NULL;
        uint64_t until = 0;
        pthread_mutex_lock(&gv_memory_lock);
        CUresult result = allocate_once(pool, stream, bytes, address);
        if (result == CUDA_ERROR_OUT_OF_MEMORY)
            result = allocate_pending(pool, stream, bytes, address);
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
    struct gv_pool *pool = gv_pool_of(handle);
    if (dptr == NULL || bytesize == 0 || pool == NULL || pool->imported)
        return CUDA_ERROR_INVALID_VALUE;
    return gv_stream_captures(stream) ? gv_capture_allocate(stream, handle, bytesize, dptr)
                                      : allocate(pool, stream, bytesize, dptr);
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
    if (gv_stream_captures(stream))
        return gv_capture_free(stream, dptr);
    if (dptr == 0)
        return CUDA_SUCCESS;
    GV_TRY(gv_stream_number_order(stream));
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    bool plain = false, foreign = false;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(dptr);
    if (region != NULL && region->base == dptr && gv_is_pool_kind(region->kind) && gv_region_freeable(region)) {
        gv_pool_free(region, &stream->completed, atomic_load(&stream->submitted.value));
        result = CUDA_SUCCESS;
    } else if (region != NULL && region->base == dptr && region->kind == GV_REGION_DEVICE) {
        plain = true;
    } else if (region != NULL && region->base == dptr && region->kind == GV_REGION_POOL_IMPORTED) {
        foreign = true;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (foreign)
        return gv_pool_free_imported(dptr, stream);
    return plain ? cuMemFree_v2(dptr)
                 : result; /* memory of cuMemAlloc may be freed here too; ours waits for the device */
}

CUresult gv_pool_check(const CUmemPoolProps *p, CUmemLocation *location)
{
    const bool managed = p->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED;
    *location = p->location;
    if ((p->allocType != CU_MEM_ALLOCATION_TYPE_PINNED && !managed) || p->win32SecurityAttributes != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (managed && (p->handleTypes != CU_MEM_HANDLE_TYPE_NONE || p->maxSize != 0 || p->usage != 0))
        return CUDA_ERROR_INVALID_VALUE;
    switch (p->location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        GV_TRY(gv_check_device(p->location.id));
        break;
    case CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN: /* ours have one domain: the whole device, as documented */
        GV_TRY(gv_check_device(p->location.localized.deviceId));
        if (managed || p->location.localized.localityDomainId != 0)
            return CUDA_ERROR_INVALID_VALUE;
        *location = (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = p->location.localized.deviceId};
        break;
    case CU_MEM_LOCATION_TYPE_HOST:
        if (p->handleTypes != CU_MEM_HANDLE_TYPE_NONE)
            return CUDA_ERROR_INVALID_VALUE;
        location->id = 0;
        break;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
        if (!gv_has_numa_node(p->location.id))
            return CUDA_ERROR_INVALID_VALUE;
        break;
    case CU_MEM_LOCATION_TYPE_NONE:
        if (managed)
            break;
        return CUDA_ERROR_INVALID_VALUE;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (p->handleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR || p->usage != 0)
        return CUDA_ERROR_NOT_SUPPORTED; /* fabric handles; hardware decompression */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    GV_ENTER();
    if (pool == NULL || poolProps == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUmemLocation location;
    GV_TRY(gv_pool_check(poolProps, &location));
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_pool *made = gv_pool_new(poolProps->allocType, location);
    if (made != NULL) {
        made->heap.limit = gv_round_up(poolProps->maxSize, GV_GRANULARITY);
        made->handle_types = poolProps->handleTypes;
        made->heap.shareable = poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    *pool = (CUmemoryPool)made;
    return made == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool handle)
{
    GV_ENTER();
    struct gv_pool *pool = gv_pool_of(handle);
    if (pool == NULL || pool->is_default)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    gv_pool_leave_places(pool); /* they have their default pool again, as documented */
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
    struct gv_pool *pool = gv_pool_of(handle);
    if (pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    gv_heap_trim(&pool->heap, minBytesToKeep);
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}
