/* SPDX-License-Identifier: Apache-2.0
 *
 * cuIpc*MemHandle: memory of cuMemAlloc in another process.
 *
 * The importer maps the pages of the allocation, and holds the whole piece that it lies in: on the board it is then shared, is
 * charged once, and stays until the last holder has gone, whatever the exporter does.
 */
#include "ipc.h"
#include "memory.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Behind the region of an opened handle. */
struct imported {
    struct gv_ipc_handle handle;
    struct gv_physical *physical;
    void *pages;
    size_t bytes;
    unsigned references; /* calls of cuIpcOpenMemHandle */
};

GV_EXPORT CUresult cuIpcGetMemHandle(CUipcMemHandle *pHandle, CUdeviceptr dptr)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    if (pHandle == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    struct gv_ipc_handle handle;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(dptr);
    if (region != NULL && region->kind == GV_REGION_DEVICE) { /* not of pools, not mapped, not imported */
        uint64_t offset;
        struct gv_physical *physical = gv_heap_backing(region->segment, &offset);
        result = gv_physical_share(physical);
        if (result == CUDA_SUCCESS)
            result = gv_ipc_name(&handle, GV_IPC_MEMORY, physical->fd);
        handle.device = (uint32_t)region->device;
        handle.offset = offset;
        handle.bytes = region->bytes;
        handle.id = region->id;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS) {
        memset(pHandle, 0, sizeof *pHandle);
        memcpy(pHandle, &handle, sizeof handle);
    }
    return result;
}

struct search {
    const struct gv_ipc_handle *handle;
    struct gv_region *found;
};

static bool is_opened(struct gv_region *region, void *data)
{
    struct search *search = data;
    if (region->kind != GV_REGION_IMPORTED ||
        memcmp(&((struct imported *)region->owner)->handle, search->handle, sizeof *search->handle) != 0)
        return true;
    search->found = region;
    return false;
}

CUresult gv_imported_map(const struct gv_ipc_handle *handle, int fd, struct gv_context *context,
                         enum gv_region_kind kind, struct gv_region **mapped)
{
    struct imported *made = calloc(1, sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = gv_physical_import(fd, &made->physical);
    if (result != CUDA_SUCCESS) {
        free(made);
        return result == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_INVALID_HANDLE : result;
    }
    const uint64_t first = handle->offset & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
    const uint64_t end = gv_round_up(handle->offset + handle->bytes, GV_SMALLEST_PAGE);
    made->handle = *handle;
    made->references = 1;
    made->bytes = end - first;
    made->pages = end <= made->physical->bytes
                      ? mmap(NULL, made->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, made->physical->fd, (off_t)first)
                      : MAP_FAILED;
    struct gv_region *region = NULL;
    if (made->pages != MAP_FAILED) {
        madvise(made->pages, made->bytes, MADV_DONTFORK);
        region = gv_region_add((uint64_t)made->pages + (handle->offset - first), handle->bytes, kind,
                               made->physical->device, context);
        if (region == NULL)
            munmap(made->pages, made->bytes);
    }
    if (region == NULL) {
        gv_physical_release(made->physical);
        free(made);
        return CUDA_ERROR_MAP_FAILED;
    }
    region->owner = made;
    *mapped = region;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuIpcOpenMemHandle_v2(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    if (pdptr == NULL || Flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_ipc_handle name;
    memcpy(&name, &handle, sizeof name);
    if (name.what != GV_IPC_MEMORY)
        return CUDA_ERROR_INVALID_HANDLE;
    if (gv_ipc_is_own(&name))
        return CUDA_ERROR_INVALID_CONTEXT; /* what a real driver says about a handle of the same process */
    struct search search = {.handle = &name};
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_memory_lock);
    gv_region_each(is_opened, &search);
    if (search.found != NULL && search.found->context != context) {
        result = CUDA_ERROR_INVALID_CONTEXT; /* documented: by one context of a process only */
    } else if (search.found != NULL) {
        ((struct imported *)search.found->owner)->references++;
        *pdptr = search.found->base;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (search.found != NULL)
        return result;
    int fd;
    GV_TRY(gv_ipc_open(&name, GV_IPC_MEMORY, &fd));
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region;
    result = gv_imported_map(&name, fd, context, GV_REGION_IMPORTED, &region);
    if (result == CUDA_SUCCESS)
        *pdptr = region->base;
    pthread_mutex_unlock(&gv_memory_lock);
    close(fd); /* the import has its own */
    return result;
}

GV_EXPORT CUresult cuIpcOpenMemHandle(CUdeviceptr *pdptr, CUipcMemHandle handle, unsigned int Flags)
{
    return cuIpcOpenMemHandle_v2(pdptr, handle, Flags);
}

void gv_imported_free(struct gv_region *region)
{
    struct imported *imported = region->owner;
    munmap(imported->pages, imported->bytes);
    gv_physical_release(imported->physical);
    free(imported);
    gv_region_remove(region);
}

GV_EXPORT CUresult cuIpcCloseMemHandle(CUdeviceptr dptr)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(dptr);
    const bool opened = region != NULL && region->base == dptr && region->kind == GV_REGION_IMPORTED;
    const bool last = opened && --((struct imported *)region->owner)->references == 0;
    struct gv_context *owner = opened ? region->context : NULL;
    pthread_mutex_unlock(&gv_memory_lock);
    if (!opened)
        return CUDA_ERROR_INVALID_VALUE;
    if (!last)
        return CUDA_SUCCESS;
    gv_streams_wait(owner); /* work in flight may use it */
    pthread_mutex_lock(&gv_memory_lock);
    region = gv_region_find(dptr);
    if (region != NULL && region->base == dptr && region->kind == GV_REGION_IMPORTED &&
        ((struct imported *)region->owner)->references == 0) /* not opened again meanwhile */
        gv_imported_free(region);
    pthread_mutex_unlock(&gv_memory_lock);
    return gv_context_state(owner);
}
