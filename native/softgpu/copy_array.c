/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemcpyAto*, cuMemcpy*toA: runs of bytes of one-dimensional arrays, or of the first row of others.
 */
#include "array.h"
#include "copy.h"

struct end {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
    CUarray array;
    size_t offset; /* bytes, into the array */
};

static CUresult copy_run(struct end to, struct end from, size_t bytes, CUstream hStream, bool wait)
{
    struct gv_stream *stream;
    struct gv_copy copy;
    GV_TRY(gv_stream_of(hStream, &stream));
    if ((to.type == CU_MEMORYTYPE_ARRAY && gv_array_of(to.array) == NULL) ||
        (from.type == CU_MEMORYTYPE_ARRAY && gv_array_of(from.array) == NULL))
        return CUDA_ERROR_INVALID_HANDLE;
    const CUDA_MEMCPY3D all = {.srcMemoryType = from.type,
                               .srcHost = from.host,
                               .srcDevice = from.device,
                               .srcArray = from.array,
                               .srcXInBytes = from.offset,
                               .dstMemoryType = to.type,
                               .dstHost = (void *)to.host,
                               .dstDevice = to.device,
                               .dstArray = to.array,
                               .dstXInBytes = to.offset,
                               .WidthInBytes = bytes,
                               .Height = 1,
                               .Depth = 1};
    GV_TRY(gv_copy_of_3d(&copy, &all));
    return gv_copy_submit(&copy, stream, wait);
}

static struct end host_end(const void *host) { return (struct end){.type = CU_MEMORYTYPE_HOST, .host = host}; }
static struct end device_end(CUdeviceptr device)
{
    return (struct end){.type = CU_MEMORYTYPE_DEVICE, .device = device};
}
static struct end array_end(CUarray array, size_t offset)
{
    return (struct end){.type = CU_MEMORYTYPE_ARRAY, .array = array, .offset = offset};
}

GV_EXPORT CUresult cuMemcpyDtoA_v2(CUarray dstArray, size_t dstOffset, CUdeviceptr srcDevice, size_t ByteCount)
{
    GV_ENTER();
    return copy_run(array_end(dstArray, dstOffset), device_end(srcDevice), ByteCount, NULL, true);
}

GV_EXPORT CUresult cuMemcpyAtoD_v2(CUdeviceptr dstDevice, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
    GV_ENTER();
    return copy_run(device_end(dstDevice), array_end(srcArray, srcOffset), ByteCount, NULL, true);
}

GV_EXPORT CUresult cuMemcpyHtoA_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount)
{
    GV_ENTER();
    return copy_run(array_end(dstArray, dstOffset), host_end(srcHost), ByteCount, NULL, true);
}

GV_EXPORT CUresult cuMemcpyAtoH_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount)
{
    GV_ENTER();
    return copy_run(host_end(dstHost), array_end(srcArray, srcOffset), ByteCount, NULL, true);
}

GV_EXPORT CUresult cuMemcpyAtoA_v2(CUarray dstArray, size_t dstOffset, CUarray srcArray, size_t srcOffset,
                                   size_t ByteCount)
{
    GV_ENTER();
    return copy_run(array_end(dstArray, dstOffset), array_end(srcArray, srcOffset), ByteCount, NULL, true);
}

GV_EXPORT CUresult cuMemcpyHtoAAsync_v2(CUarray dstArray, size_t dstOffset, const void *srcHost, size_t ByteCount,
                                        CUstream hStream)
{
    GV_ENTER();
    return copy_run(array_end(dstArray, dstOffset), host_end(srcHost), ByteCount, hStream, false);
}

GV_EXPORT CUresult cuMemcpyAtoHAsync_v2(void *dstHost, CUarray srcArray, size_t srcOffset, size_t ByteCount,
                                        CUstream hStream)
{
    GV_ENTER();
    return copy_run(host_end(dstHost), array_end(srcArray, srcOffset), ByteCount, hStream, false);
}
