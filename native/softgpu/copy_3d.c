/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemcpy2D*, cuMemcpy3D*: between host memory, device memory and arrays.
 */
#include "array.h"
#include "copy.h"

#include <string.h>

/* One side, with what it means for the copy. */
struct side {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
    CUarray array;
    size_t x, y, z, pitch, height; /* x in bytes */
    uint8_t *address;
    size_t slice;
    bool is_host;
};

/* Documented: "if specified", the pitch holds a row and the height all rows. Not specified: packed. */
static CUresult locate_plain(struct side *side, const struct gv_copy *copy)
{
    if (side->type != CU_MEMORYTYPE_HOST && side->type != CU_MEMORYTYPE_DEVICE && side->type != CU_MEMORYTYPE_UNIFIED)
        return CUDA_ERROR_INVALID_VALUE;
    const size_t row = side->x + copy->width, rows = side->y + copy->height;
    if (row < side->x || rows < side->y)
        return CUDA_ERROR_INVALID_VALUE;
    if (side->pitch == 0)
        side->pitch = row;
    if (side->height == 0)
        side->height = rows;
    if (side->pitch < row || side->pitch > INT32_MAX || (copy->depth > 1 && side->height < rows) ||
        __builtin_mul_overflow(side->pitch, side->height, &side->slice))
        return CUDA_ERROR_INVALID_VALUE;
    uint8_t *base = side->type == CU_MEMORYTYPE_HOST ? (uint8_t *)side->host : (uint8_t *)side->device;
    if (base == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    side->is_host = side->type != CU_MEMORYTYPE_DEVICE;
    uint64_t offset;
    if (!gv_span(side->x, side->y + 1, side->pitch, side->z + 1, side->slice, &offset) ||
        __builtin_add_overflow((uintptr_t)base, offset, &offset))
        return CUDA_ERROR_INVALID_VALUE;
    side->address = (uint8_t *)offset;
    return CUDA_SUCCESS;
}

static bool inside(size_t from, size_t length, size_t extent) { return from <= extent && length <= extent - from; }

static CUresult locate_array(struct side *side, const struct gv_copy *copy)
{
    const struct gv_array *array = gv_array_of(side->array);
    if (array == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (array->element == 0 || side->x % array->element != 0 || copy->width % array->element != 0 ||
        !inside(side->x, copy->width, array->descriptor.Width * array->element) ||
        !inside(side->y, copy->height, array->rows) || !inside(side->z, copy->depth, array->slices))
        return CUDA_ERROR_INVALID_VALUE;
    side->pitch = array->pitch;
    side->slice = array->pitch * array->rows;
    side->is_host = false;
    side->address = (uint8_t *)array->memory + side->z * side->slice + side->y * side->pitch + side->x;
    return CUDA_SUCCESS;
}

static CUresult locate(struct side *side, const struct gv_copy *copy)
{
    return side->type == CU_MEMORYTYPE_ARRAY ? locate_array(side, copy) : locate_plain(side, copy);
}

CUresult gv_copy_of_3d(struct gv_copy *copy, const CUDA_MEMCPY3D *p)
{
    memset(copy, 0, sizeof *copy);
    if (p->srcLOD != 0 || p->dstLOD != 0)
        return CUDA_ERROR_INVALID_VALUE;
    copy->given = *p;
    copy->width = p->WidthInBytes;
    copy->height = p->Height;
    copy->depth = p->Depth;
    if (copy->width == 0 || copy->height == 0 || copy->depth == 0) {
        copy->width = 0;
        return CUDA_SUCCESS;
    }
    struct side from = {.type = p->srcMemoryType,
                        .host = p->srcHost,
                        .device = p->srcDevice,
                        .array = p->srcArray,
                        .x = p->srcXInBytes,
                        .y = p->srcY,
                        .z = p->srcZ,
                        .pitch = p->srcPitch,
                        .height = p->srcHeight};
    struct side to = {.type = p->dstMemoryType,
                      .host = p->dstHost,
                      .device = p->dstDevice,
                      .array = p->dstArray,
                      .x = p->dstXInBytes,
                      .y = p->dstY,
                      .z = p->dstZ,
                      .pitch = p->dstPitch,
                      .height = p->dstHeight};
    GV_TRY(locate(&from, copy));
    GV_TRY(locate(&to, copy));
    if (from.type == CU_MEMORYTYPE_ARRAY && to.type == CU_MEMORYTYPE_ARRAY &&
        gv_array_of(from.array)->element != gv_array_of(to.array)->element)
        return CUDA_ERROR_INVALID_VALUE;
    copy->from = from.address;
    copy->from_pitch = from.pitch;
    copy->from_slice = from.slice;
    copy->to = to.address;
    copy->to_pitch = to.pitch;
    copy->to_slice = to.slice;
    return gv_copy_classify(copy, to.is_host, from.is_host);
}

static CUresult copy_3d(const CUDA_MEMCPY3D *p, CUstream hStream, bool wait)
{
    struct gv_stream *stream;
    struct gv_copy copy;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (p == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_copy_of_3d(&copy, p));
    return gv_copy_submit(&copy, stream, wait);
}

static CUresult copy_2d(const CUDA_MEMCPY2D *p, CUstream hStream, bool wait)
{
    GV_READY();
    if (p == NULL)
        return copy_3d(NULL, hStream, wait);
    const CUDA_MEMCPY3D all = {.srcXInBytes = p->srcXInBytes,
                               .srcY = p->srcY,
                               .srcMemoryType = p->srcMemoryType,
                               .srcHost = p->srcHost,
                               .srcDevice = p->srcDevice,
                               .srcArray = p->srcArray,
                               .srcPitch = p->srcPitch,
                               .dstXInBytes = p->dstXInBytes,
                               .dstY = p->dstY,
                               .dstMemoryType = p->dstMemoryType,
                               .dstHost = p->dstHost,
                               .dstDevice = p->dstDevice,
                               .dstArray = p->dstArray,
                               .dstPitch = p->dstPitch,
                               .WidthInBytes = p->WidthInBytes,
                               .Height = p->Height,
                               .Depth = 1};
    return copy_3d(&all, hStream, wait);
}

GV_EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy)
{
    GV_ENTER();
    return copy_2d(pCopy, NULL, true);
}
GV_EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
    GV_ENTER();
    return copy_2d(pCopy, NULL, true);
}
GV_EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
    GV_ENTER();
    return copy_2d(pCopy, hStream, false);
}
GV_EXPORT CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy)
{
    GV_ENTER();
    return copy_3d(pCopy, NULL, true);
}
GV_EXPORT CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
    GV_ENTER();
    return copy_3d(pCopy, hStream, false);
}

/* Contexts tell on which device addresses are; ours are the same everywhere. "Ignored" for arrays, as documented. */
static CUresult copy_peer(const CUDA_MEMCPY3D_PEER *p, CUstream hStream, bool wait)
{
    GV_READY();
    if (p == NULL)
        return copy_3d(NULL, hStream, wait);
    if ((p->srcMemoryType != CU_MEMORYTYPE_ARRAY && gv_context_of(p->srcContext) == NULL) ||
        (p->dstMemoryType != CU_MEMORYTYPE_ARRAY && gv_context_of(p->dstContext) == NULL))
        return CUDA_ERROR_INVALID_CONTEXT;
    if (wait && p->srcMemoryType != CU_MEMORYTYPE_ARRAY && p->dstMemoryType != CU_MEMORYTYPE_ARRAY)
        gv_copy_settle(p->dstContext, p->srcContext);
    const CUDA_MEMCPY3D all = {.srcXInBytes = p->srcXInBytes,
                               .srcY = p->srcY,
                               .srcZ = p->srcZ,
                               .srcLOD = p->srcLOD,
                               .srcMemoryType = p->srcMemoryType,
                               .srcHost = p->srcHost,
                               .srcDevice = p->srcDevice,
                               .srcArray = p->srcArray,
                               .srcPitch = p->srcPitch,
                               .srcHeight = p->srcHeight,
                               .dstXInBytes = p->dstXInBytes,
                               .dstY = p->dstY,
                               .dstZ = p->dstZ,
                               .dstLOD = p->dstLOD,
                               .dstMemoryType = p->dstMemoryType,
                               .dstHost = p->dstHost,
                               .dstDevice = p->dstDevice,
                               .dstArray = p->dstArray,
                               .dstPitch = p->dstPitch,
                               .dstHeight = p->dstHeight,
                               .WidthInBytes = p->WidthInBytes,
                               .Height = p->Height,
                               .Depth = p->Depth};
    return copy_3d(&all, hStream, wait);
}

GV_EXPORT CUresult cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *pCopy)
{
    GV_ENTER();
    GV_TRY(copy_peer(pCopy, NULL, true));
    GV_NEED_CONTEXT(context);
    return gv_context_synchronise(context);
}
GV_EXPORT CUresult cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *pCopy, CUstream hStream)
{
    GV_ENTER();
    return copy_peer(pCopy, hStream, false);
}
