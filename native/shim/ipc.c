/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory that others get at: cuIpcGetMemHandle (another process of the job), dma-buf (another device).
 */
#include "ipc.h"

#include <string.h>
#include <unistd.h>

#include "blocks.h"
#include "gate.h"
#include "ipc_ticket.h"
#include "real_driver.h"
#include "sharing.h"

/* The extents of a range stay in device memory from now on, until nothing lies in them any more. */
static void keep(uint64_t first, uint64_t count)
{
    uint64_t fresh = 0;
    const uint64_t bytes = gv_piece_bytes(&gv_memory.extents[first]); /* of each: a range lies in one region */
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = first; i < first + count; i++) {
        fresh += !gv_memory.extents[i].kept;
        gv_memory.extents[i].kept = 1;
    }
    gv_memory.kept_bytes += fresh * bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    while (fresh-- > 0)
        gv_fixed_count(GV_FIXED_EXPORTED, bytes);
}

/* Descriptors of extents that are resident for certain: the caller is between gv_gate_enter and gv_gate_leave. */
static CUresult export_extents(uint64_t first, uint32_t count, int *descriptors)
{
    CUresult result = CUDA_SUCCESS;
    uint32_t done = 0;
    for (; done < count && result == CUDA_SUCCESS; done++) {
        pthread_mutex_lock(&gv_memory.lock);
        const struct gv_piece extent = gv_memory.extents[first + done];
        pthread_mutex_unlock(&gv_memory.lock);
        descriptors[done] = -1;
        result = !extent.mapped ? CUDA_ERROR_ILLEGAL_STATE /* the gate lets all through: the context is lost */
                                : REAL(cuMemExportToShareableHandle)(&descriptors[done], extent.handle,
                                                                     CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    }
    while (result != CUDA_SUCCESS && done-- > 0)
        if (descriptors[done] >= 0)
            close(descriptors[done]);
    return result;
}

static CUresult offer(uint64_t first, uint32_t count)
{
    int descriptors[GV_SHARE_MAX];
    const struct gv_submission submission = gv_gate_enter_unused();
    CUresult result = submission.refused;
    if (result == CUDA_SUCCESS) {
        result = export_extents(first, count, descriptors);
        gv_gate_leave(&submission);
    }
    if (result != CUDA_SUCCESS)
        return result;
    result = gv_sharing_offer(first, count, descriptors);
    for (uint32_t i = 0; i < count; i++)
        close(descriptors[i]);
    return result;
}

GV_EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *pHandle, CUdeviceptr dptr)
{
    struct gv_range range;
    if (!gv_memory_owns(dptr)) /* what the program mapped or opened itself cannot be handed on, as with the driver */
        return gv_mapping_range(dptr, NULL, NULL) || gv_import_find(dptr, &range)
                   ? CUDA_ERROR_INVALID_VALUE
                   : REAL(cuIpcGetMemHandle)(pHandle, dptr);
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&context);
    if (result != CUDA_SUCCESS || context == NULL)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_CONTEXT;
    if (pHandle == NULL || !gv_memory_find(dptr, 1, &range) || range.pool != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!gv_memory.shareable)
        return CUDA_ERROR_NOT_SUPPORTED;
    const uint64_t first = gv_extent_at(range.address);
    const struct gv_ipc_ticket ticket = {.magic = GV_IPC_MAGIC,
                                         .pid = (uint32_t)getpid(),
                                         .nonce = gv_sharing_nonce(),
                                         .first = first,
                                         .count = gv_extent_at(range.address + range.bytes - 1) - first + 1,
                                         .extent_bytes = gv_piece_bytes(&gv_memory.extents[first]),
                                         .offset = range.address - gv_piece_address(&gv_memory.extents[first]),
                                         .bytes = range.asked_bytes,
                                         .serial = range.serial};
    keep(first, ticket.count);
    for (uint64_t done = 0; done < ticket.count && result == CUDA_SUCCESS; done += GV_SHARE_MAX) {
        const uint64_t left = ticket.count - done;
        result = offer(first + done, (uint32_t)(left < GV_SHARE_MAX ? left : GV_SHARE_MAX));
    }
    if (result == CUDA_SUCCESS) {
        memset(pHandle, 0, sizeof *pHandle);
        memcpy(pHandle, &ticket, sizeof ticket);
    }
    return result;
}

/* --- dma-buf -------------------------------------------------------------------------------------------------------------- */

GV_EXPORT CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr dptr, size_t size,
                                                 CUmemRangeHandleType handleType, unsigned long long flags)
{
    struct gv_range range;
    int supported = 0;
    if (gv_memory.bytes == 0 ||
        REAL(cuDeviceGetAttribute)(&supported, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, gv_memory.device) !=
            CUDA_SUCCESS ||
        !supported)
        return REAL(cuMemGetHandleForAddressRange)(handle, dptr, size, handleType,
                                                   flags); /* nothing of ours, or its error */
    if (handle == NULL || size == 0 || size > UINT64_MAX - dptr)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_SUCCESS;
    if (gv_memory_owns(dptr)) {
        if (!gv_memory_find(dptr, 1, &range) || size > range.address + range.bytes - dptr)
            return CUDA_ERROR_INVALID_VALUE;
        const uint64_t first = gv_extent_at(dptr);
        keep(first, gv_extent_at(dptr + size - 1) - first + 1);
    } else {
        result = gv_mappings_keep(dptr, size);
    }
    const struct gv_submission submission = gv_gate_enter_unused(); /* all of it is in its place, and stays there */
    if (result == CUDA_SUCCESS)
        result = submission.refused;
    if (result == CUDA_SUCCESS)
        result = REAL(cuMemGetHandleForAddressRange)(handle, dptr, size, handleType, flags);
    gv_gate_leave(&submission);
    return result;
}
