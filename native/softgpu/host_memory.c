/* SPDX-License-Identifier: Apache-2.0
 *
 * Pinned host memory and managed memory. Both are plain memory of the process: a kernel reaches it at the same address.
 * Managed memory is charged to the device (it has no migration here); pinned memory is not.
 */
#include "memory.h"
#include "model.h"
#include "stream.h"

#include <stdlib.h>
#include <sys/mman.h>

static CUresult allocate(struct gv_context *context, uint64_t bytes, enum gv_region_kind kind, unsigned flags,
                         void **address)
{
    const uint64_t size = gv_round_up(bytes, kind == GV_REGION_MANAGED ? GV_GRANULARITY : GV_SMALLEST_PAGE);
    if (size < bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (kind == GV_REGION_MANAGED && !gv_board_charge(gv_driver.board, gv_place(context->device), size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct gv_region *region = NULL;
    if (memory != MAP_FAILED) {
        pthread_mutex_lock(&gv_memory_lock);
        region = gv_region_add((uint64_t)memory, bytes, kind, context->device, context);
        if (region != NULL)
            region->flags = flags;
        pthread_mutex_unlock(&gv_memory_lock);
        if (region == NULL)
            munmap(memory, size);
    }
    if (region == NULL) {
        if (kind == GV_REGION_MANAGED)
            gv_board_uncharge(gv_driver.board, gv_place(context->device), size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = memory;
    if (kind == GV_REGION_HOST)
        gv_model_pin(context->device, true, size);
    return CUDA_SUCCESS;
}

void gv_host_memory_free(struct gv_region *region)
{
    if (region->kind == GV_REGION_HOST)
        munmap((void *)region->base, gv_round_up(region->bytes, GV_SMALLEST_PAGE));
    if (region->kind == GV_REGION_MANAGED) {
        const uint64_t size = gv_round_up(region->bytes, GV_GRANULARITY);
        munmap((void *)region->base, size);
        gv_board_uncharge(gv_driver.board, gv_place(region->device), size);
    }
    gv_region_remove(region); /* registered memory stays: it is the program's */
}

GV_EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const unsigned known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (pp == NULL || bytesize == 0 || Flags & ~known)
        return CUDA_ERROR_INVALID_VALUE;
    return allocate(context, bytesize, GV_REGION_HOST, Flags, pp);
}

GV_EXPORT CUresult cuMemAllocHost_v2(void **pp, size_t bytesize) { return cuMemHostAlloc(pp, bytesize, 0); }

GV_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    GV_ENTER_CONTEXT(context);
    if (dptr == NULL || bytesize == 0 || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    return allocate(context, bytesize, GV_REGION_MANAGED, flags, (void **)dptr);
}

/* Finds, checks and frees under one lock. */
static CUresult free_kind(void *address, enum gv_region_kind kind, CUresult unknown)
{
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find((uint64_t)address);
    const bool known = region != NULL && region->base == (uint64_t)address && region->kind == kind;
    if (known)
        gv_host_memory_free(region);
    pthread_mutex_unlock(&gv_memory_lock);
    return known ? CUDA_SUCCESS : unknown;
}

static bool is_kind(void *address, enum gv_region_kind kind)
{
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find((uint64_t)address);
    const bool known = region != NULL && region->base == (uint64_t)address && region->kind == kind;
    pthread_mutex_unlock(&gv_memory_lock);
    return known;
}

GV_EXPORT CUresult cuMemFreeHost(void *p)
{
    GV_ENTER_CONTEXT(context);
    if (!is_kind(p, GV_REGION_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_context_synchronise(context));
    return free_kind(p, GV_REGION_HOST, CUDA_ERROR_INVALID_VALUE);
}

GV_EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const unsigned known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY |
                           CU_MEMHOSTREGISTER_READ_ONLY;
    if (p == NULL || bytesize == 0 || Flags & ~known)
        return CUDA_ERROR_INVALID_VALUE;
    /* Pages that are not there cannot be pinned. */
    const uint64_t first = (uint64_t)p & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
    const uint64_t end = gv_round_up((uint64_t)p + bytesize, GV_SMALLEST_PAGE);
    if (msync((void *)first, end - first, MS_ASYNC) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    /* A region that overlaps, if only with its end, was registered (or allocated) before: error 712. */
    struct gv_region *region = gv_region_add((uint64_t)p, bytesize, GV_REGION_REGISTERED, context->device, context);
    if (region != NULL)
        region->flags = Flags;
    pthread_mutex_unlock(&gv_memory_lock);
    if (region != NULL)
        gv_model_pin(context->device, false, bytesize);
    return region != NULL ? CUDA_SUCCESS : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

GV_EXPORT CUresult cuMemHostRegister(void *p, size_t bytesize, unsigned int Flags)
{
    return cuMemHostRegister_v2(p, bytesize, Flags);
}

GV_EXPORT CUresult cuMemHostUnregister(void *p)
{
    GV_ENTER_CONTEXT(context);
    if (p == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (!is_kind(p, GV_REGION_REGISTERED))
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    GV_TRY(gv_context_synchronise(context));
    return free_kind(p, GV_REGION_REGISTERED, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
}

static CUresult find_host(void *p, struct gv_region *copy)
{
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find((uint64_t)p);
    const bool known = region != NULL && gv_is_host_kind(region->kind);
    if (known)
        *copy = *region;
    pthread_mutex_unlock(&gv_memory_lock);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr *pdptr, void *p, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    struct gv_region region;
    if (pdptr == NULL || Flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(find_host(p, &region));
    *pdptr = (CUdeviceptr)p;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemHostGetFlags(unsigned int *pFlags, void *p)
{
    GV_ENTER_CONTEXT(context);
    struct gv_region region;
    if (pFlags == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(find_host(p, &region));
    *pFlags = region.flags | CU_MEMHOSTALLOC_DEVICEMAP; /* always mapped under unified addressing */
    return CUDA_SUCCESS;
}

/* Managed memory has one place here, so hints about places have no effect; the range must be managed all the same. */
static CUresult check_managed(CUdeviceptr pointer, size_t bytes)
{
    GV_READY();
    enum gv_region_kind kind;
    const bool known = bytes > 0 && gv_range_known(pointer, bytes, &kind) && gv_is_managed_kind(kind);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemAdvise_v2(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUmemLocation location)
{
    GV_ENTER();
    (void)location;
    GV_TRY(check_managed(devPtr, count));
    return (unsigned)advice >= CU_MEM_ADVISE_SET_READ_MOSTLY && (unsigned)advice <= CU_MEM_ADVISE_UNSET_ACCESSED_BY
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemAdvise(CUdeviceptr devPtr, size_t count, CUmem_advise advice, CUdevice device)
{
    return cuMemAdvise_v2(devPtr, count, advice, (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device});
}

GV_EXPORT CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,
                                         CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    (void)location;
    GV_TRY(gv_stream_of(hStream, &stream));
    return flags != 0 ? CUDA_ERROR_INVALID_VALUE : check_managed(devPtr, count);
}

GV_EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
    return cuMemPrefetchAsync_v2(devPtr, count, (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = dstDevice},
                                 0, hStream);
}
