/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles of the program's own memory management. Plain memory of the governed device becomes a block of ours; every other kind
 * is asked of the driver, and charged as fixed memory where it takes the device's.
 */
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "arena.h"
#include "blocks.h"
#include "pool.h"
#include "real_driver.h"
#include "session.h"
#include "sharing.h"

/* --- create --------------------------------------------------------------------------------------------------------------- */

/* The device that the memory is of, -1 for host memory. */
static int device_of(const CUmemAllocationProp *prop)
{
    switch (prop->location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return prop->location.id;
    case CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN:
        return prop->location.localized.deviceId;
    default:
        return -1;
    }
}

/* What can be released and made again without anybody noticing. */
static int is_plain(const CUmemAllocationProp *prop)
{
    return prop->type == CU_MEM_ALLOCATION_TYPE_PINNED && prop->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
           (prop->requestedHandleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) == 0 &&
           prop->win32HandleMetaData == NULL && prop->allocFlags.compressionType == CU_MEM_ALLOCATION_COMP_NONE &&
           prop->allocFlags.usage == 0;
}

/* The process comes under control by the device that the memory is of: a thread needs no context to ask for it. */
static CUresult attach(CUdevice device)
{
    const int attached = !(__atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE) & GV_UNATTACHED);
    return attached && device == gv_session.device ? CUDA_SUCCESS : gv_session_attach(device);
}

static CUresult create_native(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                              uint64_t fixed_bytes)
{
    if (fixed_bytes != 0) {
        const CUresult refused = gv_fixed_charge(GV_FIXED_MAPPING, fixed_bytes);
        if (refused != CUDA_SUCCESS)
            return refused;
    }
    CUresult result = fixed_bytes == 0 ? REAL(cuMemCreate)(handle, size, prop, 0)
                                       : GV_FIXED_CALL(fixed_bytes, REAL(cuMemCreate)(handle, size, prop, 0));
    if (result == CUDA_SUCCESS && gv_block_note(*handle, size, GV_FIXED_MAPPING, fixed_bytes) != 0) {
        REAL(cuMemRelease)(*handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (result != CUDA_SUCCESS && fixed_bytes != 0)
        gv_fixed_discharge(GV_FIXED_MAPPING, fixed_bytes);
    return result;
}

GV_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                               unsigned long long flags)
{
    if (handle == NULL || prop == NULL || flags != 0 || size == 0)
        return REAL(cuMemCreate)(handle, size, prop, flags); /* its error */
    size_t grain = 0;
    CUresult result = REAL(cuMemGetAllocationGranularity)(&grain, prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    if (result != CUDA_SUCCESS)
        return result; /* of the properties, as cuMemCreate itself says it */
    if (size % grain != 0)
        return CUDA_ERROR_INVALID_VALUE;
    const int device = device_of(prop);
    if (device < 0)
        return create_native(handle, size, prop, 0);
    result = attach(device);
    if (result != CUDA_SUCCESS)
        return result;
    if (!is_plain(prop) || size % GV_MEMORY_PAGE != 0) /* what is moved is moved in whole pages */
        return create_native(handle, size, prop, size);
    const struct gv_block *block = gv_block_create(size, grain, prop, &result);
    /* Memory that was freed in stream order may only wait for its stream. */
    if (block == NULL && gv_pool_reclaim(1))
        block = gv_block_create(size, grain, prop, &result);
    if (block != NULL)
        *handle = block->name;
    if (result == CUDA_ERROR_OUT_OF_MEMORY)
        gv_memory_refused(size);
    return result;
}

/* --- references ----------------------------------------------------------------------------------------------------------- */

CUresult gv_block_release(CUmemGenericAllocationHandle handle)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = gv_block_settled(handle);
    const int held = block != NULL && block->references != 0;
    const int last = held && (--block->references, gv_block_unused(block));
    pthread_mutex_unlock(&gv_memory.lock);
    if (last)
        gv_block_destroy(block);
    return held ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    if (gv_block_is_ours(handle))
        return gv_block_release(handle);
    const CUresult result = REAL(cuMemRelease)(handle);
    if (result == CUDA_SUCCESS)
        gv_block_release(handle);
    return result;
}

GV_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
    pthread_mutex_lock(&gv_memory.lock);
    const struct gv_mapping *const mapping = handle == NULL ? NULL : gv_mapping_around((uint64_t)addr, 1);
    const int ours = mapping != NULL && !mapping->block->native;
    if (ours) {
        mapping->block->references++;
        *handle = mapping->block->name;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (ours)
        return CUDA_SUCCESS;
    if (gv_memory_owns((CUdeviceptr)addr))
        return CUDA_ERROR_INVALID_VALUE; /* extents are no mappings of the program's */
    CUresult result = REAL(cuMemRetainAllocationHandle)(handle, addr);
    if (result == CUDA_SUCCESS && gv_block_note(*handle, 0, GV_FIXED_MAPPING, 0) != 0) {
        REAL(cuMemRelease)(*handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

GV_EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                          CUmemGenericAllocationHandle handle)
{
    if (!gv_block_is_ours(handle))
        return REAL(cuMemGetAllocationPropertiesFromHandle)(prop, handle);
    pthread_mutex_lock(&gv_memory.lock);
    const struct gv_block *const block = gv_block_find(handle);
    const int known = prop != NULL && block != NULL && block->references != 0;
    if (known)
        *prop = block->properties;
    pthread_mutex_unlock(&gv_memory.lock);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* --- other processes ------------------------------------------------------------------------------------------------------ */

/* All descriptors of a block are copies of its first, which we keep to know it again. */
static CUresult export_block(struct gv_block *block, int *descriptor)
{
    CUmemGenericAllocationHandle physical = 0;
    int first = -1;
    CUresult result = gv_block_keep(block, &physical);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&gv_memory.lock);
    const int known = block->exported;
    pthread_mutex_unlock(&gv_memory.lock);
    if (known < 0) {
        result = REAL(cuMemExportToShareableHandle)(&first, physical, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
        if (result != CUDA_SUCCESS)
            return result;
        fcntl(first, F_SETFD, FD_CLOEXEC);
        pthread_mutex_lock(&gv_memory.lock);
        const int late = block->exported >= 0; /* another thread was faster */
        if (!late)
            block->exported = first;
        pthread_mutex_unlock(&gv_memory.lock);
        if (late)
            close(first);
        else
            gv_sharing_offer_handle(block->serial, first); /* without an answer: the importer is charged too */
    }
    *descriptor = fcntl(block->exported, F_DUPFD, 3);
    return *descriptor >= 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/* From now on somebody outside may hold the memory: it stays where it is. */
GV_EXPORT CUresult cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle,
                                                CUmemAllocationHandleType handleType, unsigned long long flags)
{
    if (!gv_block_is_ours(handle))
        return REAL(cuMemExportToShareableHandle)(shareableHandle, handle, handleType, flags);
    if (shareableHandle == NULL || flags != 0 || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = gv_block_find(handle);
    const int allowed = block != NULL && block->references != 0 &&
                        (block->properties.requestedHandleTypes & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) != 0;
    if (allowed)
        block->references++; /* it must not go while this waits for its turn */
    pthread_mutex_unlock(&gv_memory.lock);
    if (!allowed)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = export_block(block, shareableHandle);
    gv_block_release(handle);
    return result;
}

GV_EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                                  CUmemAllocationHandleType shHandleType)
{
    CUresult result = REAL(cuMemImportFromShareableHandle)(handle, osHandle, shHandleType);
    if (result != CUDA_SUCCESS)
        return result;
    /* What the job has is charged already. How large other memory is shows when it is mapped; then it is charged. */
    const int attached = !(__atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE) & GV_UNATTACHED);
    const int own = attached && shHandleType == CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR &&
                    gv_sharing_is_ours((int)(intptr_t)osHandle);
    if (gv_block_note(*handle, 0, own ? GV_FIXED_MAPPING : GV_FIXED_IMPORTED, 0) != 0) {
        REAL(cuMemRelease)(*handle);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}
