/* SPDX-License-Identifier: Apache-2.0
 *
 * How bytes move. Semantics of pageable memory as documented: a copy from it has read the source when the call returns, a copy
 * to it has ended when the call returns.
 */
#include "copy.h"
#include "capture.h"
#include "driver_faults.h"
#include "fault.h"
#include "memory.h"
#include "model.h"
#include "past_cache.h"
#include "stale.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 1 << 20, STAGED_AT_MOST = 1 << 20, AHEAD_AT_MOST_NS = 200000 };

static void count(int device, enum gv_direction direction, uint64_t bytes)
{
    struct gv_board_account *account = gv_board_account(device);
    uint64_t *counter = direction == GV_TO_DEVICE     ? &account->to_device
                        : direction == GV_FROM_DEVICE ? &account->from_device
                                                      : &account->on_device;
    __atomic_fetch_add(counter, bytes, __ATOMIC_RELAXED);
    if (direction <= GV_FROM_DEVICE)
        gv_model_count_link(gv_board_device(device), (int)direction, bytes);
}

static const char *const places[] = {"copy.to_device", "copy.from_device", "copy.on_device"}; /* by direction */

/* As memmove. `past_cache`: a lot of memory is written, here or in this call. */
static void move(uint8_t *to, const uint8_t *from, size_t bytes, bool past_cache)
{
    const uintptr_t distance = to > from ? (uintptr_t)(to - from) : (uintptr_t)(from - to);
    if (past_cache && distance >= bytes)
        gv_copy_past_cache(to, from, bytes);
    else
        memmove(to, from, bytes);
}

/* `arrival`: of the last chunk on the modelled link that this one follows, 0: none. The copy waits when it is well ahead. */
static CUresult move_row(const struct gv_copy *copy, int device, uint8_t *to, const uint8_t *from, size_t bytes,
                         uint64_t *arrival)
{
    const bool past_cache = bytes >= GV_PAST_CACHE_AT;
    const bool modelled = copy->direction <= GV_FROM_DEVICE && gv_model_of(device)->link_mb_s[copy->direction] != 0;
    if (!modelled && __builtin_expect(gv_armed() == 0, 1)) {
        move(to, from, bytes, past_cache);
        return CUDA_SUCCESS;
    }
    for (size_t done = 0; done < bytes; done += CHUNK) {
        const size_t part = bytes - done < CHUNK ? bytes - done : CHUNK;
        bool corrupt = false;
        if (gv_armed() != 0 && copy->direction <= GV_ON_DEVICE)
            GV_TRY(gv_inject_copy(places[copy->direction], device, part, &corrupt));
        if (modelled)
            *arrival =
                gv_model_link(device, (int)copy->direction, copy->to_pageable || copy->from_pageable, part, *arrival);
        move(to + done, from + done, part, past_cache);
        if (corrupt)
            to[done] ^= 1;
        if (modelled && *arrival > gv_board_now_ns() + AHEAD_AT_MOST_NS)
            gv_model_sleep_until(*arrival);
    }
    return CUDA_SUCCESS;
}

static uint64_t span(const struct gv_copy *copy, size_t pitch, size_t slice)
{
    return copy->width + (copy->height - 1) * pitch + (copy->depth - 1) * slice;
}

static void settle_stale(const struct gv_copy *copy)
{
    if (copy->from_device)
        gv_stale_look((uint64_t)copy->from, span(copy, copy->from_pitch, copy->from_slice));
    if (copy->to_device && copy->height * copy->depth == 1)
        gv_stale_overwrite((uint64_t)copy->to, copy->width);
    else if (copy->to_device)
        gv_stale_look((uint64_t)copy->to, span(copy, copy->to_pitch, copy->to_slice));
}

/* `after`: when the copy before it arrived, if this one was queued behind it; else 0. */
static CUresult perform(const struct gv_copy *copy, struct gv_context *context, uint64_t after)
{
    settle_stale(copy);
    struct gv_fault_frame frame;
    const uintptr_t to = (uintptr_t)copy->to, from = (uintptr_t)copy->from;
    if (GV_CATCH_FAULT(&frame, copy->to_device ? to : 0,
                       copy->to_device ? to + span(copy, copy->to_pitch, copy->to_slice) : 0) == 0) {
        if (copy->from_device) {
            frame.also_low = from;
            frame.also_high = from + span(copy, copy->from_pitch, copy->from_slice);
        }
        CUresult result = CUDA_SUCCESS;
        uint64_t arrival = after;
        for (size_t z = 0; z < copy->depth && result == CUDA_SUCCESS; z++)
            for (size_t y = 0; y < copy->height && result == CUDA_SUCCESS; y++)
                result = move_row(copy, context->device, copy->to + z * copy->to_slice + y * copy->to_pitch,
                                  copy->from + z * copy->from_slice + y * copy->from_pitch, copy->width, &arrival);
        if (arrival != after)
            gv_model_sleep_until(arrival);
        gv_model_link_leave(copy->direction <= GV_FROM_DEVICE ? arrival : 0);
        gv_fault_leave(&frame);
        count(context->device, copy->direction, copy->width * copy->height * copy->depth);
        return result;
    }
    gv_log_detail("copy touched %p: unmapped or without access", frame.address);
    return gv_fault_error(frame.signal);
}

/* Documented: what is not all known to CUDA must not be known at all; then it is pageable memory. */
static bool touches_known(uint64_t address, uint64_t bytes)
{
    return gv_range_known(address, 1, NULL) || gv_range_known(address + bytes - 1, 1, NULL);
}

CUresult gv_copy_classify(struct gv_copy *copy, bool to_host, bool from_host)
{
    enum gv_region_kind kind;
    uint64_t to_bytes, from_bytes;
    if (!gv_span(copy->width, copy->height, copy->to_pitch, copy->depth, copy->to_slice, &to_bytes) ||
        !gv_span(copy->width, copy->height, copy->from_pitch, copy->depth, copy->from_slice, &from_bytes) ||
        copy->to == NULL || copy->from == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const bool to_known = gv_range_known((uint64_t)copy->to, to_bytes, &kind);
    if (!to_known && (!to_host || touches_known((uint64_t)copy->to, to_bytes)))
        return CUDA_ERROR_INVALID_VALUE;
    copy->to_device = to_known && !gv_is_host_kind(kind);
    copy->to_pageable = !to_known;
    const bool from_known = gv_range_known((uint64_t)copy->from, from_bytes, &kind);
    if (!from_known && (!from_host || touches_known((uint64_t)copy->from, from_bytes)))
        return CUDA_ERROR_INVALID_VALUE;
    copy->from_device = from_known && !gv_is_host_kind(kind);
    copy->from_pageable = !from_known;
    copy->direction = copy->to_device ? (copy->from_device ? GV_ON_DEVICE : GV_TO_DEVICE)
                                      : (copy->from_device ? GV_FROM_DEVICE : GV_ON_HOST);
    return CUDA_SUCCESS;
}

CUresult gv_copy_linear(struct gv_copy *copy, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool to_host,
                        bool from_host)
{
    memset(copy, 0, sizeof *copy);
    copy->to = (uint8_t *)to;
    copy->from = (const uint8_t *)from;
    copy->width = bytes;
    copy->height = copy->depth = 1;
    return gv_copy_classify(copy, to_host, from_host);
}

struct copy_operation {
    struct gv_operation operation;
    struct gv_copy copy;
};

static CUresult run_copy(struct gv_operation *operation, struct gv_stream *stream)
{
    return perform(&((struct copy_operation *)operation)->copy, stream->context, gv_model_link_last());
}

static void drop_copy(struct gv_operation *operation) { free(((struct copy_operation *)operation)->copy.staging); }

static void describe_side(bool device, bool pageable, const uint8_t *address, CUmemorytype *type,
                          CUdeviceptr *at_device, const void **at_host)
{
    *type = device ? CU_MEMORYTYPE_DEVICE : pageable ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_UNIFIED;
    if (*type == CU_MEMORYTYPE_HOST)
        *at_host = address;
    else
        *at_device = (CUdeviceptr)address;
}

/* What the program gave to a 3-D call; the same for what came from a plain one. */
static void describe_copy(struct gv_operation *operation, CUgraphNodeParams *params)
{
    const struct copy_operation *self = (struct copy_operation *)operation;
    const struct gv_copy *copy = &self->copy;
    CUDA_MEMCPY3D *p = &params->memcpy.copyParams;
    params->memcpy.copyCtx = gv_context_handle(operation->context);
    *p = copy->given;
    if (p->WidthInBytes != 0)
        return;
    const void *to_host = NULL;
    describe_side(copy->from_device, copy->from_pageable, copy->from, &p->srcMemoryType, &p->srcDevice, &p->srcHost);
    describe_side(copy->to_device, copy->to_pageable, copy->to, &p->dstMemoryType, &p->dstDevice, &to_host);
    p->dstHost = (void *)to_host;
    p->WidthInBytes = copy->width;
    p->Height = copy->height;
    p->Depth = copy->depth;
    p->srcPitch = copy->from_pitch;
    p->dstPitch = copy->to_pitch;
}

static const struct gv_operation_kind copy_kind = {
    .node = CU_GRAPH_NODE_TYPE_MEMCPY, .work = true, .run = run_copy, .drop = drop_copy, .describe = describe_copy};

CUresult gv_copy_make(const struct gv_copy *copy, struct gv_operation **operation)
{
    struct copy_operation *made = malloc(sizeof *made);
    if (made == NULL) {
        free(copy->staging);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->operation.kind = &copy_kind;
    made->copy = *copy;
    *operation = &made->operation;
    return CUDA_SUCCESS;
}

static CUresult enqueue(const struct gv_copy *copy, struct gv_stream *stream)
{
    struct gv_operation *operation;
    GV_TRY(gv_copy_make(copy, &operation));
    return gv_stream_submit(stream, operation);
}

/* The source is read now, so that the program may change it when the call returns. */
static bool stage(struct gv_copy *copy, size_t at_most)
{
    const size_t bytes = span(copy, copy->from_pitch, copy->from_slice);
    if (bytes > at_most || (copy->staging = malloc(bytes)) == NULL)
        return false;
    memcpy(copy->staging, copy->from, bytes);
    copy->from = copy->staging;
    return true;
}

/* Waits for what must come first, then copies in this thread: no thread needs to wake. */
static CUresult copy_here(const struct gv_copy *copy, struct gv_stream *stream)
{
    struct gv_context *context = stream->context;
    GV_TRY(gv_capture_check_stream(stream));
    GV_TRY(gv_watch(GV_WATCH_GIVEN));
    if (!(stream->flags & (GV_STREAM_LEGACY | CU_STREAM_NON_BLOCKING)))
        gv_gauge_wait(&context->legacy->completed, atomic_load(&context->legacy->submitted.value));
    gv_stream_wait(stream);
    gv_after_wait();
    GV_TRY(gv_context_state(context));
    GV_TRY(gv_watch(GV_WATCH_RUN));
    const CUresult result = perform(copy, context, 0);
    if (result != CUDA_SUCCESS)
        gv_context_fail(context, result);
    return result;
}

CUresult gv_copy_submit(struct gv_copy *copy, struct gv_stream *stream, bool wait)
{
    if (copy->width == 0 || copy->height == 0 || copy->depth == 0)
        return CUDA_SUCCESS;
    if (wait)
        GV_TRY(gv_capture_check_unsafe());
    else if (gv_stream_captures(stream))
        return enqueue(copy, stream); /* the addresses are recorded: pageable memory is read when the graph runs */
    if (copy->read_now && copy->from_device) { /* the simple way: it is read when it is copied */
        GV_TRY(enqueue(copy, stream));
        gv_stream_wait(stream);
        return gv_context_state(stream->context);
    }
    if (copy->direction == GV_ON_DEVICE) {
        GV_TRY(enqueue(copy, stream));
        if (!wait || !(gv_always_waits(stream->context, (uint64_t)copy->to) ||
                       gv_always_waits(stream->context, (uint64_t)copy->from)))
            return CUDA_SUCCESS;
        gv_stream_wait(stream);
        return gv_context_state(stream->context);
    }
    if (copy->read_now && !copy->from_pageable && !wait && !stage(copy, SIZE_MAX))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (wait || copy->to_pageable || (copy->from_pageable && !stage(copy, STAGED_AT_MOST)))
        return copy_here(copy, stream);
    return enqueue(copy, stream);
}
