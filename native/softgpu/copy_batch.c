/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemcpyBatchAsync, cuMemcpy3DBatchAsync and single copies with attributes. A batch is checked as a whole before its first
 * copy is submitted; copies run one after the other, which is one of the orders that are allowed.
 */
#include "array.h"
#include "copy.h"

#include <string.h>

/* Where a failure is reported that has nothing to do with one of the copies. */
#define NO_INDEX SIZE_MAX

static CUresult batch_stream(CUstream hStream, struct gv_stream **stream)
{
    GV_TRY(gv_stream_of(hStream, stream));
    return (*stream)->flags & GV_STREAM_LEGACY ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS; /* as documented */
}

static CUresult check_order(CUmemcpySrcAccessOrder order, unsigned flags)
{
    if (order != CU_MEMCPY_SRC_ACCESS_ORDER_STREAM && order != CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL &&
        order != CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
        return CUDA_ERROR_INVALID_VALUE;
    return flags & ~(unsigned)CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

static CUresult linear(struct gv_copy *copy, CUdeviceptr to, CUdeviceptr from, size_t bytes,
                       CUmemcpySrcAccessOrder order)
{
    if (to == 0 || from == 0)
        return CUDA_ERROR_INVALID_VALUE;
    memset(copy, 0, sizeof *copy);
    if (bytes > 0)
        GV_TRY(gv_copy_linear(copy, to, from, bytes, true, true));
    copy->read_now = order == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
    return CUDA_SUCCESS;
}

struct batch {
    const CUdeviceptr *to, *from;
    const size_t *bytes;
    size_t count;
    const CUmemcpyAttributes *attributes;
    const size_t *first; /* copy that an entry of `attributes` applies to */
    size_t attribute_count;
};

static CUresult check_attributes(const struct batch *b)
{
    if (b->to == NULL || b->from == NULL || b->bytes == NULL || b->count == 0 || b->attributes == NULL ||
        b->first == NULL || b->attribute_count == 0 || b->attribute_count > b->count || b->first[0] != 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t k = 0; k < b->attribute_count; k++) {
        if (b->first[k] >= b->count || (k > 0 && b->first[k] <= b->first[k - 1]))
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(check_order(b->attributes[k].srcAccessOrder, b->attributes[k].flags));
    }
    return CUDA_SUCCESS;
}

/* Goes through the batch twice: checks all, then submits all. */
static CUresult batch_pass(const struct batch *b, struct gv_stream *stream, bool submit, size_t *failed)
{
    for (size_t i = 0, k = 0; i < b->count; i++) {
        struct gv_copy copy;
        while (k + 1 < b->attribute_count && b->first[k + 1] <= i)
            k++;
        CUresult result = linear(&copy, b->to[i], b->from[i], b->bytes[i], b->attributes[k].srcAccessOrder);
        if (result == CUDA_SUCCESS && submit)
            result = gv_copy_submit(&copy, stream, false);
        if (result != CUDA_SUCCESS) {
            *failed = i;
            return result;
        }
    }
    return CUDA_SUCCESS;
}

static CUresult run_batch(const struct batch *b, CUstream hStream, size_t *failed)
{
    struct gv_stream *stream;
    *failed = NO_INDEX;
    GV_TRY(batch_stream(hStream, &stream));
    GV_TRY(check_attributes(b));
    GV_TRY(batch_pass(b, stream, false, failed));
    return batch_pass(b, stream, true, failed);
}

GV_EXPORT CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                         CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs,
                                         CUstream hStream)
{
    GV_ENTER();
    size_t failed;
    return run_batch(&(struct batch){dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs}, hStream, &failed);
}

GV_EXPORT CUresult cuMemcpyBatchAsync(CUdeviceptr *dsts, CUdeviceptr *srcs, size_t *sizes, size_t count,
                                      CUmemcpyAttributes *attrs, size_t *attrsIdxs, size_t numAttrs, size_t *failIdx,
                                      CUstream hStream)
{
    GV_ENTER();
    size_t failed;
    const CUresult result =
        run_batch(&(struct batch){dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs}, hStream, &failed);
    if (result != CUDA_SUCCESS && failIdx != NULL)
        *failIdx = failed;
    return result;
}

GV_EXPORT CUresult cuMemcpyWithAttributesAsync(CUdeviceptr dst, CUdeviceptr src, size_t size, CUmemcpyAttributes *attr,
                                               CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    struct gv_copy copy;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (attr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check_order(attr->srcAccessOrder, attr->flags));
    GV_TRY(linear(&copy, dst, src, size, attr->srcAccessOrder));
    return gv_copy_submit(&copy, stream, false);
}

/* Sizes are in elements: those of the array, or bytes between two pointers. */
static CUresult element_of(const CUDA_MEMCPY3D_BATCH_OP *op, size_t *element)
{
    const CUmemcpy3DOperand *operands[2] = {&op->src, &op->dst};
    *element = 0;
    for (int i = 0; i < 2; i++) {
        if (operands[i]->type == CU_MEMCPY_OPERAND_TYPE_POINTER)
            continue;
        const struct gv_array *array = gv_array_of(operands[i]->op.array.array);
        if (operands[i]->type != CU_MEMCPY_OPERAND_TYPE_ARRAY || array == NULL || array->element == 0 ||
            (*element != 0 && *element != array->element))
            return CUDA_ERROR_INVALID_VALUE;
        *element = array->element;
    }
    if (*element == 0)
        *element = 1;
    return CUDA_SUCCESS;
}

static CUresult check_pointer(const CUmemcpy3DOperand *operand, const CUextent3D *extent)
{
    if (operand->type != CU_MEMCPY_OPERAND_TYPE_POINTER)
        return CUDA_SUCCESS;
    const size_t row = operand->op.ptr.rowLength, height = operand->op.ptr.layerHeight;
    return operand->op.ptr.ptr == 0 || (row != 0 && row < extent->width) || (height != 0 && height < extent->height)
               ? CUDA_ERROR_INVALID_VALUE
               : CUDA_SUCCESS;
}

static CUresult solid(struct gv_copy *copy, const CUDA_MEMCPY3D_BATCH_OP *op)
{
    const CUextent3D *extent = &op->extent;
    size_t element;
    if (extent->width == 0 || extent->height == 0 || extent->depth == 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check_order(op->srcAccessOrder, op->flags));
    GV_TRY(element_of(op, &element));
    GV_TRY(check_pointer(&op->src, extent));
    GV_TRY(check_pointer(&op->dst, extent));
    CUDA_MEMCPY3D all;
    memset(&all, 0, sizeof all);
    if (__builtin_mul_overflow(extent->width, element, &all.WidthInBytes))
        return CUDA_ERROR_INVALID_VALUE;
    all.Height = extent->height;
    all.Depth = extent->depth;
    if (op->src.type == CU_MEMCPY_OPERAND_TYPE_POINTER) {
        all.srcMemoryType = CU_MEMORYTYPE_UNIFIED;
        all.srcDevice = op->src.op.ptr.ptr;
        all.srcPitch = op->src.op.ptr.rowLength * element;
        all.srcHeight = op->src.op.ptr.layerHeight;
    } else {
        all.srcMemoryType = CU_MEMORYTYPE_ARRAY;
        all.srcArray = op->src.op.array.array;
        all.srcXInBytes = op->src.op.array.offset.x * element;
        all.srcY = op->src.op.array.offset.y;
        all.srcZ = op->src.op.array.offset.z;
    }
    if (op->dst.type == CU_MEMCPY_OPERAND_TYPE_POINTER) {
        all.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
        all.dstDevice = op->dst.op.ptr.ptr;
        all.dstPitch = op->dst.op.ptr.rowLength * element;
        all.dstHeight = op->dst.op.ptr.layerHeight;
    } else {
        all.dstMemoryType = CU_MEMORYTYPE_ARRAY;
        all.dstArray = op->dst.op.array.array;
        all.dstXInBytes = op->dst.op.array.offset.x * element;
        all.dstY = op->dst.op.array.offset.y;
        all.dstZ = op->dst.op.array.offset.z;
    }
    GV_TRY(gv_copy_of_3d(copy, &all));
    copy->read_now = op->srcAccessOrder == CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL;
    return CUDA_SUCCESS;
}

static CUresult solid_pass(const CUDA_MEMCPY3D_BATCH_OP *list, size_t count, struct gv_stream *stream, bool submit,
                           size_t *failed)
{
    for (size_t i = 0; i < count; i++) {
        struct gv_copy copy;
        CUresult result = solid(&copy, &list[i]);
        if (result == CUDA_SUCCESS && submit)
            result = gv_copy_submit(&copy, stream, false);
        if (result != CUDA_SUCCESS) {
            *failed = i;
            return result;
        }
    }
    return CUDA_SUCCESS;
}

static CUresult run_solid_batch(size_t numOps, const CUDA_MEMCPY3D_BATCH_OP *opList, unsigned long long flags,
                                CUstream hStream, size_t *failed)
{
    struct gv_stream *stream;
    *failed = NO_INDEX;
    GV_TRY(batch_stream(hStream, &stream));
    if (numOps == 0 || opList == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(solid_pass(opList, numOps, stream, false, failed));
    return solid_pass(opList, numOps, stream, true, failed);
}

GV_EXPORT CUresult cuMemcpy3DBatchAsync_v2(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, unsigned long long flags,
                                           CUstream hStream)
{
    GV_ENTER();
    size_t failed;
    return run_solid_batch(numOps, opList, flags, hStream, &failed);
}

GV_EXPORT CUresult cuMemcpy3DBatchAsync(size_t numOps, CUDA_MEMCPY3D_BATCH_OP *opList, size_t *failIdx,
                                        unsigned long long flags, CUstream hStream)
{
    GV_ENTER();
    size_t failed;
    const CUresult result = run_solid_batch(numOps, opList, flags, hStream, &failed);
    if (result != CUDA_SUCCESS && failIdx != NULL)
        *failIdx = failed;
    return result;
}

GV_EXPORT CUresult cuMemcpy3DWithAttributesAsync(CUDA_MEMCPY3D_BATCH_OP *op, unsigned long long flags, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    struct gv_copy copy;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (op == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(solid(&copy, op));
    return gv_copy_submit(&copy, stream, false);
}
