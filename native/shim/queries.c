/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about memory: answered from our table and the job's quota, since the driver does not know an address that is
 * swapped out, and would tell every job about the whole device.
 */
#include <string.h>

#include "blocks.h"
#include "gate.h"
#include "graph_memory.h"
#include "ipc.h"
#include "memory.h"
#include "pool.h"
#include "pool_native.h"
#include "real_driver.h"
#include "session.h"

/*
 * free: what this process may still charge, however much of that is on the device now; the others of the job are counted.
 * total: the quota of the job. Either may be NULL, as with the driver; it checks that, the context and the initialisation.
 */
static CUresult memory_info(uint64_t *free, uint64_t *total)
{
    const CUresult result = gv_session_attach_current();
    if (result != CUDA_SUCCESS)
        return result;
    gv_pool_reclaim(0);
    gv_graph_memory_look();
    gv_pool_natives_look();
    pthread_mutex_lock(&gv_memory.lock);
    *free = gv_memory_left();
    pthread_mutex_unlock(&gv_memory.lock);
    *total = gv_load64(&gv_gate.lease->quota_bytes) / gv_memory_granule() * gv_memory_granule();
    return CUDA_SUCCESS;
}

static uint64_t narrow(uint64_t bytes) { return bytes > UINT32_MAX ? UINT32_MAX : bytes; }

#define MEMORY_INFO(symbol, type, as)                                                                                  \
    GV_EXPORT CUresult symbol(type *free, type *total)                                                                 \
    {                                                                                                                  \
        size_t real_free = 0, real_total = 0;                                                                          \
        uint64_t our_free = 0, our_total = 0;                                                                          \
        CUresult result = REAL(cuMemGetInfo_v2)(free == NULL ? NULL : &real_free, total == NULL ? NULL : &real_total); \
        if (result == CUDA_SUCCESS)                                                                                    \
            result = memory_info(&our_free, &our_total);                                                               \
        if (result == CUDA_SUCCESS && free != NULL)                                                                    \
            *free = (type)as(our_free);                                                                                \
        if (result == CUDA_SUCCESS && total != NULL)                                                                   \
            *total = (type)as(our_total);                                                                              \
        return result;                                                                                                 \
    }
MEMORY_INFO(cuMemGetInfo_v2, size_t, )
MEMORY_INFO(cuMemGetInfo, unsigned int, narrow)

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

/*
 * One attribute of an address inside a range of ours, as for memory of cuMemAlloc, which it stands for; but what it could not
 * do is not promised: no legacy handle, no RDMA. Truth values are 32 bits wide, as the driver's.
 */
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
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        *(unsigned long long *)data = range->serial;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = (int)gv_memory.device;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
        *(CUdeviceptr *)data = range->address;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
        *(size_t *)data = range->asked_bytes;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(int *)data = 1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
        *(int *)data = range->sync_memops;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_IS_HW_DECOMPRESS_CAPABLE:
        *(int *)data = 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_LOCALITY_DOMAIN_ORDINAL:
        *(int *)data = -1;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE: /* not of pools, and not what another process allocated */
        *(int *)data = gv_memory.shareable && range->pool == NULL && gv_memory_owns(address);
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
    case CU_POINTER_ATTRIBUTE_P2P_TOKENS: /* they would let a device reach memory that moves */
        return CUDA_ERROR_NOT_SUPPORTED;
    default: /* host pointer, and what comes later: as for memory that has none */
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

/*
 * For an address that is nobody's this call succeeds too, and so it does for attributes that an address lacks: the driver has
 * written zeros then (and -2 for the device), of the width that it knows. So it is asked first, and overruled where we know.
 */
GV_EXPORT CUresult cuPointerGetAttributes(unsigned int numAttributes, CUpointer_attribute *attributes, void **data,
                                          CUdeviceptr ptr)
{
    struct gv_range range;
    CUresult told;
    const int ours = gv_memory_owns(ptr), known = find(ptr, &range), mapped = gv_mapping_range(ptr, NULL, NULL);
    /* Null is an address that no driver knows; one of ours it knows as a reservation, with answers of its own. */
    const CUresult result =
        REAL(cuPointerGetAttributes)(numAttributes, attributes, data, ours || known || mapped ? 0 : ptr);
    if (result != CUDA_SUCCESS || !(known || mapped))
        return result;
    for (unsigned int i = 0; i < numAttributes; i++)
        if (!gv_mapping_answer(data[i], attributes[i], ptr, &told) && known)
            answer(attributes[i], data[i], ptr, &range);
    return CUDA_SUCCESS;
}

/* The one attribute that can be set. Copies and memsets of memory that has it wait (bounds.h): the driver does not see it. */
GV_EXPORT CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute attribute, CUdeviceptr ptr)
{
    if (!gv_memory_owns(ptr)) { /* mapped memory that has it may be registered with another device: it stays */
        const CUresult kept = gv_mappings_keep(ptr, 1);
        return kept != CUDA_SUCCESS ? kept : REAL(cuPointerSetAttribute)(value, attribute, ptr);
    }
    if (value == NULL || attribute != CU_POINTER_ATTRIBUTE_SYNC_MEMOPS)
        return CUDA_ERROR_INVALID_VALUE;
    return gv_memory_set_sync_memops(ptr, *(const unsigned int *)value != 0) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
