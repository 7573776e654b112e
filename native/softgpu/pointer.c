/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about pointers.
 */
#include "memory.h"

#include <string.h>

/* What is known about an address, copied under the lock. */
struct answer {
    struct gv_region region;
    uint64_t base, bytes; /* of the allocation: the mapping inside a reservation */
    int device;
    unsigned access, handle_types;
    bool mapped; /* false: a reserved address without memory */
};

static bool look_up(CUdeviceptr ptr, struct answer *answer)
{
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(ptr);
    bool known = region != NULL && gv_is_public_kind(region->kind);
    if (known) {
        answer->region = *region;
        answer->base = region->base;
        answer->bytes = region->bytes;
        answer->device = region->device;
        answer->access = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        answer->handle_types = 0;
        answer->mapped =
            region->kind != GV_REGION_RESERVED ||
            gv_mapping_at(ptr, &answer->base, &answer->bytes, &answer->device, &answer->access, &answer->handle_types);
        if (gv_is_pool_kind(region->kind))
            answer->handle_types = gv_pool_handle_types(region->pool);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return known;
}

static struct gv_context *context_of(const struct answer *answer)
{
    return answer->region.context != NULL ? answer->region.context : gv_primary_context(answer->device);
}

static CUresult get(const struct answer *answer, CUpointer_attribute attribute, CUdeviceptr ptr, void *data)
{
    const enum gv_region_kind kind = answer->region.kind;
    const bool host =
        gv_is_host_kind(kind) || (kind == GV_REGION_RESERVED && answer->mapped && answer->device == GV_HOST);
    if (!answer->mapped && attribute != CU_POINTER_ATTRIBUTE_MAPPED &&
        attribute != CU_POINTER_ATTRIBUTE_RANGE_START_ADDR && attribute != CU_POINTER_ATTRIBUTE_RANGE_SIZE)
        return CUDA_ERROR_INVALID_VALUE;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT: {
        if (kind == GV_REGION_RESERVED)
            return CUDA_ERROR_INVALID_VALUE; /* handles belong to a device, not to a context */
        *(CUcontext *)data =
            answer->region.context == NULL && answer->device == GV_HOST ? NULL : gv_context_handle(context_of(answer));
        return CUDA_SUCCESS;
    }
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(CUmemorytype *)data = host ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        if (gv_thread_context() == NULL)
            return CUDA_ERROR_INVALID_CONTEXT; /* documented: as kernels of the current context reach it */
        *(CUdeviceptr *)data = ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        if (!host && !gv_is_managed_kind(kind))
            return CUDA_ERROR_INVALID_VALUE;
        *(void **)data = (void *)ptr;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        *(unsigned *)data = answer->region.sync_memops;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = answer->region.id;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = gv_is_managed_kind(kind);
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = answer->device;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        *(int *)data = kind == GV_REGION_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = answer->region.base; /* of a mapping: the reservation around it, as documented */
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = answer->region.bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(int *)data = answer->mapped;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *(unsigned long long *)data = answer->handle_types;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *(int *)data = (int)answer->access;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(CUmemoryPool *)data = answer->region.pool;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
        *(size_t *)data = answer->bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
        *(CUdeviceptr *)data = answer->base;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        *(unsigned long long *)data = answer->region.id;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL:
        *(int *)data = -1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
        return CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

/* No context needed for the question itself; a pointer that CUDA does not know is INVALID_VALUE. */
GV_EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    GV_ENTER();
    struct answer answer;
    if (data == NULL || !look_up(ptr, &answer))
        return CUDA_ERROR_INVALID_VALUE;
    return get(&answer, attribute, ptr, data);
}

/* Bytes that an attribute's answer has; what does not apply is answered with zeros. */
static size_t width_of(CUpointer_attribute attribute)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
    case CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL:
        return 4;
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS:
        return 16;
    default:
        return 8;
    }
}

/* Documented: an unknown pointer is no error here; every answer is then 0 (DEVICE_ORDINAL: -2). */
GV_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
                                          CUdeviceptr ptr)
{
    GV_ENTER();
    struct answer answer;
    if (attributes == NULL || data == NULL || numAttributes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    const bool known = look_up(ptr, &answer);
    for (unsigned i = 0; i < numAttributes; i++) {
        if ((unsigned)attributes[i] < CU_POINTER_ATTRIBUTE_CONTEXT ||
            (unsigned)attributes[i] > CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL || data[i] == NULL)
            return CUDA_ERROR_INVALID_VALUE;
        if (known && get(&answer, attributes[i], ptr, data[i]) == CUDA_SUCCESS)
            continue;
        memset(data[i], 0, width_of(attributes[i]));
        if (attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)
            *(int *)data[i] = -2;
    }
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    GV_ENTER();
    if (value == NULL || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(ptr);
    if (region != NULL)
        region->sync_memops = *(const unsigned *)value != 0;
    pthread_mutex_unlock(&gv_memory_lock);
    return region != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
