/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program must not do beside a capture. See capture.h.
 */
#include "capture.h"
#include "event.h"

GV_THREAD_LOCAL CUstreamCaptureMode thread_mode; /* CU_STREAM_CAPTURE_MODE_GLOBAL */

CUstreamCaptureMode gv_capture_exchange_mode(CUstreamCaptureMode mode)
{
    const CUstreamCaptureMode old = thread_mode;
    thread_mode = mode;
    return old;
}

static bool is_blocking(const struct gv_stream *stream)
{
    return !(stream->flags & (CU_STREAM_NON_BLOCKING | GV_STREAM_LEGACY));
}

CUresult gv_capture_use_legacy(const struct gv_context *context, bool harmless)
{
    CUresult result = CUDA_SUCCESS;
    for (struct gv_capture *sequence = gv_captures; sequence != NULL; sequence = sequence->next)
        for (struct gv_member *member = sequence->members; member != NULL; member = member->next)
            if (member->stream != NULL && member->stream->context == context && is_blocking(member->stream)) {
                sequence->invalid |= !harmless;
                result = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
            }
    return result;
}

static CUresult legacy(const struct gv_context *context, bool harmless)
{
    if (!gv_anything_captures())
        return CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    const CUresult result = gv_capture_use_legacy(context, harmless);
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

CUresult gv_capture_check_legacy(struct gv_context *context) { return legacy(context, false); }
CUresult gv_capture_legacy_blocked(struct gv_context *context) { return legacy(context, true); }

CUresult gv_capture_check_stream(struct gv_stream *stream)
{
    if (!gv_anything_captures())
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    if (stream->flags & GV_STREAM_LEGACY) {
        result = gv_capture_use_legacy(stream->context, false);
    } else if (stream->capture != NULL) {
        struct gv_capture *sequence = stream->capture->sequence;
        result = sequence->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        sequence->invalid = true;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

CUresult gv_capture_check_context(struct gv_context *context)
{
    if (!gv_anything_captures())
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    for (struct gv_capture *sequence = gv_captures; sequence != NULL; sequence = sequence->next)
        for (const struct gv_member *member = sequence->members; member != NULL; member = member->next)
            if (member->stream != NULL && member->stream->context == context) {
                result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
                sequence->invalid = true;
            }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

CUresult gv_capture_check_event(struct gv_event *event)
{
    if (__atomic_load_n(&event->captured, __ATOMIC_RELAXED) != NULL) {
        pthread_mutex_lock(&gv_capture_lock);
        const bool captured = event->captured != NULL;
        struct gv_capture *sequence = captured ? gv_capture_find(event->captured->sequence) : NULL;
        if (sequence != NULL)
            sequence->invalid = true;
        pthread_mutex_unlock(&gv_capture_lock);
        if (captured)
            return CUDA_ERROR_CAPTURED_EVENT;
    }
    return gv_capture_check_unsafe();
}

CUresult gv_capture_check_unsafe(void)
{
    if (!gv_anything_captures() || thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    for (struct gv_capture *sequence = gv_captures; sequence != NULL; sequence = sequence->next) {
        const bool own = pthread_equal(sequence->thread, pthread_self());
        const bool forbidden =
            own ? sequence->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                : thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL && sequence->mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (!forbidden)
            continue;
        result = sequence->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        sequence->invalid = true;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}
