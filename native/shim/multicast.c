/* SPDX-License-Identifier: Apache-2.0
 *
 * Multicast objects are the driver's; what is bound to one must stay where it is. Blocks of the program's own do so from now
 * on. Plain governed memory lies side by side with other allocations and cannot be bound by its address.
 */
#include "blocks.h"
#include "real_driver.h"

/* The driver's handle of a block that stays; the block is held until let_go. Handles that are not ours are the driver's. */
static CUresult hold(CUmemGenericAllocationHandle handle, CUmemGenericAllocationHandle *physical)
{
    *physical = handle;
    if (!gv_block_is_ours(handle))
        return CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = gv_block_find(handle);
    const int known = block != NULL && block->references != 0;
    if (known)
        block->references++; /* it must not go while this waits at the gate */
    pthread_mutex_unlock(&gv_memory.lock);
    if (!known)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = gv_block_keep(block, physical);
    if (result != CUDA_SUCCESS)
        cuMemRelease(handle);
    return result;
}

static void let_go(CUmemGenericAllocationHandle handle)
{
    if (gv_block_is_ours(handle))
        cuMemRelease(handle);
}

#define BIND_MEMORY(symbol, parameters, arguments)                                                                     \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        CUmemGenericAllocationHandle physical;                                                                         \
        CUresult result = hold(memHandle, &physical);                                                                  \
        if (result != CUDA_SUCCESS)                                                                                    \
            return result;                                                                                             \
        result = REAL(symbol) arguments;                                                                               \
        let_go(memHandle);                                                                                             \
        return result;                                                                                                 \
    }
BIND_MEMORY(cuMulticastBindMem,
            (CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUmemGenericAllocationHandle memHandle,
             size_t memOffset, size_t size, unsigned long long flags),
            (mcHandle, mcOffset, physical, memOffset, size, flags))
BIND_MEMORY(cuMulticastBindMem_v2,
            (CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset,
             CUmemGenericAllocationHandle memHandle, size_t memOffset, size_t size, unsigned long long flags),
            (mcHandle, dev, mcOffset, physical, memOffset, size, flags))

/* What lies at the address is held by the handle that the program could have asked for. */
#define BIND_ADDRESS(symbol, parameters, arguments)                                                                    \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        CUmemGenericAllocationHandle handle, physical;                                                                 \
        if (gv_memory_owns(memptr))                                                                                    \
            return CUDA_ERROR_NOT_SUPPORTED;                                                                           \
        if (cuMemRetainAllocationHandle(&handle, (void *)memptr) != CUDA_SUCCESS)                                      \
            return REAL(symbol) arguments; /* the error is the driver's */                                             \
        CUresult result = hold(handle, &physical);                                                                     \
        if (result == CUDA_SUCCESS) {                                                                                  \
            result = REAL(symbol) arguments;                                                                           \
            let_go(handle);                                                                                            \
        }                                                                                                              \
        cuMemRelease(handle);                                                                                          \
        return result;                                                                                                 \
    }
BIND_ADDRESS(cuMulticastBindAddr,
             (CUmemGenericAllocationHandle mcHandle, size_t mcOffset, CUdeviceptr memptr, size_t size,
              unsigned long long flags),
             (mcHandle, mcOffset, memptr, size, flags))
BIND_ADDRESS(cuMulticastBindAddr_v2,
             (CUmemGenericAllocationHandle mcHandle, CUdevice dev, size_t mcOffset, CUdeviceptr memptr, size_t size,
              unsigned long long flags),
             (mcHandle, dev, mcOffset, memptr, size, flags))
