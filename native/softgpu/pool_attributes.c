/* SPDX-License-Identifier: Apache-2.0
 *
 * Attributes of pools, and which devices reach their memory.
 */
#include "pool.h"

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
    struct gv_pool *pool = gv_pool_of(handle);
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
        *(CUmemAllocationType *)value = pool->type;
        break;
    case CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES:
        *(CUmemAllocationHandleType *)value = pool->handle_types;
        break;
    case CU_MEMPOOL_ATTR_LOCATION_ID:
        *(int *)value = pool->location.id;
        break;
    case CU_MEMPOOL_ATTR_LOCATION_TYPE:
        *(CUmemLocationType *)value = pool->location.type;
        break;
    case CU_MEMPOOL_ATTR_LOCALITY_DOMAIN_ID:
        *(int *)value = -1; /* a device has one, which is the whole */
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
    struct gv_pool *pool = gv_pool_of(handle);
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
        if (pool->imported) {
            result = CUDA_ERROR_INVALID_VALUE;
            break;
        }
        pool->threshold = *(const cuuint64_t *)value;
        gv_pools_want_trim();
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

static bool is_host(const CUmemLocation *location)
{
    return location->type == CU_MEM_LOCATION_TYPE_HOST || location->type == CU_MEM_LOCATION_TYPE_HOST_NUMA ||
           location->type == CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT;
}

GV_EXPORT CUresult cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool memPool, CUmemLocation *location)
{
    GV_ENTER();
    const struct gv_pool *pool = gv_pool_of(memPool);
    if (flags == NULL || location == NULL || pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (is_host(location)) {
        *flags = pool->heap.device == GV_HOST ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE : CU_MEM_ACCESS_FLAGS_PROT_NONE;
        return CUDA_SUCCESS;
    }
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_check_device(location->id));
    *flags = (CUmemAccess_flags)pool->access[location->id];
    return CUDA_SUCCESS;
}

/* What is allowed is kept and told. Nothing is forbidden to kernels by it: all devices of a process share its addresses. */
GV_EXPORT CUresult cuMemPoolSetAccess(CUmemoryPool handle, const CUmemAccessDesc *map, size_t count)
{
    GV_ENTER();
    struct gv_pool *pool = gv_pool_of(handle);
    if (pool == NULL || (map == NULL && count > 0) || pool->type == CU_MEM_ALLOCATION_TYPE_MANAGED)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        if (map[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            (map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE))
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_check_device(map[i].location.id));
        if (map[i].location.id == pool->heap.device && map[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            return CUDA_ERROR_INVALID_DEVICE; /* the own device's access cannot be taken away */
    }
    pthread_mutex_lock(&gv_memory_lock);
    for (size_t i = 0; i < count; i++)
        pool->access[map[i].location.id] = (uint8_t)map[i].flags;
    pthread_mutex_unlock(&gv_memory_lock);
    return CUDA_SUCCESS;
}
