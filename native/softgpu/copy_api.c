/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemcpy*: plain, 2-D, 3-D, peer. Arrays are not supported.
 */
#include "copy.h"

#include <string.h>

static CUresult linear(CUdeviceptr to, CUdeviceptr from, size_t bytes, bool to_host, bool from_host, CUstream hStream,
                       bool wait)
{
    struct gv_stream *stream;
    struct gv_copy copy;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (bytes == 0)
        return CUDA_SUCCESS;
    GV_TRY(gv_copy_linear(&copy, to, from, bytes, to_host, from_host));
    return gv_copy_submit(&copy, stream, wait);
}

GV_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount)
{
    return linear(dstDevice, (CUdeviceptr)srcHost, ByteCount, false, true, NULL, true);
}

GV_EXPORT CUresult cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
    return linear((CUdeviceptr)dstHost, srcDevice, ByteCount, true, false, NULL, true);
}

GV_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)
{
    return linear(dstDevice, srcDevice, ByteCount, false, false, NULL, true);
}

/* Unified addressing: what CUDA does not know is host memory. */
GV_EXPORT CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
    return linear(dst, src, ByteCount, true, true, NULL, true);
}

GV_EXPORT CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
    return linear(dst, src, ByteCount, true, true, hStream, false);
}

GV_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
    return linear(dstDevice, (CUdeviceptr)srcHost, ByteCount, false, true, hStream, false);
}

GV_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
    return linear((CUdeviceptr)dstHost, srcDevice, ByteCount, true, false, hStream, false);
}

GV_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount,
                                        CUstream hStream)
{
    return linear(dstDevice, srcDevice, ByteCount, false, false, hStream, false);
}

GV_EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                                     CUcontext srcContext, size_t ByteCount, CUstream hStream)
{
    GV_ENTER();
    if (gv_context_of(dstContext) == NULL || gv_context_of(srcContext) == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    return linear(dstDevice, srcDevice, ByteCount, false, false, hStream, false);
}

GV_EXPORT CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                                CUcontext srcContext, size_t ByteCount)
{
    return cuMemcpyPeerAsync(dstDevice, dstContext, srcDevice, srcContext, ByteCount, NULL);
}

/* One side of a 2-D or 3-D copy. */
static CUresult side(CUmemorytype type, const void *host, CUdeviceptr device, size_t offset, uint8_t **address,
                     bool *is_host)
{
    switch (type) {
    case CU_MEMORYTYPE_HOST:
        *address = (uint8_t *)host + offset;
        break;
    case CU_MEMORYTYPE_DEVICE:
    case CU_MEMORYTYPE_UNIFIED:
        *address = (uint8_t *)device + offset;
        break;
    case CU_MEMORYTYPE_ARRAY:
        return CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    *is_host = type != CU_MEMORYTYPE_DEVICE;
    return CUDA_SUCCESS;
}

static CUresult copy_3d(const CUDA_MEMCPY3D *p, CUstream hStream, bool wait)
{
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (p == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_copy copy;
    memset(&copy, 0, sizeof copy);
    copy.width = p->WidthInBytes;
    copy.height = p->Height;
    copy.depth = p->Depth;
    copy.from_pitch = p->srcPitch != 0 ? p->srcPitch : p->WidthInBytes + p->srcXInBytes;
    copy.to_pitch = p->dstPitch != 0 ? p->dstPitch : p->WidthInBytes + p->dstXInBytes;
    copy.from_slice = copy.from_pitch * (p->srcHeight != 0 ? p->srcHeight : p->Height + p->srcY);
    copy.to_slice = copy.to_pitch * (p->dstHeight != 0 ? p->dstHeight : p->Height + p->dstY);
    if (copy.width == 0 || copy.height == 0 || copy.depth == 0)
        return CUDA_SUCCESS;
    if (copy.from_pitch < p->WidthInBytes + p->srcXInBytes || copy.to_pitch < p->WidthInBytes + p->dstXInBytes)
        return CUDA_ERROR_INVALID_VALUE;
    bool to_host, from_host;
    uint8_t *from;
    GV_TRY(side(p->srcMemoryType, p->srcHost, p->srcDevice,
                p->srcZ * copy.from_slice + p->srcY * copy.from_pitch + p->srcXInBytes, &from, &from_host));
    GV_TRY(side(p->dstMemoryType, p->dstHost, p->dstDevice,
                p->dstZ * copy.to_slice + p->dstY * copy.to_pitch + p->dstXInBytes, &copy.to, &to_host));
    copy.from = from;
    GV_TRY(gv_copy_classify(&copy, to_host, from_host));
    return gv_copy_submit(&copy, stream, wait);
}

static CUresult copy_2d(const CUDA_MEMCPY2D *p, CUstream hStream, bool wait)
{
    GV_ENTER();
    if (p == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUDA_MEMCPY3D all;
    memset(&all, 0, sizeof all);
    all.srcXInBytes = p->srcXInBytes;
    all.srcY = p->srcY;
    all.srcMemoryType = p->srcMemoryType;
    all.srcHost = p->srcHost;
    all.srcDevice = p->srcDevice;
    all.srcPitch = p->srcPitch;
    all.dstXInBytes = p->dstXInBytes;
    all.dstY = p->dstY;
    all.dstMemoryType = p->dstMemoryType;
    all.dstHost = p->dstHost;
    all.dstDevice = p->dstDevice;
    all.dstPitch = p->dstPitch;
    all.WidthInBytes = p->WidthInBytes;
    all.Height = p->Height;
    all.Depth = 1;
    return copy_3d(&all, hStream, wait);
}

GV_EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *pCopy) { return copy_2d(pCopy, NULL, true); }
GV_EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy) { return copy_2d(pCopy, NULL, true); }
GV_EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *pCopy, CUstream hStream)
{
    return copy_2d(pCopy, hStream, false);
}
GV_EXPORT CUresult cuMemcpy3D_v2(const CUDA_MEMCPY3D *pCopy) { return copy_3d(pCopy, NULL, true); }
GV_EXPORT CUresult cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *pCopy, CUstream hStream)
{
    return copy_3d(pCopy, hStream, false);
}
