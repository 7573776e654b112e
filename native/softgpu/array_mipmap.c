/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMipmappedArray*: one allocation that holds a chain of arrays, each half the size of the one before.
 */
#include "array.h"
#include "stream.h"

#include <stdlib.h>

enum { LEVELS_MOST = 32, LEVEL_UNIT = 512 };

static struct gv_mipmap *mipmap_of(CUmipmappedArray handle)
{
    return gv_is(handle, GV_MIPMAP) ? (struct gv_mipmap *)handle : NULL;
}

static size_t halved(size_t extent, unsigned level)
{
    const size_t size = extent >> level;
    return extent == 0 ? 0 : size == 0 ? 1 : size;
}

static CUDA_ARRAY3D_DESCRIPTOR level_descriptor(const CUDA_ARRAY3D_DESCRIPTOR *top, unsigned level)
{
    CUDA_ARRAY3D_DESCRIPTOR d = *top;
    d.Width = halved(top->Width, level);
    d.Height = halved(top->Height, level);
    if (!(top->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP))) /* layers stay */
        d.Depth = halved(top->Depth, level);
    return d;
}

/* Documented: clamped to [1, 1 + floor(log2(the largest extent))]; layers are none. */
static unsigned clamp_levels(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned wanted)
{
    size_t most = d->Width > d->Height ? d->Width : d->Height;
    if (!(d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) && d->Depth > most)
        most = d->Depth;
    unsigned levels = 1;
    while (most >>= 1)
        levels++;
    return wanted < 1 ? 1 : wanted > levels ? levels : wanted;
}

GV_EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc,
                                          unsigned int numMipmapLevels)
{
    GV_ENTER_CONTEXT(context);
    if (pHandle == NULL || pMipmappedArrayDesc == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_array_check(pMipmappedArrayDesc, true));
    struct gv_mipmap *mipmap = gv_object_new(GV_MIPMAP, sizeof *mipmap);
    if (mipmap == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mipmap->context = context;
    mipmap->level_count = 0;
    if (mipmap->levels == NULL)
        mipmap->levels = calloc(LEVELS_MOST, sizeof *mipmap->levels);
    const unsigned levels = clamp_levels(pMipmappedArrayDesc, numMipmapLevels);
    size_t bytes = 0;
    while (mipmap->levels != NULL && mipmap->level_count < levels) {
        const CUDA_ARRAY3D_DESCRIPTOR d = level_descriptor(pMipmappedArrayDesc, mipmap->level_count);
        struct gv_array *level = gv_array_new(context, &d);
        if (level == NULL)
            break;
        bytes += gv_round_up(gv_array_bytes(level), LEVEL_UNIT);
        mipmap->levels[mipmap->level_count++] = level;
    }
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (mipmap->level_count == levels)
        result = gv_device_allocate_for(context, bytes, GV_REGION_ARRAY, mipmap, &mipmap->memory);
    if (result != CUDA_SUCCESS) {
        gv_array_close(mipmap);
        return result;
    }
    CUdeviceptr at = mipmap->memory;
    for (unsigned l = 0; l < levels; l++) {
        gv_array_place(mipmap->levels[l], at);
        at += gv_round_up(gv_array_bytes(mipmap->levels[l]), LEVEL_UNIT);
    }
    *pHandle = (CUmipmappedArray)mipmap;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMipmappedArrayGetLevel(CUarray *pLevelArray, CUmipmappedArray hMipmappedArray, unsigned int level)
{
    GV_ENTER_CONTEXT(context);
    (void)context;
    const struct gv_mipmap *mipmap = mipmap_of(hMipmappedArray);
    if (pLevelArray == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (mipmap == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (level >= mipmap->level_count)
        return CUDA_ERROR_INVALID_VALUE;
    *pLevelArray = (CUarray)mipmap->levels[level];
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
    GV_ENTER();
    struct gv_mipmap *mipmap = mipmap_of(hMipmappedArray);
    if (mipmap == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(gv_context_state(mipmap->context));
    gv_streams_wait(mipmap->context);
    GV_TRY(gv_context_state(mipmap->context));
    if (mipmap_of(hMipmappedArray) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    const CUdeviceptr memory = mipmap->memory;
    gv_array_close(mipmap);
    gv_device_free(memory);
    return CUDA_SUCCESS;
}

/* As for arrays: only deferred and sparse ones have an answer, and creation refuses both. */
GV_EXPORT CUresult cuMipmappedArrayGetMemoryRequirements(CUDA_ARRAY_MEMORY_REQUIREMENTS *memoryRequirements,
                                                         CUmipmappedArray mipmap, CUdevice device)
{
    GV_ENTER();
    (void)memoryRequirements, (void)mipmap;
    GV_TRY(gv_check_device(device));
    return CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMipmappedArrayGetSparseProperties(CUDA_ARRAY_SPARSE_PROPERTIES *sparseProperties,
                                                       CUmipmappedArray mipmap)
{
    (void)sparseProperties, (void)mipmap;
    GV_ENTER();
    return CUDA_ERROR_INVALID_VALUE;
}
