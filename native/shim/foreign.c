/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory that belongs to somebody else as well: managed memory (the driver moves it), memory of other APIs, multicast
 * objects, and what a context holds for its kernels. All of it is charged, none of it is moved.
 */
#include "blocks.h"
#include "fixed.h"
#include "gate.h"
#include "memory.h"
#include "real_driver.h"
#include "session.h"

GV_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    if (dptr == NULL || bytesize == 0 || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return REAL(cuMemAllocManaged)(dptr, bytesize, flags);
    return GV_FIXED_CREATE(GV_FIXED_MANAGED, bytesize, REAL(cuMemAllocManaged)(dptr, bytesize, flags), *dptr);
}

/* --- memory of other APIs: charged while it is imported; buffers and arrays mapped from it are the same bytes -------------- */

GV_EXPORT CUresult cuImportExternalMemory(CUexternalMemory *extMem_out,
                                          const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *memHandleDesc)
{
    if (extMem_out == NULL || memHandleDesc == NULL || memHandleDesc->size == 0)
        return REAL(cuImportExternalMemory)(extMem_out, memHandleDesc);
    return GV_FIXED_CREATE(GV_FIXED_EXTERNAL, memHandleDesc->size,
                           REAL(cuImportExternalMemory)(extMem_out, memHandleDesc), *extMem_out);
}

GV_EXPORT CUresult cuDestroyExternalMemory(CUexternalMemory extMem)
{
    return GV_FIXED_DESTROY(GV_FIXED_EXTERNAL, extMem, REAL(cuDestroyExternalMemory)(extMem));
}

/* --- multicast: what is bound must stay, so memory that moves cannot be bound by its address ------------------------------- */

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

/* --- limits: what the heap and the printf buffer of a context take beyond what it came with -------------------------------- */

GV_EXPORT CUresult cuCtxSetLimit(CUlimit limit, size_t value)
{
    CUcontext context = NULL;
    size_t before = 0;
    if ((limit != CU_LIMIT_MALLOC_HEAP_SIZE && limit != CU_LIMIT_PRINTF_FIFO_SIZE) ||
        REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS || context == NULL ||
        REAL(cuCtxGetLimit)(&before, limit) != CUDA_SUCCESS)
        return REAL(cuCtxSetLimit)(limit, value);
    const uint64_t key = (uint64_t)context + (limit == CU_LIMIT_PRINTF_FIFO_SIZE); /* handles are at least even */
    struct gv_note old = {.bytes = 0};
    const int known = gv_fixed_take(GV_FIXED_LIMITS, key, &old);
    const uint64_t start = before > old.bytes ? before - old.bytes : 0;
    const uint64_t beyond = value > start ? value - start : 0;
    CUresult result = beyond > 0 ? gv_fixed_charge(GV_FIXED_LIMITS, beyond) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS) {
        result = GV_FIXED_CALL(beyond, REAL(cuCtxSetLimit)(limit, value));
        if (result != CUDA_SUCCESS && beyond > 0)
            gv_fixed_discharge(GV_FIXED_LIMITS, beyond);
        else if (beyond > 0)
            gv_fixed_remember_in(GV_FIXED_LIMITS, key, beyond, context);
    }
    if (known)
        gv_fixed_taken(&old, result == CUDA_SUCCESS);
    return result;
}
