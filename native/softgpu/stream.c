/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: queue, thread, order. See stream.h.
 */
#include "stream.h"
#include "capture.h"
#include "engine.h"
#include "launch.h"
#include "memory.h"
#include "model.h"
#include "watch.h"

#include <stdlib.h>
#include <string.h>

GV_THREAD_LOCAL int per_thread_default;
static _Atomic uint64_t last_id;
static atomic_int ending;

void gv_soft_default_stream(int per_thread);
void gv_soft_default_stream(int per_thread) { per_thread_default = per_thread; }
bool gv_per_thread_default(void) { return per_thread_default != 0; }

static CUresult close_marker(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)operation, (void)stream;
    return CUDA_SUCCESS;
}
static const struct gv_operation_kind closing_kind = {.node = GV_NO_NODE, .always = true, .run = close_marker};

void gv_operation_made(struct gv_operation *operation, struct gv_context *context)
{
    atomic_store_explicit(&operation->references, 1, memory_order_relaxed);
    operation->context = context;
    operation->context_id = context != NULL ? context->id : 0;
    operation->dependency_count = 0;
    operation->dependencies = NULL;
}

void gv_operation_retain(struct gv_operation *operation)
{
    atomic_fetch_add_explicit(&operation->references, 1, memory_order_relaxed);
}

/* The last holder sees all that the others did with it. */
void gv_operation_release(struct gv_operation *operation)
{
    if (atomic_load_explicit(&operation->references, memory_order_acquire) != 1 &&
        atomic_fetch_sub_explicit(&operation->references, 1, memory_order_acq_rel) != 1)
        return;
    if (operation->kind->drop != NULL)
        operation->kind->drop(operation);
    free(operation);
}

/* Returns whether there was anything to wait for. */
static bool wait_dependencies(struct gv_operation *operation)
{
    const struct gv_dependency *list = operation->dependency_count == 1 ? &operation->first : operation->dependencies;
    bool waited = false;
    for (uint32_t i = 0; i < operation->dependency_count; i++) {
        waited |= !gv_gauge_reached(list[i].gauge, list[i].value);
        gv_gauge_wait(list[i].gauge, list[i].value);
    }
    free(operation->dependencies);
    return waited;
}

static void unlink_stream(struct gv_stream *stream)
{
    struct gv_context *context = stream->context;
    pthread_mutex_lock(&context->lock);
    for (struct gv_stream **link = &context->streams; *link != NULL; link = &(*link)->next)
        if (*link == stream) {
            __atomic_store_n(link, stream->next, __ATOMIC_RELAXED);
            break;
        }
    pthread_mutex_unlock(&context->lock);
}

static uint64_t submitted(const struct gv_stream *stream)
{
    return atomic_load_explicit(&stream->submitted.value, memory_order_acquire);
}

static void *stream_thread(void *argument)
{
    struct gv_stream *stream = argument;
    bool queued = false; /* behind the operation before it, when that ended */
    for (uint64_t number = atomic_load(&stream->completed.value) + 1;; number++) {
        gv_gauge_wait(&stream->submitted, number);
        pthread_mutex_lock(&stream->lock);
        struct gv_operation *operation = stream->head;
        stream->head = operation->next;
        if (stream->head == NULL)
            stream->tail = &stream->head;
        pthread_mutex_unlock(&stream->lock);
        if (wait_dependencies(operation) || !queued)
            gv_model_link_leave(0);
        const bool closing = operation->kind == &closing_kind;
        struct gv_context *context = stream->context;
        if (operation->kind->always || atomic_load_explicit(&context->error, memory_order_acquire) == CUDA_SUCCESS) {
            CUresult result = operation->kind->work ? gv_watch(GV_WATCH_RUN) : CUDA_SUCCESS;
            if (result == CUDA_SUCCESS)
                result = operation->kind->run(operation, stream);
            if (result != CUDA_SUCCESS)
                gv_context_fail(context, result);
        } else {
            gv_engine_abandon(context->device, context); /* kept for the kernel that is skipped */
        }
        const CUgraphNodeType node = operation->kind->node;
        if (node != CU_GRAPH_NODE_TYPE_MEMCPY && node != CU_GRAPH_NODE_TYPE_EVENT_RECORD)
            gv_model_link_leave(0); /* it may have taken time */
        queued = submitted(stream) > number;
        if (closing)
            unlink_stream(stream); /* before the last number: who waits for all streams need not look again */
        gv_gauge_advance(&stream->completed, number);
        if (operation->kind->ended != NULL)
            operation->kind->ended(operation);
        gv_operation_release(operation); /* may call destructors of the program: nobody waits for them */
        if (closing)
            break;
    }
    gv_launch_thread_exit();
    gv_object_free(stream, GV_STREAM);
    atomic_fetch_sub(&ending, 1);
    return NULL;
}

struct gv_stream *gv_stream_create(struct gv_context *context, unsigned flags, int priority)
{
    struct gv_stream *stream = gv_object_new(GV_STREAM, sizeof *stream);
    if (stream == NULL)
        return NULL;
    stream->context = context;
    stream->flags = flags;
    stream->priority = priority;
    stream->capture = NULL;
    if (stream->attributes != NULL)
        *stream->attributes = (struct gv_launch_attributes){0};
    stream->id = atomic_fetch_add(&last_id, 1) + 1;
    pthread_mutex_init(&stream->lock, NULL);
    stream->head = NULL;
    stream->tail = &stream->head;
    stream->running = false;
    memset(stream->after, 0, sizeof stream->after);
    stream->after_next = 0;
    if (!(flags & GV_STREAM_LEGACY)) {
        pthread_mutex_lock(&context->lock);
        stream->next = context->streams;
        __atomic_store_n(&context->streams, stream, __ATOMIC_RELAXED); /* has_streams looks without the lock */
        pthread_mutex_unlock(&context->lock);
    }
    return stream;
}

/* Those that other threads make at this moment are not ordered with the caller anyway. */
static bool has_streams(const struct gv_context *context)
{
    return __atomic_load_n(&context->streams, __ATOMIC_RELAXED) != NULL;
}

static bool is_blocking(const struct gv_stream *stream) { return !(stream->flags & CU_STREAM_NON_BLOCKING); }

bool gv_stream_idle(struct gv_stream *stream)
{
    if (stream->flags & GV_STREAM_LEGACY) {
        struct gv_context *context = stream->context;
        bool idle = true;
        pthread_mutex_lock(&context->lock);
        for (struct gv_stream *s = context->streams; s != NULL && idle; s = s->next)
            idle = !is_blocking(s) || gv_gauge_reached(&s->completed, submitted(s));
        pthread_mutex_unlock(&context->lock);
        if (!idle)
            return false;
    }
    return gv_gauge_reached(&stream->completed, submitted(stream));
}

/* The unfinished ends of all blocking streams, at most `room` of them; returns how many there are. */
static uint32_t blocking_ends(struct gv_context *context, struct gv_dependency *ends, uint32_t room)
{
    uint32_t count = 0;
    pthread_mutex_lock(&context->lock);
    for (struct gv_stream *s = context->streams; s != NULL; s = s->next) {
        const uint64_t end = submitted(s);
        if (!is_blocking(s) || gv_gauge_reached(&s->completed, end))
            continue;
        if (count < room)
            ends[count] = (struct gv_dependency){&s->completed, end};
        count++;
    }
    pthread_mutex_unlock(&context->lock);
    return count;
}

static CUresult add_dependencies(struct gv_stream *stream, struct gv_operation *operation)
{
    if (!is_blocking(stream))
        return CUDA_SUCCESS;
    if (!(stream->flags & GV_STREAM_LEGACY)) {
        struct gv_stream *legacy = stream->context->legacy;
        const uint64_t end = submitted(legacy);
        if (!gv_gauge_reached(&legacy->completed, end)) {
            operation->first = (struct gv_dependency){&legacy->completed, end};
            operation->dependency_count = 1;
        }
        return CUDA_SUCCESS;
    }
    if (!has_streams(stream->context))
        return CUDA_SUCCESS;
    uint32_t room = 1, count = blocking_ends(stream->context, &operation->first, 1);
    while (count > room) { /* more may have come since */
        room = count + 4;
        free(operation->dependencies);
        operation->dependencies = malloc(room * sizeof *operation->dependencies);
        if (operation->dependencies == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        count = blocking_ends(stream->context, operation->dependencies, room);
    }
    if (count == 1 && operation->dependencies != NULL)
        operation->first = operation->dependencies[0];
    operation->dependency_count = count;
    return CUDA_SUCCESS;
}

CUresult gv_stream_submit(struct gv_stream *stream, struct gv_operation *operation)
{
    if (__builtin_expect(gv_anything_captures(), 0)) {
        bool recorded;
        GV_TRY(gv_capture_record(stream, operation, &recorded));
        if (recorded)
            return CUDA_SUCCESS;
    }
    gv_operation_made(operation, stream->context);
    CUresult result = operation->kind->work ? gv_watch(GV_WATCH_GIVEN) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        result = add_dependencies(stream, operation);
    if (result != CUDA_SUCCESS) {
        gv_operation_release(operation);
        return result;
    }
    operation->next = NULL;
    pthread_mutex_lock(&stream->lock);
    if (!stream->running && !(stream->running = gv_start_thread(stream_thread, stream, "softgpu-stream"))) {
        pthread_mutex_unlock(&stream->lock);
        free(operation->dependencies);
        gv_operation_release(operation);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (operation->kind->arm != NULL)
        operation->kind->arm(operation);
    *stream->tail = operation;
    stream->tail = &operation->next;
    gv_gauge_advance(&stream->submitted, submitted(stream) + 1);
    pthread_mutex_unlock(&stream->lock);
    return CUDA_SUCCESS;
}

void gv_stream_wait(struct gv_stream *stream)
{
    const uint64_t until = submitted(stream);
    gv_gauge_wait(&stream->completed, until);
    gv_gauge_see(&stream->completed, until);
    if (!(stream->flags & GV_STREAM_LEGACY) || !has_streams(stream->context))
        return;
    struct gv_dependency ends[16];
    uint32_t count;
    while ((count = blocking_ends(stream->context, ends, 16)) > 0)
        for (uint32_t i = 0; i < count && i < 16; i++) {
            gv_gauge_wait(ends[i].gauge, ends[i].value);
            gv_gauge_see(ends[i].gauge, ends[i].value);
            if (count <= 16 && i + 1 == count)
                return;
        }
}

void gv_streams_wait(struct gv_context *context)
{
    const uint64_t until = submitted(context->legacy);
    gv_gauge_wait(&context->legacy->completed, until);
    gv_gauge_see(&context->legacy->completed, until);
    struct gv_dependency ends[64];
    uint32_t count = 0;
    pthread_mutex_lock(&context->lock);
    for (struct gv_stream *s = context->streams; s != NULL; s = s->next) {
        const uint64_t end = submitted(s);
        if (gv_gauge_reached(&s->completed, end))
            continue;
        if (count == 64) {
            /* Rare: wait with the list unlocked, then look again from the start. */
            pthread_mutex_unlock(&context->lock);
            for (uint32_t i = 0; i < count; i++)
                gv_gauge_wait(ends[i].gauge, ends[i].value);
            gv_streams_wait(context);
            return;
        }
        ends[count++] = (struct gv_dependency){&s->completed, end};
    }
    pthread_mutex_unlock(&context->lock);
    for (uint32_t i = 0; i < count; i++) {
        gv_gauge_wait(ends[i].gauge, ends[i].value);
        gv_gauge_see(ends[i].gauge, ends[i].value);
    }
}

/* The handle is invalid at once. Its thread ends with the last operation, and until then the stream stays in the context's
 * list, since waiting for the context is waiting for this work too. One that never had a thread goes now. */
void gv_stream_destroy(struct gv_stream *stream)
{
    gv_capture_forget_stream(stream);
    if (atomic_exchange(&stream->object.kind, 0) != GV_STREAM)
        return; /* another thread was first */
    pthread_mutex_lock(&stream->lock);
    const bool running = stream->running;
    pthread_mutex_unlock(&stream->lock);
    struct gv_operation *marker = running ? calloc(1, sizeof *marker) : NULL;
    if (!running) {
        unlink_stream(stream);
        gv_object_free(stream, GV_STREAM);
    } else if (marker != NULL) {
        marker->kind = &closing_kind;
        atomic_fetch_add(&ending, 1);
        gv_stream_submit(stream, marker);
    }
}

static struct gv_stream *first_alive(struct gv_context *context)
{
    pthread_mutex_lock(&context->lock);
    struct gv_stream *stream = context->streams;
    while (stream != NULL && !gv_is(stream, GV_STREAM))
        stream = stream->next;
    pthread_mutex_unlock(&context->lock);
    return stream;
}

int gv_streams_ending(void) { return atomic_load(&ending); }

void gv_streams_close(struct gv_context *context)
{
    for (struct gv_stream *stream; (stream = first_alive(context)) != NULL;)
        gv_stream_destroy(stream);
    gv_streams_wait(context);
    gv_stream_destroy(context->legacy);
}

void gv_after_wait(void)
{
    gv_printf_flush();
    gv_pools_trim();
}
