/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemAlloc and its family: an address at once, memory when the job next runs. What is not ours goes to the driver unchanged.
 */
#include "capture.h"
#include "contexts.h"
#include "fixed.h"
#include "gate.h"
#include "graph_memory.h"
#include "memory.h"
#include "pool.h"
#include "pool_native.h"
#include "real_driver.h"
#include "session.h"

enum { PITCH = 512 };

static CUresult allocate(CUdeviceptr *dptr, uint64_t bytes)
{
    if (dptr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS && context == NULL)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result == CUDA_SUCCESS)
        result = gv_session_attach_current();
    if (result == CUDA_SUCCESS)
        result = gv_gate_lost_context();
    if (result == CUDA_SUCCESS)
        result = gv_contexts_check(context);
    if (result == CUDA_SUCCESS)
        result = gv_capture_permits_unsafe();
    if (result != CUDA_SUCCESS)
        return result;
    result = gv_memory_take(bytes, context, NULL, dptr);
    /* Memory that was freed in stream order may only wait for its stream. */
    if (result == CUDA_ERROR_OUT_OF_MEMORY && gv_pool_reclaim(1))
        result = gv_memory_take(bytes, context, NULL, dptr);
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        gv_memory_refused(bytes);
    return result;
}

GV_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize) { return allocate(dptr, bytesize); }

/* The 32-bit ABI of CUDA 2: our addresses do not fit into it. */
GV_EXPORT CUresult cuMemAlloc(CUdeviceptr_v1 *dptr, unsigned int bytesize)
{
    (void)dptr;
    (void)bytesize;
    return CUDA_ERROR_NOT_SUPPORTED;
}

GV_EXPORT CUresult cuMemAllocPitch(CUdeviceptr_v1 *dptr, unsigned int *pPitch, unsigned int WidthInBytes,
                                   unsigned int Height, unsigned int ElementSizeBytes)
{
    (void)dptr, (void)pPitch, (void)WidthInBytes, (void)Height, (void)ElementSizeBytes;
    return CUDA_ERROR_NOT_SUPPORTED;
}

GV_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height,
                                      unsigned int ElementSizeBytes)
{
    if (pPitch == NULL || WidthInBytes == 0 || Height == 0 || WidthInBytes > UINT64_MAX / 2 ||
        (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16))
        return CUDA_ERROR_INVALID_VALUE;
    const size_t pitch = (WidthInBytes + PITCH - 1) / PITCH * PITCH;
    if (pitch > UINT64_MAX / Height)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = allocate(dptr, pitch * Height);
    if (result == CUDA_SUCCESS)
        *pPitch = pitch;
    return result;
}

/* Managed memory, a graph's, or nothing that we know: the driver's word counts. */
static CUresult free_of_the_driver(CUdeviceptr dptr)
{
    return GV_FIXED_DESTROY(GV_FIXED_MANAGED, dptr, REAL(cuMemFree_v2)(dptr));
}

GV_EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    if (!gv_memory_owns(dptr)) {
        const CUresult freed = free_of_the_driver(dptr);
        gv_graph_memory_look();
        gv_pool_natives_look();
        return freed;
    }
    const CUresult permitted = gv_capture_permits_unsafe();
    if (permitted != CUDA_SUCCESS)
        return permitted;
    struct gv_range *const range = gv_memory_claim(dptr);
    if (range == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    /* As the driver's own: nothing that was given to the GPU uses the memory once this returns. A context with a capture
     * under way must not be synchronised: there the memory waits for the end of the capture. */
    CUresult result = gv_contexts_finish(range->context);
    if (result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) {
        if (gv_pool_free_after_captures(range) == 0)
            return CUDA_SUCCESS;
        gv_memory_unclaim(range);
        return CUDA_ERROR_OUT_OF_MEMORY; /* of the host */
    }
    if (result == CUDA_ERROR_INVALID_CONTEXT || result == CUDA_ERROR_NOT_INITIALIZED) {
        gv_memory_unclaim(range); /* no context: as with the driver, nothing happened */
        return result;
    }
    gv_pool_given(range);
    gv_memory_give(range);
    return result;
}

GV_EXPORT CUresult cuMemFree(CUdeviceptr_v1 dptr) { return cuMemFree_v2((CUdeviceptr)dptr); }
