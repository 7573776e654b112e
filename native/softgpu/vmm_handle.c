/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles of physical memory: create, release, properties, export, import.
 */
#include "model.h"
#include "pool.h"
#include "vmm.h"

#include <string.h>

/* As documented for cuMemCreate. `checked`: the location normalised. */
static CUresult check_properties(const CUmemAllocationProp *prop, CUmemAllocationProp *checked)
{
    if (prop == NULL || prop->type != CU_MEM_ALLOCATION_TYPE_PINNED || prop->win32HandleMetaData != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *checked = *prop;
    switch (prop->location.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        GV_TRY(gv_check_device(prop->location.id));
        break;
    case CU_MEM_LOCATION_TYPE_DEVICE_LOCALITY_DOMAIN: /* ours have one domain: the whole device, as documented */
        GV_TRY(gv_check_device(prop->location.localized.deviceId));
        if (prop->location.localized.localityDomainId != 0)
            return CUDA_ERROR_INVALID_VALUE;
        checked->location =
            (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = prop->location.localized.deviceId};
        break;
    case CU_MEM_LOCATION_TYPE_HOST:
        if (prop->requestedHandleTypes != CU_MEM_HANDLE_TYPE_NONE)
            return CUDA_ERROR_INVALID_VALUE;
        break;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
        if (!gv_has_numa_node(prop->location.id))
            return CUDA_ERROR_INVALID_VALUE;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    checked->allocFlags.compressionType = CU_MEM_ALLOCATION_COMP_NONE; /* a wish; ours cannot */
    if (prop->requestedHandleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR ||
        prop->allocFlags.gpuDirectRDMACapable != 0 || prop->allocFlags.usage != 0)
        return CUDA_ERROR_NOT_SUPPORTED; /* fabric handles; RDMA; tile pools of sparse arrays, decompression */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                                 CUmemAllocationGranularity_flags option)
{
    GV_ENTER();
    if (granularity == NULL || (unsigned)option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
        return CUDA_ERROR_INVALID_VALUE;
    CUmemAllocationProp checked;
    GV_TRY(check_properties(prop, &checked));
    *granularity = GV_GRANULARITY;
    return CUDA_SUCCESS;
}

struct gv_handle *gv_handle_of(CUmemGenericAllocationHandle handle)
{
    return gv_is((void *)handle, GV_HANDLE) ? (struct gv_handle *)handle : NULL;
}

static struct gv_handle *new_handle(struct gv_physical *physical, const CUmemAllocationProp *properties)
{
    struct gv_handle *handle = gv_object_new(GV_HANDLE, sizeof *handle);
    if (handle != NULL) {
        handle->physical = physical;
        handle->references = 1;
        handle->mappings = 0;
        handle->properties = *properties;
    }
    return handle;
}

/* Under the lock: one holder less. */
void gv_handle_drop(struct gv_handle *handle, uint32_t *counter)
{
    const bool last = --*counter == 0;
    if (counter == &handle->mappings || last)
        gv_physical_release(handle->physical);
    if (handle->references == 0 && handle->mappings == 0)
        gv_object_free(handle, GV_HANDLE);
}

GV_EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                               unsigned long long flags)
{
    GV_ENTER();
    if (handle == NULL || flags != 0 || size == 0 || !gv_is_aligned(size, GV_GRANULARITY))
        return CUDA_ERROR_INVALID_VALUE;
    CUmemAllocationProp checked;
    GV_TRY(check_properties(prop, &checked));
    struct gv_physical *physical;
    GV_TRY(gv_physical_create(gv_location_device(&checked.location), size, true, &physical));
    struct gv_handle *made = new_handle(physical, &checked);
    if (made == NULL) {
        pthread_mutex_lock(&gv_memory_lock);
        gv_physical_release(physical);
        pthread_mutex_unlock(&gv_memory_lock);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *handle = (CUmemGenericAllocationHandle)made;
    gv_model_vmm(gv_location_device(&checked.location), GV_VMM_CREATE, size);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemRelease(CUmemGenericAllocationHandle handle)
{
    GV_ENTER();
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_handle *known = gv_handle_of(handle);
    const bool held = known != NULL && known->references > 0; /* else it lives on by its mappings only */
    if (held)
        gv_handle_drop(known, &known->references);
    pthread_mutex_unlock(&gv_memory_lock);
    return held ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                          CUmemGenericAllocationHandle handle)
{
    GV_ENTER();
    const struct gv_handle *known = gv_handle_of(handle);
    if (prop == NULL || known == NULL || known->references == 0) /* released: it lives on by its mappings only */
        return CUDA_ERROR_INVALID_VALUE;
    *prop = known->properties;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemExportToShareableHandle(void *shareableHandle, CUmemGenericAllocationHandle handle,
                                                CUmemAllocationHandleType handleType, unsigned long long flags)
{
    GV_ENTER();
    if (shareableHandle == NULL || flags != 0 || handleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_handle *known = gv_handle_of(handle);
    if (known != NULL && known->references > 0 &&
        known->properties.requestedHandleTypes & CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
        int fd = -1;
        result = gv_physical_export(known->physical, &fd);
        if (result == CUDA_SUCCESS)
            memcpy(shareableHandle, &fd, sizeof fd);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

GV_EXPORT CUresult cuMemImportFromShareableHandle(CUmemGenericAllocationHandle *handle, void *osHandle,
                                                  CUmemAllocationHandleType shHandleType)
{
    GV_ENTER();
    if (handle == NULL || shHandleType != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_physical *physical = NULL;
    pthread_mutex_lock(&gv_memory_lock);
    CUresult result =
        gv_physical_import((int)(intptr_t)osHandle, &physical); /* the descriptor itself, not its address */
    if (result == CUDA_SUCCESS) {
        CUmemAllocationProp properties;
        memset(&properties, 0, sizeof properties);
        properties.type = CU_MEM_ALLOCATION_TYPE_PINNED;
        properties.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
        properties.location.type =
            physical->device == GV_HOST ? CU_MEM_LOCATION_TYPE_HOST_NUMA : CU_MEM_LOCATION_TYPE_DEVICE;
        properties.location.id = physical->device == GV_HOST ? 0 : physical->device;
        struct gv_handle *made = new_handle(physical, &properties);
        if (made != NULL) {
            *handle = (CUmemGenericAllocationHandle)made;
        } else {
            gv_physical_release(physical);
            result = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}
