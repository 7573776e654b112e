/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about memory: answered from our table and the job's quota, since the driver does not know an address that is
 * swapped out, and would tell every job about the whole device.
 */
#include <string.h>

#include "blocks.h"
#include "gate.h"
#include "ipc.h"
#include "memory.h"
#include "pool.h"
#include "real_driver.h"
#include "session.h"

GV_EXPORT CUresult cuMemGetInfo_v2(size_t *free, size_t *total)
{
    size_t device_free = 0, device_total = 0;
    CUresult result = REAL(cuMemGetInfo_v2)(&device_free, &device_total); /* checks context and initialisation */
    if (result == CUDA_SUCCESS)
        result = gv_session_attach_current();
    if (result != CUDA_SUCCESS)
        return result;
    gv_pool_reclaim(0);
    pthread_mutex_lock(&gv_memory.lock);
    const uint64_t charged = gv_memory_charged();
    pthread_mutex_unlock(&gv_memory.lock);
    const uint64_t quota = gv_memory_quota();
    if (free != NULL)
        *free = quota > charged ? quota - charged : 0;
    if (total != NULL)
        *total = quota;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemGetInfo(unsigned int *free, unsigned int *total)
{
    size_t wide_free = 0, wide_total = 0;
    const CUresult result = cuMemGetInfo_v2(&wide_free, &wide_total);
    if (free != NULL)
        *free = wide_free > UINT32_MAX ? UINT32_MAX : (unsigned int)wide_free;
    if (total != NULL)
        *total = wide_total > UINT32_MAX ? UINT32_MAX : (unsigned int)wide_total;
    return result;
}

/* The allocation around an address: of this process, or of another one of the job that is open here. */
static int find(CUdeviceptr address, struct gv_range *range)
{
    return gv_memory_owns(address) ? gv_memory_find(address, 1, range) : gv_import_find(address, range);
}

GV_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
    struct gv_range range;
    if (!gv_memory_owns(dptr) && !gv_import_find(dptr, &range))
        return gv_mapping_range(dptr, pbase, psize) ? CUDA_SUCCESS : REAL(cuMemGetAddressRange_v2)(pbase, psize, dptr);
    if (!find(dptr, &range))
        return CUDA_ERROR_NOT_FOUND;
    if (pbase != NULL)
        *pbase = range.address;
    if (psize != NULL)
        *psize = range.asked_bytes;
    return CUDA_SUCCESS;
}

/* One attribute of an address inside a range of ours. */
static CUresult answer(CUpointer_attribute attribute, void *data, CUdeviceptr address, const struct gv_range *range)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        memcpy(data, &range->context, sizeof range->context);
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned int *)data = CU_MEMORYTYPE_DEVICE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = range->serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = (int)gv_memory.device;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = range->address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = range->asked_bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned char *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
        *(unsigned char *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: /* not of pools, and not what another process allocated */
        *(unsigned char *)data = gv_memory.shareable && range->pool == NULL && gv_memory_owns(address);
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES: /* our extents have handles, its memory has none for the program */
        *(unsigned long long *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *(unsigned int *)data = CU_POINTER_ATTRIBUTE_ACCESS_FLAG_READWRITE;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        memcpy(data, &range->pool, sizeof range->pool);
        return CUDA_SUCCESS;
    default: /* host pointer, P2P tokens and what comes later: as for memory that has none */
        return CUDA_ERROR_INVALID_VALUE;
    }
}

GV_EXPORT CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    struct gv_range range;
    CUresult told;
    if (!gv_memory_owns(ptr) && !gv_import_find(ptr, &range))
        return gv_mapping_answer(data, attribute, ptr, &told) ? told
                                                              : REAL(cuPointerGetAttribute)(data, attribute, ptr);
    if (data == NULL || !find(ptr, &range))
        return CUDA_ERROR_INVALID_VALUE;
    return answer(attribute, data, ptr, &range);
}

GV_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
                                          CUdeviceptr ptr)
{
    struct gv_range range;
    if (!gv_memory_owns(ptr) && gv_mapping_range(ptr, NULL, NULL))
        return gv_mapping_answers(numAttributes, attributes, data, ptr);
    if (!gv_memory_owns(ptr) && !gv_import_find(ptr, &range))
        return REAL(cuPointerGetAttributes)(numAttributes, attributes, data, ptr);
    if (numAttributes == 0 || attributes == NULL || data == NULL || !find(ptr, &range))
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned int i = 0; i < numAttributes; i++)
        if (answer(attributes[i], data[i], ptr, &range) != CUDA_SUCCESS &&
            attributes[i] == CU_POINTER_ATTRIBUTE_HOST_POINTER)
            *(void **)data[i] = NULL; /* this call does not fail for attributes that an address lacks */
    return CUDA_SUCCESS;
}
