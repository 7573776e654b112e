/* SPDX-License-Identifier: Apache-2.0
 *
 * cuStreamWaitValue*, cuStreamWriteValue*, cuStreamBatchMemOp.
 *
 * Anybody may write the word that a stream waits for: another stream, a kernel, the host, another process. So a waiter looks
 * again and again, at first at once, then less and less often (2 ms: no load to speak of); writes by streams of this process
 * wake it.
 */
#include "stream_values.h"
#include "fault.h"
#include "memory.h"
#include "stale.h"

#include <stdlib.h>
#include <string.h>

enum { LOOK_AT_FIRST_NS = 20000, LOOK_AT_LAST_NS = 2000000 };

static struct gv_gauge writes; /* by streams of this process; counts up */

/* Managed memory is refused, as documented; host memory that CUDA does not know is no device address. */
static CUresult check_address(CUdeviceptr address, size_t size)
{
    enum gv_region_kind kind;
    if (address == 0 || address % size != 0 || !gv_range_known(address, size, &kind) || gv_is_managed_kind(kind))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult check_one(const CUstreamBatchMemOpParams *o, bool old)
{
    switch (o->operation) {
    case CU_STREAM_MEM_OP_WAIT_VALUE_32:
    case CU_STREAM_MEM_OP_WAIT_VALUE_64:
        if (o->waitValue.flags & ~(unsigned)(CU_STREAM_WAIT_VALUE_NOR | CU_STREAM_WAIT_VALUE_FLUSH))
            return CUDA_ERROR_INVALID_VALUE;
        if (o->waitValue.flags & CU_STREAM_WAIT_VALUE_FLUSH)
            return CUDA_ERROR_NOT_SUPPORTED; /* CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES is 0 */
        return check_address(o->waitValue.address, o->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 ? 8 : 4);
    case CU_STREAM_MEM_OP_WRITE_VALUE_32:
    case CU_STREAM_MEM_OP_WRITE_VALUE_64:
        if (o->writeValue.flags & ~(old ? (unsigned)CU_STREAM_WRITE_VALUE_NO_MEMORY_BARRIER : 0u))
            return CUDA_ERROR_INVALID_VALUE; /* "not supported in the v2 API" */
        return check_address(o->writeValue.address, o->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64 ? 8 : 4);
    case CU_STREAM_MEM_OP_BARRIER:
        return old || o->memoryBarrier.flags > CU_STREAM_MEMORY_BARRIER_TYPE_GPU ? CUDA_ERROR_INVALID_VALUE
                                                                                 : CUDA_SUCCESS;
    case CU_STREAM_MEM_OP_ATOMIC_REDUCTION: {
        const bool wide = o->atomicReduction.dataType == CU_STREAM_ATOMIC_REDUCTION_UNSIGNED_64;
        const CUstreamAtomicReductionOpType reduction = o->atomicReduction.reductionOp;
        if (old || o->atomicReduction.flags != 0 ||
            (!wide && o->atomicReduction.dataType != CU_STREAM_ATOMIC_REDUCTION_UNSIGNED_32) ||
            (reduction != CU_STREAM_ATOMIC_REDUCTION_OP_OR && reduction != CU_STREAM_ATOMIC_REDUCTION_OP_AND &&
             reduction != CU_STREAM_ATOMIC_REDUCTION_OP_ADD))
            return CUDA_ERROR_INVALID_VALUE;
        return check_address(o->atomicReduction.address, wide ? 8 : 4);
    }
    case CU_STREAM_MEM_OP_FLUSH_REMOTE_WRITES:
        return o->flushRemoteWrites.flags != 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult gv_values_check(const CUstreamBatchMemOpParams *operations, unsigned count, bool old)
{
    if (operations == NULL || count == 0 || count > GV_VALUES_MOST)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++)
        GV_TRY(check_one(&operations[i], old));
    return CUDA_SUCCESS;
}

static bool holds(uint64_t now, uint64_t value, unsigned flags, bool wide)
{
    switch (flags & CU_STREAM_WAIT_VALUE_NOR) {
    case CU_STREAM_WAIT_VALUE_GEQ: /* cyclic */
        return wide ? (int64_t)(now - value) >= 0 : (int32_t)((uint32_t)now - (uint32_t)value) >= 0;
    case CU_STREAM_WAIT_VALUE_EQ:
        return now == value;
    case CU_STREAM_WAIT_VALUE_AND:
        return (now & value) != 0;
    default:
        return wide ? ~(now | value) != 0 : (uint32_t)~(now | value) != 0;
    }
}

static uint64_t load(CUdeviceptr address, bool wide)
{
    return wide ? __atomic_load_n((uint64_t *)address, __ATOMIC_ACQUIRE)
                : __atomic_load_n((uint32_t *)address, __ATOMIC_ACQUIRE);
}

static void store(CUdeviceptr address, uint64_t value, bool wide)
{
    if (wide)
        __atomic_store_n((uint64_t *)address, value, __ATOMIC_SEQ_CST);
    else
        __atomic_store_n((uint32_t *)address, (uint32_t)value, __ATOMIC_SEQ_CST);
}

static void reduce(const CUstreamBatchMemOpParams *o)
{
    const bool wide = o->atomicReduction.dataType == CU_STREAM_ATOMIC_REDUCTION_UNSIGNED_64;
    const uint64_t value = o->atomicReduction.value;
    uint64_t *word = (uint64_t *)o->atomicReduction.address;
    uint32_t *half = (uint32_t *)o->atomicReduction.address;
    switch (o->atomicReduction.reductionOp) {
    case CU_STREAM_ATOMIC_REDUCTION_OP_OR:
        wide ? (void)__atomic_fetch_or(word, value, __ATOMIC_SEQ_CST)
             : (void)__atomic_fetch_or(half, (uint32_t)value, __ATOMIC_SEQ_CST);
        break;
    case CU_STREAM_ATOMIC_REDUCTION_OP_AND:
        wide ? (void)__atomic_fetch_and(word, value, __ATOMIC_SEQ_CST)
             : (void)__atomic_fetch_and(half, (uint32_t)value, __ATOMIC_SEQ_CST);
        break;
    default:
        wide ? (void)__atomic_fetch_add(word, value, __ATOMIC_SEQ_CST)
             : (void)__atomic_fetch_add(half, (uint32_t)value, __ATOMIC_SEQ_CST);
        break;
    }
}

/* One look, write or reduction, with faults caught. */
static CUresult touch(const CUstreamBatchMemOpParams *o, bool *done)
{
    struct gv_fault_frame frame;
    const uintptr_t address =
        o->operation == CU_STREAM_MEM_OP_ATOMIC_REDUCTION ? o->atomicReduction.address : o->waitValue.address;
    gv_stale_look(address, sizeof(uint64_t));
    if (GV_CATCH_FAULT(&frame, address, address + 8) != 0) {
        gv_log_detail("memory operation of a stream touched %p: unmapped or without access", frame.address);
        return gv_fault_error(frame.signal);
    }
    const bool wide = o->operation == CU_STREAM_MEM_OP_WAIT_VALUE_64 || o->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64;
    if (o->operation == CU_STREAM_MEM_OP_ATOMIC_REDUCTION)
        reduce(o);
    else if (o->operation == CU_STREAM_MEM_OP_WRITE_VALUE_32 || o->operation == CU_STREAM_MEM_OP_WRITE_VALUE_64)
        store(o->writeValue.address, o->writeValue.value64, wide);
    else
        *done = holds(load(o->waitValue.address, wide), wide ? o->waitValue.value64 : o->waitValue.value,
                      o->waitValue.flags, wide);
    gv_fault_leave(&frame);
    return CUDA_SUCCESS;
}

static CUresult wait_for(const CUstreamBatchMemOpParams *o, struct gv_context *context)
{
    uint64_t pause_ns = LOOK_AT_FIRST_NS;
    for (;;) {
        const uint64_t seen = atomic_load(&writes.value);
        bool done = false;
        GV_TRY(touch(o, &done));
        if (done || !atomic_load(&context->alive) || atomic_load(&context->error) != CUDA_SUCCESS)
            return CUDA_SUCCESS;
        gv_gauge_wait_for(&writes, seen + 1, pause_ns);
        pause_ns = pause_ns * 3 / 2 < LOOK_AT_LAST_NS ? pause_ns * 3 / 2 : LOOK_AT_LAST_NS;
    }
}

CUresult gv_values_run(const CUstreamBatchMemOpParams *operations, unsigned count, struct gv_context *context)
{
    for (unsigned i = 0; i < count; i++) {
        const CUstreamBatchMemOpParams *o = &operations[i];
        bool done;
        switch (o->operation) {
        case CU_STREAM_MEM_OP_WAIT_VALUE_32:
        case CU_STREAM_MEM_OP_WAIT_VALUE_64:
            GV_TRY(wait_for(o, context));
            break;
        case CU_STREAM_MEM_OP_BARRIER:
            atomic_thread_fence(memory_order_seq_cst);
            break;
        default:
            GV_TRY(touch(o, &done));
            gv_gauge_advance(&writes, atomic_load(&writes.value) + 1); /* two at once may count as one: both wake */
            break;
        }
    }
    return CUDA_SUCCESS;
}

struct values_operation {
    struct gv_operation operation;
    unsigned count;
    CUstreamBatchMemOpParams values[];
};

static CUresult run_values(struct gv_operation *operation, struct gv_stream *stream)
{
    const struct values_operation *self = (const struct values_operation *)operation;
    return gv_values_run(self->values, self->count, stream->context);
}

static void describe_values(struct gv_operation *operation, CUgraphNodeParams *params)
{
    struct values_operation *self = (struct values_operation *)operation;
    params->memOp.ctx = gv_context_handle(operation->context);
    params->memOp.count = self->count;
    params->memOp.paramArray = self->values;
}

static const struct gv_operation_kind values_kind = {
    .node = CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, .work = true, .run = run_values, .describe = describe_values};

CUresult gv_values_make(const CUstreamBatchMemOpParams *operations, unsigned count, bool old,
                        struct gv_operation **operation)
{
    GV_TRY(gv_values_check(operations, count, old));
    struct values_operation *made = malloc(sizeof *made + count * sizeof *operations);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->operation.kind = &values_kind;
    made->count = count;
    memcpy(made->values, operations, count * sizeof *operations);
    *operation = &made->operation;
    return CUDA_SUCCESS;
}

static CUresult submit(CUstream hStream, unsigned count, const CUstreamBatchMemOpParams *operations, unsigned flags,
                       bool old)
{
    struct gv_operation *operation;
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_values_make(operations, count, old, &operation));
    return gv_stream_submit(stream, operation);
}

static CUresult write_value(CUstream stream, CUstreamBatchMemOpType type, CUdeviceptr address, cuuint64_t value,
                            unsigned flags, bool old)
{
    CUstreamBatchMemOpParams one;
    memset(&one, 0, sizeof one);
    one.writeValue.operation = type;
    one.writeValue.address = address;
    one.writeValue.value64 = value;
    one.writeValue.flags = flags;
    return submit(stream, 1, &one, 0, old);
}

static CUresult wait_value(CUstream stream, CUstreamBatchMemOpType type, CUdeviceptr address, cuuint64_t value,
                           unsigned flags, bool old)
{
    CUstreamBatchMemOpParams one;
    memset(&one, 0, sizeof one);
    one.waitValue.operation = type;
    one.waitValue.address = address;
    one.waitValue.value64 = value;
    one.waitValue.flags = flags;
    return submit(stream, 1, &one, 0, old);
}

#define VERSION(suffix, old)                                                                                           \
    GV_EXPORT CUresult cuStreamWriteValue32##suffix(CUstream stream, CUdeviceptr addr, cuuint32_t value,               \
                                                    unsigned int flags)                                                \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return write_value(stream, CU_STREAM_MEM_OP_WRITE_VALUE_32, addr, value, flags, old);                          \
    }                                                                                                                  \
    GV_EXPORT CUresult cuStreamWriteValue64##suffix(CUstream stream, CUdeviceptr addr, cuuint64_t value,               \
                                                    unsigned int flags)                                                \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return write_value(stream, CU_STREAM_MEM_OP_WRITE_VALUE_64, addr, value, flags, old);                          \
    }                                                                                                                  \
    GV_EXPORT CUresult cuStreamWaitValue32##suffix(CUstream stream, CUdeviceptr addr, cuuint32_t value,                \
                                                   unsigned int flags)                                                 \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return wait_value(stream, CU_STREAM_MEM_OP_WAIT_VALUE_32, addr, value, flags, old);                            \
    }                                                                                                                  \
    GV_EXPORT CUresult cuStreamWaitValue64##suffix(CUstream stream, CUdeviceptr addr, cuuint64_t value,                \
                                                   unsigned int flags)                                                 \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return wait_value(stream, CU_STREAM_MEM_OP_WAIT_VALUE_64, addr, value, flags, old);                            \
    }                                                                                                                  \
    GV_EXPORT CUresult cuStreamBatchMemOp##suffix(CUstream stream, unsigned int count,                                 \
                                                  CUstreamBatchMemOpParams *paramArray, unsigned int flags)            \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return submit(stream, count, paramArray, flags, old);                                                          \
    }

VERSION(, true)
VERSION(_v2, false)
