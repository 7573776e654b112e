/* SPDX-License-Identifier: Apache-2.0
 *
 * What a stream's further work is known to come after, beside the work of the stream itself: by events, and by the legacy
 * default stream. Only pools ask, to use freed memory of another stream again without a wait; so forgetting is harmless, and
 * a stream remembers the last few.
 */
#include "stream.h"

#include <stdlib.h>

void gv_stream_order(struct gv_stream *stream, struct gv_gauge *gauge, uint64_t value)
{
    if (gauge == NULL || gauge == &stream->completed)
        return;
    pthread_mutex_lock(&stream->lock);
    unsigned slot = 0;
    while (slot < GV_STREAM_AFTER && stream->after[slot].gauge != gauge)
        slot++;
    if (slot == GV_STREAM_AFTER)
        slot = stream->after_next++ % GV_STREAM_AFTER;
    if (stream->after[slot].gauge != gauge || stream->after[slot].value < value)
        stream->after[slot] = (struct gv_dependency){gauge, value};
    pthread_mutex_unlock(&stream->lock);
}

/* The gauge of one of the context's blocking streams: the legacy stream comes after all they were given. */
static bool is_of_blocking(struct gv_context *context, const struct gv_gauge *gauge)
{
    bool found = false;
    pthread_mutex_lock(&context->lock);
    for (const struct gv_stream *s = context->streams; s != NULL && !found; s = s->next)
        found = gauge == &s->completed && !(s->flags & CU_STREAM_NON_BLOCKING);
    pthread_mutex_unlock(&context->lock);
    return found;
}

bool gv_stream_comes_after(struct gv_stream *stream, const struct gv_gauge *gauge, uint64_t value)
{
    if (stream->flags & GV_STREAM_LEGACY) {
        if (is_of_blocking(stream->context, gauge))
            return true;
    } else if (!(stream->flags & CU_STREAM_NON_BLOCKING) && gauge == &stream->context->legacy->completed) {
        return true;
    }
    bool after = false;
    pthread_mutex_lock(&stream->lock);
    for (unsigned slot = 0; slot < GV_STREAM_AFTER && !after; slot++)
        after = stream->after[slot].gauge == gauge && stream->after[slot].value >= value;
    pthread_mutex_unlock(&stream->lock);
    return after;
}

static CUresult run_nothing(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)operation, (void)stream;
    return CUDA_SUCCESS;
}

static const struct gv_operation_kind nothing_kind = {.node = GV_NO_NODE, .always = true, .run = run_nothing};

CUresult gv_stream_number_order(struct gv_stream *stream)
{
    struct gv_stream *legacy = stream->context->legacy;
    if (stream->flags & CU_STREAM_NON_BLOCKING || gv_stream_idle(legacy)) /* it looks at all blocking streams */
        return CUDA_SUCCESS;
    struct gv_operation *nothing = malloc(sizeof *nothing);
    if (nothing == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    nothing->kind = &nothing_kind;
    return gv_stream_submit(stream, nothing);
}
