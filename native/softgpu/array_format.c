/* SPDX-License-Identifier: Apache-2.0
 *
 * Which arrays there are: formats, flags, extents.
 */
#include "array.h"

struct format {
    CUarray_format format;
    uint8_t bytes;    /* of a channel */
    uint8_t channels; /* the only number allowed; 0: 1, 2 or 4 */
};

static const struct format formats[] = {
    {CU_AD_FORMAT_UNSIGNED_INT8, 1, 0}, {CU_AD_FORMAT_UNSIGNED_INT16, 2, 0}, {CU_AD_FORMAT_UNSIGNED_INT32, 4, 0},
    {CU_AD_FORMAT_SIGNED_INT8, 1, 0},   {CU_AD_FORMAT_SIGNED_INT16, 2, 0},   {CU_AD_FORMAT_SIGNED_INT32, 4, 0},
    {CU_AD_FORMAT_HALF, 2, 0},          {CU_AD_FORMAT_FLOAT, 4, 0},          {CU_AD_FORMAT_UNORM_INT8X1, 1, 1},
    {CU_AD_FORMAT_UNORM_INT8X2, 1, 2},  {CU_AD_FORMAT_UNORM_INT8X4, 1, 4},   {CU_AD_FORMAT_UNORM_INT16X1, 2, 1},
    {CU_AD_FORMAT_UNORM_INT16X2, 2, 2}, {CU_AD_FORMAT_UNORM_INT16X4, 2, 4},  {CU_AD_FORMAT_SNORM_INT8X1, 1, 1},
    {CU_AD_FORMAT_SNORM_INT8X2, 1, 2},  {CU_AD_FORMAT_SNORM_INT8X4, 1, 4},   {CU_AD_FORMAT_SNORM_INT16X1, 2, 1},
    {CU_AD_FORMAT_SNORM_INT16X2, 2, 2}, {CU_AD_FORMAT_SNORM_INT16X4, 2, 4},
};

/* The extents of compute capability 9.0, from the table of the programming guide. */
static const struct {
    CUdevice_attribute attribute;
    int value;
} limits[] = {
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_MIPMAPPED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE1D_LAYERED_LAYERS, 2048},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_HEIGHT, 65536},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_GATHER_HEIGHT, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_MIPMAPPED_HEIGHT, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_HEIGHT, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE2D_LAYERED_LAYERS, 2048},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_WIDTH_ALTERNATE, 8192},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_HEIGHT_ALTERNATE, 8192},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE3D_DEPTH_ALTERNATE, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURECUBEMAP_LAYERED_LAYERS, 2046},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE1D_LAYERED_LAYERS, 2048},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_WIDTH, 131072},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_HEIGHT, 65536},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_HEIGHT, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE2D_LAYERED_LAYERS, 2048},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_WIDTH, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_HEIGHT, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE3D_DEPTH, 16384},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_WIDTH, 32768},
    {CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACECUBEMAP_LAYERED_LAYERS, 2046},
};

int gv_array_limit(CUdevice_attribute attribute)
{
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        if (limits[i].attribute == attribute)
            return limits[i].value;
    return 0;
}

static const struct format *format_of(CUarray_format format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].format == format)
            return &formats[i];
    return NULL;
}

unsigned gv_array_element(const CUDA_ARRAY3D_DESCRIPTOR *descriptor)
{
    const struct format *format = format_of(descriptor->Format);
    return format == NULL ? 0 : format->bytes * descriptor->NumChannels;
}

int gv_array_planes(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUDA_ARRAY3D_DESCRIPTOR planes[GV_ARRAY_PLANES])
{
    if (descriptor->Format != CU_AD_FORMAT_NV12)
        return 0;
    planes[0] = planes[1] = *descriptor;
    planes[0].Format = planes[1].Format = CU_AD_FORMAT_UNSIGNED_INT8;
    planes[0].NumChannels = 1;
    planes[1].NumChannels = 2;
    planes[1].Width /= 2;
    planes[1].Height /= 2;
    return 2;
}

static bool within(size_t value, CUdevice_attribute attribute) { return value <= (size_t)gv_array_limit(attribute); }

#define TEXTURE(name) CU_DEVICE_ATTRIBUTE_MAXIMUM_TEXTURE##name
#define SURFACE(name) CU_DEVICE_ATTRIBUTE_MAXIMUM_SURFACE##name

/* The table of cuArray3DCreate. A row for surfaces holds in addition when the array may be one. */
static bool extents_fit(const CUDA_ARRAY3D_DESCRIPTOR *d, bool mipmapped)
{
    const bool layered = d->Flags & CUDA_ARRAY3D_LAYERED, surface = d->Flags & CUDA_ARRAY3D_SURFACE_LDST;
    if (d->Flags & CUDA_ARRAY3D_CUBEMAP) {
        if (d->Width != d->Height || d->Depth == 0 || (layered ? d->Depth % 6 != 0 : d->Depth != 6))
            return false;
        if (layered)
            return within(d->Width, TEXTURE(CUBEMAP_LAYERED_WIDTH)) &&
                   within(d->Depth, TEXTURE(CUBEMAP_LAYERED_LAYERS)) &&
                   (!surface || (within(d->Width, SURFACE(CUBEMAP_LAYERED_WIDTH)) &&
                                 within(d->Depth, SURFACE(CUBEMAP_LAYERED_LAYERS))));
        return within(d->Width, TEXTURE(CUBEMAP_WIDTH)) && (!surface || within(d->Width, SURFACE(CUBEMAP_WIDTH)));
    }
    if (d->Height == 0) {
        if (!layered)
            return d->Depth == 0 && within(d->Width, mipmapped ? TEXTURE(1D_MIPMAPPED_WIDTH) : TEXTURE(1D_WIDTH)) &&
                   (!surface || within(d->Width, SURFACE(1D_WIDTH)));
        return d->Depth > 0 && within(d->Width, TEXTURE(1D_LAYERED_WIDTH)) &&
               within(d->Depth, TEXTURE(1D_LAYERED_LAYERS)) &&
               (!surface ||
                (within(d->Width, SURFACE(1D_LAYERED_WIDTH)) && within(d->Depth, SURFACE(1D_LAYERED_LAYERS))));
    }
    if (layered)
        return d->Depth > 0 && within(d->Width, TEXTURE(2D_LAYERED_WIDTH)) &&
               within(d->Height, TEXTURE(2D_LAYERED_HEIGHT)) && within(d->Depth, TEXTURE(2D_LAYERED_LAYERS)) &&
               (!surface ||
                (within(d->Width, SURFACE(2D_LAYERED_WIDTH)) && within(d->Height, SURFACE(2D_LAYERED_HEIGHT)) &&
                 within(d->Depth, SURFACE(2D_LAYERED_LAYERS))));
    if (d->Depth == 0) {
        if (d->Flags & CUDA_ARRAY3D_TEXTURE_GATHER)
            return within(d->Width, TEXTURE(2D_GATHER_WIDTH)) && within(d->Height, TEXTURE(2D_GATHER_HEIGHT));
        return within(d->Width, mipmapped ? TEXTURE(2D_MIPMAPPED_WIDTH) : TEXTURE(2D_WIDTH)) &&
               within(d->Height, mipmapped ? TEXTURE(2D_MIPMAPPED_HEIGHT) : TEXTURE(2D_HEIGHT)) &&
               (!surface || (within(d->Width, SURFACE(2D_WIDTH)) && within(d->Height, SURFACE(2D_HEIGHT))));
    }
    const bool normal = within(d->Width, TEXTURE(3D_WIDTH)) && within(d->Height, TEXTURE(3D_HEIGHT)) &&
                        within(d->Depth, TEXTURE(3D_DEPTH));
    const bool alternate = within(d->Width, TEXTURE(3D_WIDTH_ALTERNATE)) &&
                           within(d->Height, TEXTURE(3D_HEIGHT_ALTERNATE)) &&
                           within(d->Depth, TEXTURE(3D_DEPTH_ALTERNATE));
    return (normal || alternate) &&
           (!surface || (within(d->Width, SURFACE(3D_WIDTH)) && within(d->Height, SURFACE(3D_HEIGHT)) &&
                         within(d->Depth, SURFACE(3D_DEPTH))));
}

CUresult gv_array_check(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, bool mipmapped)
{
    const unsigned plain =
        CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_SURFACE_LDST | CUDA_ARRAY3D_CUBEMAP | CUDA_ARRAY3D_TEXTURE_GATHER;
    const unsigned special = CUDA_ARRAY3D_DEPTH_TEXTURE | CUDA_ARRAY3D_COLOR_ATTACHMENT | CUDA_ARRAY3D_SPARSE |
                             CUDA_ARRAY3D_DEFERRED_MAPPING | CUDA_ARRAY3D_VIDEO_ENCODE_DECODE;
    if (descriptor->Width == 0 || descriptor->Flags & ~(plain | special) || !extents_fit(descriptor, mipmapped))
        return CUDA_ERROR_INVALID_VALUE;
    if (descriptor->Flags & CUDA_ARRAY3D_TEXTURE_GATHER &&
        (descriptor->Height == 0 || descriptor->Depth != 0 || descriptor->Flags & CUDA_ARRAY3D_LAYERED))
        return CUDA_ERROR_INVALID_VALUE;
    if (descriptor->Flags & special)
        return CUDA_ERROR_NOT_SUPPORTED; /* the device attributes say so: sparse, deferred, graphics, video */
    if (descriptor->Format == CU_AD_FORMAT_NV12)
        return descriptor->NumChannels != 3 || descriptor->Height == 0 || descriptor->Depth != 0 || mipmapped ||
                       descriptor->Width % 2 != 0 || descriptor->Height % 2 != 0
                   ? CUDA_ERROR_INVALID_VALUE
                   : CUDA_SUCCESS;
    const struct format *format = format_of(descriptor->Format);
    if (format == NULL) /* compressed and video formats; what is no format at all has a number outside of theirs */
        return (unsigned)descriptor->Format >= 0x50 && (unsigned)descriptor->Format <= 0xb5 ? CUDA_ERROR_NOT_SUPPORTED
                                                                                            : CUDA_ERROR_INVALID_VALUE;
    const unsigned channels = descriptor->NumChannels;
    const bool right =
        format->channels != 0 ? channels == format->channels : channels == 1 || channels == 2 || channels == 4;
    return right ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
