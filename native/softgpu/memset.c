/* SPDX-License-Identifier: Apache-2.0
 *
 * cuMemset*: asynchronous to the host, as on a device; but the calls without a stream wait where the host could look, in
 * pinned and managed memory ("API synchronization behavior" of the driver's manual).
 */
#include "fault.h"
#include "memory.h"
#include "past_cache.h"
#include "stale.h"
#include "stream.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct fill_operation {
    struct gv_operation operation;
    uint8_t *to;
    uint32_t value;
    unsigned unit;               /* 1, 2, 4 bytes */
    size_t width, height, pitch; /* units, rows, bytes */
};

/*
 * Zeros where nothing was ever written: a device does that at the speed of its memory, here each page would have to be found,
 * cleared and mapped first. The file behind the range has nothing there (or has it in the swap space), so it is told to have
 * nothing. Each mapping is written to once before: it may not be there, or not be writable. False: not done.
 */
static bool clear_untouched(uint8_t *to, size_t bytes)
{
    enum { PIECE = 1 << 21, PAGE = 4096, PAGES = PIECE / PAGE };
    if (bytes % PIECE != 0 || (uintptr_t)to % PIECE != 0)
        return false;
    for (size_t at = 0; at < bytes; at += PIECE) {
        unsigned char there[PAGES];
        if (mincore(to + at, PIECE, there) != 0 || memchr(there, 1, PAGES) != NULL)
            gv_clear_past_cache(to + at, PIECE);
        else {
            *(volatile uint8_t *)(to + at) = 0;
            if (madvise(to + at, PIECE, MADV_REMOVE) != 0)
                memset(to + at, 0, PIECE);
        }
    }
    return true;
}

static void fill_row(uint8_t *to, const struct fill_operation *fill)
{
    if (fill->value == 0 && clear_untouched(to, fill->width * fill->unit))
        return;
    if (fill->unit == 1) {
        memset(to, (int)fill->value, fill->width);
    } else if (fill->unit == 2) {
        uint16_t *row = (uint16_t *)to;
        for (size_t i = 0; i < fill->width; i++)
            row[i] = (uint16_t)fill->value;
    } else {
        uint32_t *row = (uint32_t *)to;
        for (size_t i = 0; i < fill->width; i++)
            row[i] = fill->value;
    }
}

static CUresult run_fill(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    struct fill_operation *fill = (struct fill_operation *)operation;
    struct gv_fault_frame frame;
    const uintptr_t low = (uintptr_t)fill->to;
    const size_t row = fill->width * fill->unit;
    if (fill->height == 1)
        gv_stale_overwrite(low, row);
    else
        gv_stale_look(low, (fill->height - 1) * fill->pitch + row);
    if (GV_CATCH_FAULT(&frame, low, low + (fill->height - 1) * fill->pitch + row) == 0) {
        for (size_t y = 0; y < fill->height; y++)
            fill_row(fill->to + y * fill->pitch, fill);
        gv_fault_leave(&frame);
        return CUDA_SUCCESS;
    }
    gv_log_detail("memset touched %p: unmapped or without access", frame.address);
    return gv_fault_error(frame.signal);
}

static void describe_fill(struct gv_operation *operation, CUgraphNodeParams *params)
{
    const struct fill_operation *fill = (struct fill_operation *)operation;
    params->memset = (CUDA_MEMSET_NODE_PARAMS_v2){
        .dst = (CUdeviceptr)fill->to,
        .pitch = fill->pitch,
        .value = fill->value,
        .elementSize = fill->unit,
        .width = fill->width,
        .height = fill->height,
        .ctx = gv_context_handle(operation->context),
    };
}

static const struct gv_operation_kind fill_kind = {
    .node = CU_GRAPH_NODE_TYPE_MEMSET, .work = true, .run = run_fill, .describe = describe_fill};

CUresult gv_fill_make(const CUDA_MEMSET_NODE_PARAMS_v2 *fill, struct gv_operation **operation)
{
    const unsigned unit = fill->elementSize;
    if (unit != 1 && unit != 2 && unit != 4)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t row, bytes;
    if (__builtin_mul_overflow(fill->width, unit, &row) || !gv_span(row, fill->height, fill->pitch, 1, 0, &bytes))
        return CUDA_ERROR_INVALID_VALUE;
    if (fill->dst % unit != 0 || (fill->height > 1 && (fill->pitch % unit != 0 || fill->pitch < row)))
        return CUDA_ERROR_INVALID_VALUE;
    if (!gv_range_known(fill->dst, bytes, NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct fill_operation *made = malloc(sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->operation.kind = &fill_kind;
    made->to = (uint8_t *)fill->dst;
    made->value = fill->value;
    made->unit = unit;
    made->width = fill->width;
    made->height = fill->height;
    made->pitch = fill->pitch;
    *operation = &made->operation;
    return CUDA_SUCCESS;
}

static CUresult fill(CUdeviceptr to, size_t pitch, uint32_t value, unsigned unit, size_t width, size_t height,
                     CUstream hStream, bool asynchronous)
{
    struct gv_stream *stream;
    struct gv_operation *operation;
    enum gv_region_kind kind;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (width == 0 || height == 0)
        return CUDA_SUCCESS;
    const CUDA_MEMSET_NODE_PARAMS_v2 params = {to, pitch, value, unit, width, height, NULL};
    GV_TRY(gv_fill_make(&params, &operation));
    const bool known = gv_range_known(to, 1, &kind);
    GV_TRY(gv_stream_submit(stream, operation));
    if (asynchronous || !known ||
        !(gv_is_host_kind(kind) || gv_is_managed_kind(kind) || gv_always_waits(stream->context, to)))
        return CUDA_SUCCESS;
    gv_stream_wait(stream);
    return gv_context_state(stream->context);
}

#define LINEAR(bits, type, name)                                                                                       \
    GV_EXPORT CUresult cuMemsetD##bits##_v2(CUdeviceptr dstDevice, type name, size_t N)                                \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return fill(dstDevice, 0, name, bits / 8, N, 1, NULL, false);                                                  \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemsetD##bits##Async(CUdeviceptr dstDevice, type name, size_t N, CUstream hStream)            \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return fill(dstDevice, 0, name, bits / 8, N, 1, hStream, true);                                                \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemsetD2D##bits##_v2(CUdeviceptr dstDevice, size_t dstPitch, type name, size_t Width,         \
                                              size_t Height)                                                           \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return fill(dstDevice, dstPitch, name, bits / 8, Width, Height, NULL, false);                                  \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemsetD2D##bits##Async(CUdeviceptr dstDevice, size_t dstPitch, type name, size_t Width,       \
                                                size_t Height, CUstream hStream)                                       \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        return fill(dstDevice, dstPitch, name, bits / 8, Width, Height, hStream, true);                                \
    }

LINEAR(8, unsigned char, uc)
LINEAR(16, unsigned short, us)
LINEAR(32, unsigned int, ui)
