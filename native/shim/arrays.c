/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA arrays and mipmaps: opaque memory of the driver's, without an address that could be kept, so it stays (GV_FIXED_ARRAY).
 * Its size is not told by the driver: what is charged is computed from the descriptor, as block-linear memory is laid out
 * (blocks of 64 bytes by 8 rows), rather too much than too little.
 */
#include "fixed.h"
#include "memory.h"
#include "real_driver.h"

enum { ROW_UNIT = 64, ROWS_UNIT = 8, ARRAY_UNIT = 512 };
#define TOO_LARGE (1ull << 48)

static uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }
static uint64_t at_least_one(uint64_t value) { return value == 0 ? 1 : value; }

/* Bytes of one texel, all channels and planes together. */
static uint64_t texel_bytes(CUarray_format format, unsigned int channels)
{
    switch ((int)format) {
    case CU_AD_FORMAT_UNSIGNED_INT8:
    case CU_AD_FORMAT_SIGNED_INT8:
        return channels;
    case CU_AD_FORMAT_UNSIGNED_INT16:
    case CU_AD_FORMAT_SIGNED_INT16:
    case CU_AD_FORMAT_HALF:
        return 2ull * channels;
    case CU_AD_FORMAT_UNSIGNED_INT32:
    case CU_AD_FORMAT_SIGNED_INT32:
    case CU_AD_FORMAT_FLOAT:
        return 4ull * channels;
    case CU_AD_FORMAT_UNORM_INT8X1:
    case CU_AD_FORMAT_SNORM_INT8X1:
        return 1;
    case CU_AD_FORMAT_UNORM_INT8X2:
    case CU_AD_FORMAT_SNORM_INT8X2:
    case CU_AD_FORMAT_UNORM_INT16X1:
    case CU_AD_FORMAT_SNORM_INT16X1:
        return 2;
    case CU_AD_FORMAT_UNORM_INT8X4:
    case CU_AD_FORMAT_SNORM_INT8X4:
    case CU_AD_FORMAT_UNORM_INT16X2:
    case CU_AD_FORMAT_SNORM_INT16X2:
    case CU_AD_FORMAT_UNORM_INT_101010_2:
    case CU_AD_FORMAT_NV12:
        return 4;
    default: /* block-compressed ones need a byte at most, the YUV formats up to eight */
        return format >= CU_AD_FORMAT_BC1_UNORM && format <= CU_AD_FORMAT_BC7_UNORM_SRGB ? 1 : 8;
    }
}

/* Bytes of an array of this shape; 0 for what no driver accepts. Depth is that of a volume, or the number of layers. */
static uint64_t array_bytes(uint64_t width, uint64_t height, uint64_t depth, uint64_t texel)
{
    if (width == 0 || width > TOO_LARGE || height > TOO_LARGE || depth > TOO_LARGE)
        return 0;
    const unsigned __int128 row = round_up(width * texel, ROW_UNIT);
    const unsigned __int128 slice = row * (height == 0 ? 1 : round_up(height, ROWS_UNIT));
    const unsigned __int128 bytes = slice < TOO_LARGE ? slice * at_least_one(depth) : TOO_LARGE;
    return bytes < TOO_LARGE ? round_up((uint64_t)bytes, ARRAY_UNIT) : 0;
}

/* All levels; `levels` 1 for an array. 0: nothing to charge, now or ever (the driver refuses it, or maps memory later). */
static uint64_t bytes_of(const CUDA_ARRAY3D_DESCRIPTOR *d, unsigned int levels)
{
    if (d == NULL || (d->Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) != 0)
        return 0;
    const int layers = (d->Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP)) != 0;
    const uint64_t texel = texel_bytes(d->Format, d->NumChannels);
    uint64_t width = d->Width, height = d->Height, depth = d->Depth, bytes = 0;
    for (unsigned int level = 0; level < levels || level == 0; level++) {
        const uint64_t its = array_bytes(width, height, depth, texel);
        if (its == 0)
            return 0;
        bytes += its;
        if (width <= 1 && height <= 1 && (layers || depth <= 1))
            break; /* the driver makes no more levels than that */
        width = at_least_one(width / 2);
        height = height == 0 ? 0 : at_least_one(height / 2);
        depth = layers || depth == 0 ? depth : at_least_one(depth / 2);
    }
    return bytes;
}

static uint64_t most(const CUdevice_attribute *attributes, int count)
{
    int largest = 0;
    for (int i = 0; i < count; i++) {
        int value = 0;
        if (REAL(cuDeviceGetAttribute)(&value, attributes[i], gv_memory.device) == CUDA_SUCCESS && value > largest)
            largest = value;
    }
    return (uint64_t)largest;
}

/* Is it larger than anything that the device has textures for? Then its error is the driver's, not that of the quota. */
static int beyond_the_device(const CUDA_ARRAY3D_DESCRIPTOR *d)
{
    const CUdevice_attribute widths[] = {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH,
                                         CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH,
                                         CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE},
                             heights[] = {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT,
                                          CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE},
                             depths[] = {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE,
                                         CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH,
                                         CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS};
    return d->Width > most(widths, 3) || d->Height > most(heights, 2) || d->Depth > most(depths, 3);
}

/* `call` for an array of this shape. One that the quota refuses is asked of the driver all the same where that must fail. */
#define CREATE(shape, levels, handle, call, destroy)                                                                   \
    const uint64_t bytes = bytes_of(shape, levels);                                                                    \
    if ((handle) == NULL || bytes == 0)                                                                                \
        return call;                                                                                                   \
    CUresult result = GV_FIXED_CREATE(GV_FIXED_ARRAY, bytes, call, *(handle));                                         \
    if (result == CUDA_ERROR_OUT_OF_MEMORY && beyond_the_device(shape) && (result = (call)) == CUDA_SUCCESS) {         \
        destroy(*(handle));                                                                                            \
        result = CUDA_ERROR_OUT_OF_MEMORY;                                                                             \
    }                                                                                                                  \
    return result

/* Both versions; they differ in the type of the extents. */
#define CREATE_2D(symbol, descriptor)                                                                                  \
    GV_EXPORT CUresult symbol(CUarray *pHandle, const descriptor *pAllocateArray)                                      \
    {                                                                                                                  \
        const CUDA_ARRAY3D_DESCRIPTOR all = {                                                                          \
            .Width = pAllocateArray == NULL ? 0 : pAllocateArray->Width,                                               \
            .Height = pAllocateArray == NULL ? 0 : pAllocateArray->Height,                                             \
            .Format = pAllocateArray == NULL ? 0 : pAllocateArray->Format,                                             \
            .NumChannels = pAllocateArray == NULL ? 0 : pAllocateArray->NumChannels,                                   \
        };                                                                                                             \
        CREATE(&all, 1, pHandle, REAL(symbol)(pHandle, pAllocateArray), REAL(cuArrayDestroy));                         \
    }
CREATE_2D(cuArrayCreate, CUDA_ARRAY_DESCRIPTOR_v1)
CREATE_2D(cuArrayCreate_v2, CUDA_ARRAY_DESCRIPTOR)

#define CREATE_3D(symbol, descriptor)                                                                                  \
    GV_EXPORT CUresult symbol(CUarray *pHandle, const descriptor *pAllocateArray)                                      \
    {                                                                                                                  \
        CUDA_ARRAY3D_DESCRIPTOR all = {.Width = 0};                                                                    \
        if (pAllocateArray != NULL)                                                                                    \
            all =                                                                                                      \
                (CUDA_ARRAY3D_DESCRIPTOR){pAllocateArray->Width,  pAllocateArray->Height,      pAllocateArray->Depth,  \
                                          pAllocateArray->Format, pAllocateArray->NumChannels, pAllocateArray->Flags}; \
        CREATE(&all, 1, pHandle, REAL(symbol)(pHandle, pAllocateArray), REAL(cuArrayDestroy));                         \
    }
CREATE_3D(cuArray3DCreate, CUDA_ARRAY3D_DESCRIPTOR_v1)
CREATE_3D(cuArray3DCreate_v2, CUDA_ARRAY3D_DESCRIPTOR)

GV_EXPORT CUresult cuMipmappedArrayCreate(CUmipmappedArray *pHandle, const CUDA_ARRAY3D_DESCRIPTOR *pMipmappedArrayDesc,
                                          unsigned int numMipmapLevels)
{
    CREATE(pMipmappedArrayDesc, numMipmapLevels, pHandle,
           REAL(cuMipmappedArrayCreate)(pHandle, pMipmappedArrayDesc, numMipmapLevels), REAL(cuMipmappedArrayDestroy));
}

GV_EXPORT CUresult cuArrayDestroy(CUarray hArray)
{
    return GV_FIXED_DESTROY(GV_FIXED_ARRAY, hArray, REAL(cuArrayDestroy)(hArray));
}

GV_EXPORT CUresult cuMipmappedArrayDestroy(CUmipmappedArray hMipmappedArray)
{
    return GV_FIXED_DESTROY(GV_FIXED_ARRAY, hMipmappedArray, REAL(cuMipmappedArrayDestroy)(hMipmappedArray));
}
