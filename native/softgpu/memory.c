/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemAlloc and its family: one heap per device, freed memory goes back to the device at once.
 */
#include "memory.h"
#include "array.h"
#include "capture.h"
#include "stream.h"

#include <stdlib.h>

static struct gv_heap heaps[GV_BOARD_DEVICES];

static struct gv_heap *heap_of(int device)
{
    heaps[device].device = device;
    heaps[device].shareable = true; /* cuIpcGetMemHandle */
    return &heaps[device];
}

CUresult gv_device_allocate_for(struct gv_context *context, uint64_t bytes, enum gv_region_kind kind, void *owner,
                                CUdeviceptr *address)
{
    struct gv_segment *segment = NULL;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_heap *heap = heap_of(context->device);
    CUresult result = gv_heap_allocate(heap, bytes, NULL, &segment);
    if (result == CUDA_SUCCESS) {
        struct gv_region *region = gv_region_add(segment->base, bytes, kind, context->device, context);
        if (region == NULL) {
            gv_heap_free(heap, segment, NULL, 0);
            result = CUDA_ERROR_OUT_OF_MEMORY;
        } else {
            region->segment = segment;
            region->heap = heap;
            region->owner = owner;
            *address = segment->base;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

CUresult gv_device_allocate(struct gv_context *context, uint64_t bytes, enum gv_region_kind kind, CUdeviceptr *address)
{
    return gv_device_allocate_for(context, bytes, kind, NULL, address);
}

static void free_region(struct gv_region *region)
{
    gv_heap_free(region->heap, region->segment, NULL, 0);
    gv_region_remove(region);
}

void gv_device_free(CUdeviceptr address)
{
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(address);
    if (region != NULL && region->base == address && region->segment != NULL)
        free_region(region);
    pthread_mutex_unlock(&gv_memory_lock);
}

static bool close_region(struct gv_region *region, void *data)
{
    if (region->context != data)
        return true;
    switch (region->kind) {
    case GV_REGION_ARRAY:
        gv_array_close(region->owner);
        free_region(region);
        break;
    case GV_REGION_KERNEL:
    case GV_REGION_DEVICE:
    case GV_REGION_GLOBAL:
        free_region(region);
        break;
    case GV_REGION_IMPORTED:
    case GV_REGION_EXTERNAL:
        gv_imported_free(region);
        break;
    case GV_REGION_HOST:
    case GV_REGION_REGISTERED:
        gv_host_memory_free(region);
        break;
    case GV_REGION_MANAGED:
        gv_managed_free(region);
        break;
    default:
        break; /* reservations and pools are of the process, not of a context */
    }
    return true;
}

void gv_memory_close(struct gv_context *context)
{
    pthread_mutex_lock(&gv_memory_lock);
    gv_region_each(close_region, context);
    gv_external_close(context);
    gv_kernel_heap_close(context);
    pthread_mutex_unlock(&gv_memory_lock);
}

GV_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *dptr, size_t bytesize)
{
    GV_ENTER_CONTEXT(context);
    if (dptr == NULL || bytesize == 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_capture_check_unsafe());
    return gv_device_allocate(context, bytesize, GV_REGION_DEVICE, dptr);
}

GV_EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *dptr, size_t *pPitch, size_t WidthInBytes, size_t Height,
                                      unsigned int ElementSizeBytes)
{
    GV_ENTER_CONTEXT(context);
    if (dptr == NULL || pPitch == NULL || WidthInBytes == 0 || Height == 0 ||
        (ElementSizeBytes != 4 && ElementSizeBytes != 8 && ElementSizeBytes != 16))
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_capture_check_unsafe());
    const size_t pitch = gv_round_up(WidthInBytes, 512);
    size_t bytes;
    if (pitch < WidthInBytes || __builtin_mul_overflow(pitch, Height, &bytes))
        return CUDA_ERROR_OUT_OF_MEMORY;
    GV_TRY(gv_device_allocate(context, bytes, GV_REGION_DEVICE, dptr));
    *pPitch = pitch;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemFree_v2(CUdeviceptr dptr)
{
    GV_ENTER_CONTEXT(context);
    if (dptr == 0)
        return CUDA_SUCCESS;
    GV_TRY(gv_capture_check_unsafe());
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(dptr);
    const bool freeable =
        region != NULL && region->base == dptr &&
        (region->kind == GV_REGION_DEVICE || gv_is_pool_kind(region->kind) || region->kind == GV_REGION_POOL_IMPORTED ||
         region->kind == GV_REGION_MANAGED || region->kind == GV_REGION_EXTERNAL) &&
        gv_region_freeable(region);
    struct gv_context *owner = freeable && region->context != NULL ? region->context : context;
    pthread_mutex_unlock(&gv_memory_lock);
    if (!freeable)
        return CUDA_ERROR_INVALID_VALUE;
    gv_streams_wait(owner); /* documented: waits for work that may use the memory */
    GV_TRY(gv_context_state(owner));
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    region = gv_region_find(dptr); /* another thread may have freed it meanwhile */
    if (region != NULL && region->base == dptr) {
        result = CUDA_SUCCESS;
        if (region->kind == GV_REGION_DEVICE)
            free_region(region);
        else if (region->kind == GV_REGION_POOL_IMPORTED)
            gv_pool_imported_free(region);
        else if (region->kind == GV_REGION_EXTERNAL)
            gv_imported_free(region);
        else if (gv_is_pool_kind(region->kind))
            gv_pool_free(region, NULL, 0);
        else
            gv_managed_free(region);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuMemGetInfo_v2(size_t *free_bytes, size_t *total)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_board_device *device = gv_board_device(context->device);
    const uint64_t used = gv_board_used(gv_driver.board, gv_place(context->device));
    if (free_bytes != NULL)
        *free_bytes = used < device->memory_bytes ? device->memory_bytes - used : 0;
    if (total != NULL)
        *total = device->memory_bytes;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemGetAddressRange_v2(CUdeviceptr *pbase, size_t *psize, CUdeviceptr dptr)
{
    GV_ENTER_CONTEXT(context);
    uint64_t base = 0, bytes = 0;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(dptr);
    if (region != NULL) {
        base = region->base;
        bytes = region->bytes;
    }
    const bool mapped = region != NULL && gv_is_public_kind(region->kind) &&
                        (region->kind != GV_REGION_RESERVED || gv_mapping_at(dptr, &base, &bytes, NULL, NULL, NULL));
    pthread_mutex_unlock(&gv_memory_lock);
    if (!mapped)
        return CUDA_ERROR_NOT_FOUND;
    if (pbase != NULL)
        *pbase = base;
    if (psize != NULL)
        *psize = bytes;
    return CUDA_SUCCESS;
}
