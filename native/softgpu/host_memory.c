/* SPDX-License-Identifier: Apache-2.0
 *
 * Pinned host memory, allocated or registered. It is plain memory of the process, which a kernel reaches at the same address,
 * and charged to no device.
 */
#include "capture.h"
#include "memory.h"
#include "model.h"
#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static CUresult allocate(struct gv_context *context, uint64_t bytes, unsigned flags, void **address)
{
    const uint64_t size = gv_round_up(bytes, GV_SMALLEST_PAGE);
    if (size < bytes)
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_add((uint64_t)memory, bytes, GV_REGION_HOST, context->device, context);
    if (region != NULL)
        region->flags = flags;
    pthread_mutex_unlock(&gv_memory_lock);
    if (region == NULL) {
        munmap(memory, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = memory;
    gv_model_pin(context->device, true, size);
    return CUDA_SUCCESS;
}

void gv_host_memory_free(struct gv_region *region)
{
    if (region->kind == GV_REGION_HOST)
        munmap((void *)region->base, gv_round_up(region->bytes, GV_SMALLEST_PAGE));
    gv_region_remove(region); /* registered memory stays: it is the program's */
}

GV_EXPORT CUresult cuMemHostAlloc(void **pp, size_t bytesize, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const unsigned known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    if (pp == NULL || bytesize == 0 || Flags & ~known)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_capture_check_unsafe());
    return allocate(context, bytesize, Flags, pp);
}

GV_EXPORT CUresult cuMemAllocHost_v2(void **pp, size_t bytesize) { return cuMemHostAlloc(pp, bytesize, 0); }

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
    GV_TRY(gv_capture_check_unsafe());
    GV_TRY(gv_context_synchronise(context));
    return free_kind(p, GV_REGION_HOST, CUDA_ERROR_INVALID_VALUE);
}

/* Pages that are not there cannot be; those that the program may not write, only as READ_ONLY. */
static bool can_be_pinned(uint64_t first, uint64_t end, bool read_only)
{
    if (msync((void *)first, end - first, MS_ASYNC) != 0)
        return false;
    const uint64_t pages[2] = {first, end - GV_SMALLEST_PAGE};
    for (int i = 0; i < 2 && !read_only; i++)
        if (madvise((void *)pages[i], GV_SMALLEST_PAGE, MADV_POPULATE_WRITE) != 0 && errno == EINVAL &&
            madvise((void *)pages[i], GV_SMALLEST_PAGE, MADV_POPULATE_READ) == 0) /* else the kernel knows neither */
            return false;
    return true;
}

GV_EXPORT CUresult cuMemHostRegister_v2(void *p, size_t bytesize, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const unsigned known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY |
                           CU_MEMHOSTREGISTER_READ_ONLY;
    if (p == NULL || bytesize == 0 || Flags & ~known)
        return CUDA_ERROR_INVALID_VALUE;
    if (Flags & CU_MEMHOSTREGISTER_IOMEMORY)
        return CUDA_ERROR_NOT_SUPPORTED; /* memory of other devices: soft ones have no bus to reach it by */
    GV_TRY(gv_capture_check_unsafe());
    if (bytesize > UINT64_MAX - GV_SMALLEST_PAGE - (uint64_t)p)
        return CUDA_ERROR_INVALID_VALUE;
    const uint64_t first = (uint64_t)p & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
    const uint64_t end = gv_round_up((uint64_t)p + bytesize, GV_SMALLEST_PAGE);
    if (end <= first || !can_be_pinned(first, end, Flags & CU_MEMHOSTREGISTER_READ_ONLY))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    /* A region that overlaps, if only with its end, was registered (or allocated) before: error 712. */
    const struct gv_region *before = gv_region_find((uint64_t)p);
    const bool is_host = before == NULL || gv_is_host_kind(before->kind);
    struct gv_region *region =
        is_host ? gv_region_add((uint64_t)p, bytesize, GV_REGION_REGISTERED, context->device, context) : NULL;
    if (region != NULL)
        region->flags = Flags;
    pthread_mutex_unlock(&gv_memory_lock);
    if (region != NULL)
        gv_model_pin(context->device, false, bytesize);
    if (!is_host)
        return CUDA_ERROR_INVALID_VALUE; /* memory of a device */
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
    GV_TRY(gv_capture_check_unsafe());
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
    if (region.kind != GV_REGION_HOST)
        return CUDA_ERROR_INVALID_VALUE;                /* documented: allocated, not registered */
    *pFlags = region.flags | CU_MEMHOSTALLOC_DEVICEMAP; /* always mapped under unified addressing */
    return CUDA_SUCCESS;
}
