/* SPDX-License-Identifier: Apache-2.0
 *
 * cuArray*: create, describe, destroy. Mipmaps are in array_mipmap.c, copies in copy_3d.c and copy_array.c.
 */
#include "array.h"
#include "stream.h"

enum { PITCH_UNIT = 32, PLANE_UNIT = 512 };

struct gv_array *gv_array_of(CUarray handle) { return gv_is(handle, GV_ARRAY) ? (struct gv_array *)handle : NULL; }

struct gv_array *gv_array_new(struct gv_context *context, const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    struct gv_array *array = gv_object_new(GV_ARRAY, sizeof *array);
    if (array == NULL)
        return NULL;
    array->descriptor = *descriptor;
    array->context = context;
    array->element = gv_array_element(descriptor);
    array->memory = 0;
    array->pitch = gv_round_up((size_t)descriptor->Width * array->element, PITCH_UNIT);
    array->rows = descriptor->Height != 0 ? descriptor->Height : 1;
    array->slices = descriptor->Depth != 0 ? descriptor->Depth : 1;
    array->owner = false;
    CUDA_ARRAY3D_DESCRIPTOR planes[GV_ARRAY_PLANES];
    const int count = gv_array_planes(descriptor, planes);
    for (int p = 0; p < GV_ARRAY_PLANES; p++)
        array->planes[p] = NULL;
    for (int p = 0; p < count; p++) {
        array->planes[p] = gv_array_new(context, &planes[p]);
        if (array->planes[p] == NULL) {
            gv_array_discard(array);
            return NULL;
        }
    }
    return array;
}

void gv_array_discard(struct gv_array *array)
{
    for (int p = 0; p < GV_ARRAY_PLANES; p++)
        if (array->planes[p] != NULL)
            gv_array_discard(array->planes[p]);
    gv_object_free(array, GV_ARRAY);
}

size_t gv_array_bytes(const struct gv_array *array)
{
    size_t bytes = array->pitch * array->rows * array->slices; /* at most 2^19 x 2^17 x 2^16: no overflow */
    for (int p = 0; p < GV_ARRAY_PLANES; p++)
        if (array->planes[p] != NULL)
            bytes += gv_round_up(gv_array_bytes(array->planes[p]), PLANE_UNIT);
    return bytes;
}

void gv_array_place(struct gv_array *array, CUdeviceptr memory)
{
    array->memory = memory;
    for (int p = 0; p < GV_ARRAY_PLANES; p++)
        if (array->planes[p] != NULL) {
            gv_array_place(array->planes[p], memory);
            memory += gv_round_up(gv_array_bytes(array->planes[p]), PLANE_UNIT);
        }
}

void gv_array_close(void *owner)
{
    if (gv_is(owner, GV_ARRAY))
        gv_array_discard(owner);
    else if (gv_is(owner, GV_MIPMAP)) {
        struct gv_mipmap *mipmap = owner;
        for (unsigned l = 0; l < mipmap->level_count; l++)
            gv_array_discard(mipmap->levels[l]);
        gv_object_free(mipmap, GV_MIPMAP); /* `levels` is used again with the object */
    }
}

GV_EXPORT CUresult cuArray3DCreate_v2(CUarray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pAllocateArray)
{
    GV_ENTER_CONTEXT(context);
    if (pHandle == NULL || pAllocateArray == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_array_check(pAllocateArray, false));
    struct gv_array *array = gv_array_new(context, pAllocateArray);
    if (array == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    array->owner = true;
    CUdeviceptr memory;
    const CUresult result = gv_device_allocate_for(context, gv_array_bytes(array), GV_REGION_ARRAY, array, &memory);
    if (result != CUDA_SUCCESS) {
        gv_array_discard(array);
        return result;
    }
    gv_array_place(array, memory);
    *pHandle = (CUarray)array;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuArrayCreate_v2(CUarray *pHandle, const CUDA_ARRAY_DESCRIPTOR *pAllocateArray)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    if (pHandle == NULL || pAllocateArray == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const CUDA_ARRAY3D_DESCRIPTOR all = {.Width = pAllocateArray->Width,
                                         .Height = pAllocateArray->Height,
                                         .Format = pAllocateArray->Format,
                                         .NumChannels = pAllocateArray->NumChannels};
    return cuArray3DCreate_v2(pHandle, &all);
}

GV_EXPORT CUresult cuArray3DGetDescriptor_v2(CUDA_ARRAY3D_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    const struct gv_array *array = gv_array_of(hArray);
    if (pArrayDescriptor == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (array == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    *pArrayDescriptor = array->descriptor;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuArrayGetDescriptor_v2(CUDA_ARRAY_DESCRIPTOR *pArrayDescriptor, CUarray hArray)
{
    GV_ENTER();
    CUDA_ARRAY3D_DESCRIPTOR all;
    GV_TRY(cuArray3DGetDescriptor_v2(pArrayDescriptor == NULL ? NULL : &all, hArray));
    pArrayDescriptor->Width = all.Width;
    pArrayDescriptor->Height = all.Height;
    pArrayDescriptor->Format = all.Format;
    pArrayDescriptor->NumChannels = all.NumChannels;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuArrayDestroy(CUarray hArray)
{
    GV_ENTER();
    struct gv_array *array = gv_array_of(hArray);
    if (array == NULL || !array->owner) /* levels and planes end with what they belong to */
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(gv_context_state(array->context));
    gv_streams_wait(array->context); /* copies in flight use its memory */
    GV_TRY(gv_context_state(array->context));
    if (gv_array_of(hArray) == NULL) /* destroyed by another thread meanwhile */
        return CUDA_ERROR_INVALID_HANDLE;
    const CUdeviceptr memory = array->memory;
    gv_array_discard(array);
    gv_device_free(memory);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuArrayGetPlane(CUarray *pPlaneArray, CUarray hArray, unsigned int planeIdx)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    if (pPlaneArray == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const struct gv_array *array = gv_array_of(hArray);
    if (array == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (planeIdx >= GV_ARRAY_PLANES || array->planes[planeIdx] == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pPlaneArray = (CUarray)array->planes[planeIdx];
    return CUDA_SUCCESS;
}

/* Documented: INVALID_VALUE for arrays without CUDA_ARRAY3D_DEFERRED_MAPPING, and creation refuses that flag. */
GV_EXPORT CUresult cuArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements, CUarray array,
                                                CUdevice device)
{
    GV_ENTER();
    (void)memoryRequirements, (void)array;
    GV_TRY(gv_check_device(device));
    return CUDA_ERROR_INVALID_VALUE;
}

/* The same with CUDA_ARRAY3D_SPARSE. */
GV_EXPORT CUresult cuArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties, CUarray array)
{
    (void)sparseProperties, (void)array;
    GV_ENTER();
    return CUDA_ERROR_INVALID_VALUE;
}
