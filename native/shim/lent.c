/* SPDX-License-Identifier: Apache-2.0
 *
 * Blocks that the driver itself, or another device, holds on to from now on: multicast objects, RDMA. They are kept, and the
 * driver is given its own handle of them.
 */
#include "blocks.h"
#include "real_driver.h"

/* The driver's handle in place of ours, kept from now on. Handles of the driver stay as they are. */
static CUresult lend(CUmemGenericAllocationHandle *handle)
{
    const CUmemGenericAllocationHandle name = *handle;
    if (!gv_block_is_ours(name))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = gv_block_find(name);
    const int known = block != NULL && block->references != 0;
    if (known)
        block->references++; /* it must not go while this waits for its turn */
    pthread_mutex_unlock(&gv_memory.lock);
    if (!known)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = gv_block_keep(block, handle);
    gv_block_release(name);
    return result;
}

CUresult gv_mappings_keep(CUdeviceptr address, uint64_t bytes)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t at = address; at < address + bytes && result == CUDA_SUCCESS;) {
        pthread_mutex_lock(&gv_memory.lock);
        const struct gv_mapping *const mapping = gv_mapping_around(at, 1);
        CUmemGenericAllocationHandle handle = mapping == NULL ? 0 : mapping->block->name;
        const int released = mapping != NULL && mapping->block->references == 0;
        if (released)
            mapping->block->references++; /* it lives by its mappings: for us it has a handle meanwhile */
        at = mapping == NULL ? address + bytes : mapping->base + mapping->bytes;
        pthread_mutex_unlock(&gv_memory.lock);
        const CUmemGenericAllocationHandle name = handle;
        result = lend(&handle);
        if (released)
            gv_block_release(name);
    }
    return result;
}

GV_EXPORT CUresult cuMulticastBindMem(CUmemGenericAllocationHandle mcHandle, size_t mcOffset,
                                      CUmemGenericAllocationHandle memHandle, size_t memOffset, size_t size,
                                      unsigned long long flags)
{
    const CUresult result = lend(&memHandle);
    return result != CUDA_SUCCESS ? result
                                  : REAL(cuMulticastBindMem)(mcHandle, mcOffset, memHandle, memOffset, size, flags);
}

GV_EXPORT CUresult cuMulticastBindMem_v2(CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset,
                                         CUmemGenericAllocationHandle memHandle, size_t memOffset, size_t size,
                                         unsigned long long flags)
{
    const CUresult result = lend(&memHandle);
    return result != CUDA_SUCCESS
               ? result
               : REAL(cuMulticastBindMem_v2)(mcHandle, dev, mcOffset, memHandle, memOffset, size, flags);
}

/* Plain governed memory lies side by side with other allocations: what moves cannot be bound by its address. */
GV_EXPORT CUresult cuMulticastBindAddr(CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUdeviceptr memptr,
                                       size_t size, unsigned long long flags)
{
    if (gv_memory_owns(memptr))
        return CUDA_ERROR_NOT_SUPPORTED;
    const CUresult kept = gv_mappings_keep(memptr, size);
    return kept != CUDA_SUCCESS ? kept : REAL(cuMulticastBindAddr)(mcHandle, mcOffset, memptr, size, flags);
}

GV_EXPORT CUresult cuMulticastBindAddr_v2(CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset,
                                          CUdeviceptr memptr, size_t size, unsigned long long flags)
{
    if (gv_memory_owns(memptr))
        return CUDA_ERROR_NOT_SUPPORTED;
    const CUresult kept = gv_mappings_keep(memptr, size);
    return kept != CUDA_SUCCESS ? kept : REAL(cuMulticastBindAddr_v2)(mcHandle, dev, mcOffset, memptr, size, flags);
}
