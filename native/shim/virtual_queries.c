/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about addresses that the program mapped itself: the driver does not know those that are swapped out.
 */
#include "blocks.h"
#include "real_driver.h"

/* All that answers need, copied under the lock. */
struct told {
    uint64_t reservation, reservation_bytes, base, bytes;
    uint64_t mapping_serial, block_serial;
    CUmemAllocationProp properties;
    unsigned access;
    int kept; /* and in device memory */
};

static int look_up(CUdeviceptr address, struct told *told)
{
    pthread_mutex_lock(&gv_memory.lock);
    const struct gv_mapping *const mapping = gv_mapping_around(address, 1);
    const int ours = mapping != NULL && !mapping->block->native;
    if (ours) {
        *told = (struct told){.base = mapping->base,
                              .bytes = mapping->bytes,
                              .mapping_serial = mapping->serial,
                              .block_serial = mapping->block->serial,
                              .kept = mapping->block->piece.kept && mapping->block->piece.mapped,
                              .properties = mapping->block->properties,
                              .access = mapping->access[gv_memory.device]};
        gv_reservation_around(address, &told->reservation, &told->reservation_bytes);
    }
    pthread_mutex_unlock(&gv_memory.lock);
    return ours;
}

static CUresult answer(const struct told *told, void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = told->mapping_serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        *(unsigned long long *)data = told->block_serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = told->properties.location.id;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = told->reservation;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = told->reservation_bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
        *(CUdeviceptr *)data = told->base;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
        *(size_t *)data = told->bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(int *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS: /* only of what is kept: setting it has kept it */
        *(int *)data = 0;
        return told->kept ? REAL(cuPointerGetAttribute)(data, attribute, address) : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(int *)data = told->properties.allocFlags.gpuDirectRDMACapable;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
        *(unsigned long long *)data = told->properties.requestedHandleTypes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *(unsigned int *)data = told->access;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *(void **)data = NULL;
        return CUDA_SUCCESS;
    default: /* handles belong to a device, not to a context; they have no host pointer */
        return CUDA_ERROR_INVALID_VALUE;
    }
}

int gv_mapping_answer(void *data, CUpointer_attribute attribute, CUdeviceptr address, CUresult *result)
{
    struct told told;
    if (!look_up(address, &told))
        return 0;
    *result = data == NULL ? CUDA_ERROR_INVALID_VALUE : answer(&told, data, attribute, address);
    return 1;
}

int gv_mapping_range(CUdeviceptr address, CUdeviceptr *base, size_t *bytes)
{
    struct told told;
    if (!look_up(address, &told))
        return 0;
    if (base != NULL)
        *base = told.base;
    if (bytes != NULL)
        *bytes = told.bytes;
    return 1;
}
