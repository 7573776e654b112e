/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemcpy* of plain ranges. 2-D and 3-D are in copy_3d.c, 1-D with arrays in copy_array.c, batches in copy_batch.c.
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
    GV_ENTER();
    return linear(dstDevice, (CUdeviceptr)srcHost, ByteCount, false, true, NULL, true);
}

GV_EXPORT CUresult cuMemcpyDtoH_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount)
{
    GV_ENTER();
    return linear((CUdeviceptr)dstHost, srcDevice, ByteCount, true, false, NULL, true);
}

GV_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount)
{
    GV_ENTER();
    return linear(dstDevice, srcDevice, ByteCount, false, false, NULL, true);
}

/* Unified addressing: what CUDA does not know is host memory. */
GV_EXPORT CUresult cuMemcpy(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount)
{
    GV_ENTER();
    return linear(dst, src, ByteCount, true, true, NULL, true);
}

GV_EXPORT CUresult cuMemcpyAsync(CUdeviceptr dst, CUdeviceptr src, size_t ByteCount, CUstream hStream)
{
    GV_ENTER();
    return linear(dst, src, ByteCount, true, true, hStream, false);
}

GV_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr dstDevice, const void *srcHost, size_t ByteCount, CUstream hStream)
{
    GV_ENTER();
    return linear(dstDevice, (CUdeviceptr)srcHost, ByteCount, false, true, hStream, false);
}

GV_EXPORT CUresult cuMemcpyDtoHAsync_v2(void *dstHost, CUdeviceptr srcDevice, size_t ByteCount, CUstream hStream)
{
    GV_ENTER();
    return linear((CUdeviceptr)dstHost, srcDevice, ByteCount, true, false, hStream, false);
}

GV_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr dstDevice, CUdeviceptr srcDevice, size_t ByteCount,
                                        CUstream hStream)
{
    GV_ENTER();
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

/* Documented: serialised with all pending and future work of the three contexts. A real driver does that on the devices, and
 * returns; ours waits before and after. */
void gv_copy_settle(CUcontext to, CUcontext from)
{
    gv_streams_wait(gv_context_of(to));
    if (from != to)
        gv_streams_wait(gv_context_of(from));
}

GV_EXPORT CUresult cuMemcpyPeer(CUdeviceptr dstDevice, CUcontext dstContext, CUdeviceptr srcDevice,
                                CUcontext srcContext, size_t ByteCount)
{
    GV_ENTER();
    if (gv_context_of(dstContext) == NULL || gv_context_of(srcContext) == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    gv_copy_settle(dstContext, srcContext);
    GV_TRY(linear(dstDevice, srcDevice, ByteCount, false, false, NULL, false));
    GV_NEED_CONTEXT(context);
    return gv_context_synchronise(context);
}
