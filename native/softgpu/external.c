/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of other APIs: cuImportExternalMemory of a descriptor. There is no graphics API here, so the only memory that such a
 * descriptor can stand for is one that cuMemExportToShareableHandle gave out, in this process or another.
 */
#include "ipc.h"
#include "memory.h"
#include "stream.h"

#include <string.h>
#include <unistd.h>

struct gv_external {
    struct gv_object object;
    struct gv_physical *physical;
    uint64_t bytes; /* as the importer said */
    struct gv_context *context;
    struct gv_external *next; /* under gv_memory_lock, as `all` */
};
static struct gv_external *all;

static struct gv_external *external_of(CUexternalMemory handle)
{
    return gv_is(handle, GV_EXTERNAL) ? (struct gv_external *)handle : NULL;
}

/* Under the lock. */
static void discard(struct gv_external **link)
{
    struct gv_external *const external = *link;
    *link = external->next;
    gv_physical_release(external->physical);
    gv_object_free(external, GV_EXTERNAL);
}

void gv_external_close(struct gv_context *context)
{
    for (struct gv_external **link = &all; *link != NULL;)
        if ((*link)->context == context)
            discard(link);
        else
            link = &(*link)->next;
}

GV_EXPORT CUresult cuImportExternalMemory(CUexternalMemory *extMem_out,
                                          const CUDA_EXTERNAL_MEMORY_HANDLE_DESC *memHandleDesc)
{
    GV_ENTER_CONTEXT(context);
    if (extMem_out == NULL || memHandleDesc == NULL || memHandleDesc->size == 0 ||
        (memHandleDesc->flags & ~(unsigned)CUDA_EXTERNAL_MEMORY_DEDICATED) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (memHandleDesc->type != CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD)
        return CUDA_ERROR_NOT_SUPPORTED;
    struct gv_external *const external = gv_object_new(GV_EXTERNAL, sizeof *external);
    if (external == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    CUresult result = gv_physical_import(memHandleDesc->handle.fd, &external->physical);
    if (result == CUDA_SUCCESS && memHandleDesc->size > external->physical->bytes) {
        gv_physical_release(external->physical);
        result = CUDA_ERROR_INVALID_VALUE;
    }
    if (result == CUDA_SUCCESS) {
        external->bytes = memHandleDesc->size;
        external->context = context;
        external->next = all;
        all = external;
        *extMem_out = (CUexternalMemory)external;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS)
        close(memHandleDesc->handle.fd); /* documented: the descriptor is the driver's now */
    else
        gv_object_free(external, GV_EXTERNAL);
    return result;
}

GV_EXPORT CUresult cuExternalMemoryGetMappedBuffer(CUdeviceptr *devPtr, CUexternalMemory extMem,
                                                   const CUDA_EXTERNAL_MEMORY_BUFFER_DESC *bufferDesc)
{
    GV_ENTER_CONTEXT(context);
    if (devPtr == NULL || bufferDesc == NULL || bufferDesc->size == 0 || bufferDesc->flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_external *const external = external_of(extMem);
    if (external != NULL &&
        (bufferDesc->offset > external->bytes || bufferDesc->size > external->bytes - bufferDesc->offset))
        result = CUDA_ERROR_INVALID_VALUE;
    else if (external != NULL) {
        struct gv_ipc_handle place;
        struct gv_region *region;
        memset(&place, 0, sizeof place);
        place.offset = bufferDesc->offset;
        place.bytes = bufferDesc->size;
        result = gv_imported_map(&place, external->physical->fd, context, GV_REGION_EXTERNAL, &region);
        if (result == CUDA_SUCCESS)
            *devPtr = region->base;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuDestroyExternalMemory(CUexternalMemory extMem)
{
    GV_ENTER();
    CUresult result = CUDA_ERROR_INVALID_HANDLE;
    pthread_mutex_lock(&gv_memory_lock);
    for (struct gv_external **link = &all; *link != NULL; link = &(*link)->next) {
        if ((CUexternalMemory)*link == extMem) {
            discard(link); /* buffers that are mapped from it hold the memory themselves, until cuMemFree */
            result = CUDA_SUCCESS;
            break;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}
