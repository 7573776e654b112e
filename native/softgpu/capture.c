/* SPDX-License-Identifier: Apache-2.0
 *
 * Capture sequences: who belongs to one, what is recorded, what is forbidden. See capture.h.
 */
#include "capture.h"
#include "event.h"

#include <stdlib.h>
#include <string.h>

pthread_mutex_t gv_capture_lock = PTHREAD_MUTEX_INITIALIZER;
_Atomic uint32_t gv_capture_count;
struct gv_capture *gv_captures;
static uint64_t last_sequence;

struct gv_capture *gv_capture_find(uint64_t id)
{
    struct gv_capture *sequence = gv_captures;
    while (sequence != NULL && sequence->id != id)
        sequence = sequence->next;
    return sequence;
}

static struct gv_member *join_sequence(struct gv_capture *sequence, struct gv_stream *stream)
{
    struct gv_member *member = calloc(1, sizeof *member);
    if (member == NULL)
        return NULL;
    member->sequence = sequence;
    member->stream = stream;
    member->next = sequence->members;
    sequence->members = member;
    __atomic_store_n(&stream->capture, member, __ATOMIC_RELEASE);
    return member;
}

CUresult gv_capture_begin(struct gv_stream *stream, CUstreamCaptureMode mode, struct gv_graph *graph, bool owns,
                          struct gv_member **member)
{
    struct gv_capture *sequence = calloc(1, sizeof *sequence);
    if (sequence == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *member = join_sequence(sequence, stream);
    if (*member == NULL) {
        free(sequence);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    sequence->id = ++last_sequence;
    sequence->mode = mode;
    sequence->thread = pthread_self();
    sequence->origin = stream;
    sequence->graph = graph;
    sequence->owns_graph = owns;
    sequence->next = gv_captures;
    gv_captures = sequence;
    graph->captures++;
    atomic_fetch_add(&gv_capture_count, 1);
    return CUDA_SUCCESS;
}

/* All that was forked has come back: each tail lies before the origin's. */
static bool all_joined(struct gv_capture *sequence)
{
    static uint32_t last_mark;
    const uint32_t mark = ++last_mark;
    const struct gv_member *origin = sequence->origin->capture;
    const uint32_t room = sequence->graph->count + 1;
    struct gv_graph_node **stack = malloc(room * sizeof(struct gv_graph_node *));
    uint32_t depth = 0;
    if (stack == NULL)
        return false;
    for (struct gv_graph_node *node = sequence->graph->first; node != NULL; node = node->next)
        node->mark = 0;
    for (size_t i = 0; i < origin->tail.count; i++) {
        struct gv_graph_node *node = gv_node_of(origin->tail.nodes[i]);
        if (node != NULL && node->mark != mark) {
            node->mark = mark;
            stack[depth++] = node;
        }
    }
    while (depth > 0) {
        const struct gv_graph_node *node = stack[--depth];
        for (uint32_t i = 0; i < node->before.count; i++) {
            struct gv_graph_node *earlier = node->before.list[i].node;
            if (earlier->mark != mark) {
                earlier->mark = mark;
                stack[depth++] = earlier;
            }
        }
    }
    free(stack);
    for (const struct gv_member *member = sequence->members; member != NULL; member = member->next)
        for (size_t i = 0; i < member->tail.count; i++) {
            const struct gv_graph_node *node = gv_node_of(member->tail.nodes[i]);
            if (node != NULL && node->mark != mark)
                return false;
        }
    return true;
}

/* Takes its streams out of capture. The caller frees it, and the graph if nobody shall have it. */
static void close_sequence(struct gv_capture *sequence)
{
    for (struct gv_capture **link = &gv_captures; *link != NULL; link = &(*link)->next)
        if (*link == sequence) {
            *link = sequence->next;
            break;
        }
    for (struct gv_member *member = sequence->members, *next; member != NULL; member = next) {
        next = member->next;
        if (member->stream != NULL)
            __atomic_store_n(&member->stream->capture, NULL, __ATOMIC_RELEASE);
        gv_tail_free(&member->tail);
        free(member);
    }
    sequence->members = NULL;
    sequence->graph->captures--;
    atomic_fetch_sub(&gv_capture_count, 1);
}

CUresult gv_capture_end(struct gv_stream *stream, struct gv_capture **ended)
{
    *ended = NULL;
    if (stream->capture == NULL)
        return CUDA_ERROR_ILLEGAL_STATE;
    struct gv_capture *sequence = stream->capture->sequence;
    if (sequence->origin != stream) {
        sequence->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (sequence->mode != CU_STREAM_CAPTURE_MODE_RELAXED && !pthread_equal(sequence->thread, pthread_self()))
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    CUresult result = CUDA_SUCCESS;
    if (sequence->invalid)
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    else if (!all_joined(sequence))
        result = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    close_sequence(sequence);
    *ended = sequence;
    return result;
}

static CUresult add_node(struct gv_member *member, CUgraphNodeType type, struct gv_operation *work)
{
    static const CUgraphEdgeData none;
    struct gv_graph_node *node;
    const struct gv_content content = {.type = type, .work = work};
    GV_TRY(gv_node_add(member->sequence->graph, member->tail.nodes, member->tail.data, member->tail.count, &content,
                       &node));
    member->tail.count = 0;
    return gv_tail_add(&member->tail, (CUgraphNode)node, none) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult gv_capture_record(struct gv_stream *stream, struct gv_operation *operation, bool *recorded)
{
    CUresult result = CUDA_SUCCESS;
    *recorded = false;
    pthread_mutex_lock(&gv_capture_lock);
    struct gv_member *member = stream->capture;
    if (stream->flags & GV_STREAM_LEGACY) {
        result = gv_capture_use_legacy(stream->context, false);
    } else if (member != NULL) {
        if (member->sequence->invalid) {
            result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        } else if (operation->kind->node == GV_NO_NODE) {
            result = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        } else {
            gv_operation_made(operation, stream->context);
            result = add_node(member, operation->kind->node, operation);
            *recorded = result == CUDA_SUCCESS;
        }
        member->sequence->invalid |= result != CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    if (result != CUDA_SUCCESS) {
        gv_operation_made(operation, stream->context);
        gv_operation_release(operation);
    }
    return result;
}

/* Under the lock. */
static void forget_record(struct gv_event *event)
{
    if (event->captured != NULL)
        gv_tail_free(&event->captured->tail);
    free(event->captured);
    __atomic_store_n(&event->captured, NULL, __ATOMIC_RELAXED);
}

static CUresult record_here(struct gv_member *member, struct gv_event *event)
{
    struct gv_captured_record *record = calloc(1, sizeof *record);
    if (record == NULL || !gv_tail_join(&record->tail, &member->tail)) {
        free(record);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    record->sequence = member->sequence->id;
    forget_record(event);
    __atomic_store_n(&event->captured, record, __ATOMIC_RELAXED);
    return CUDA_SUCCESS;
}

CUresult gv_capture_record_event(struct gv_stream *stream, struct gv_event *event, unsigned flags, bool *done)
{
    *done = false;
    if (!gv_stream_captures(stream)) {
        if (flags & CU_EVENT_RECORD_EXTERNAL)
            return CUDA_ERROR_INVALID_VALUE; /* "invalid when used outside of capture" */
        if (__atomic_load_n(&event->captured, __ATOMIC_RELAXED) != NULL)
            gv_capture_forget_event(event);
        return CUDA_SUCCESS;
    }
    if (flags & CU_EVENT_RECORD_EXTERNAL)
        return CUDA_SUCCESS; /* recorded as work */
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    struct gv_member *member = stream->capture;
    if (member != NULL) {
        *done = true;
        result = member->sequence->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : record_here(member, event);
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

/* Under the lock: the stream waits for an event recorded in a sequence. */
static CUresult wait_captured(struct gv_stream *stream, const struct gv_captured_record *record)
{
    struct gv_capture *sequence = gv_capture_find(record->sequence);
    struct gv_member *member = stream->capture;
    if (sequence == NULL) {
        if (member != NULL)
            member->sequence->invalid = true;
        return CUDA_ERROR_CAPTURED_EVENT; /* of a capture that has ended: stands for no work any more */
    }
    if (sequence->invalid || (member != NULL && member->sequence->invalid))
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->flags & GV_STREAM_LEGACY) {
        sequence->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    if (member == NULL)
        member = join_sequence(sequence, stream);
    if (member == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (member->sequence != sequence) {
        member->sequence->invalid = sequence->invalid = true;
        return CUDA_ERROR_STREAM_CAPTURE_MERGE;
    }
    return gv_tail_join(&member->tail, &record->tail) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult gv_capture_wait_event(struct gv_stream *stream, struct gv_event *event, unsigned flags, bool *done)
{
    const bool captures = gv_stream_captures(stream), external = flags & CU_EVENT_WAIT_EXTERNAL;
    *done = false;
    if (!captures && external)
        return CUDA_ERROR_INVALID_VALUE;
    if (external || (!captures && __atomic_load_n(&event->captured, __ATOMIC_RELAXED) == NULL))
        return CUDA_SUCCESS;
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    if (event->captured != NULL) {
        *done = true;
        result = wait_captured(stream, event->captured);
    } else if (stream->capture != NULL && atomic_load(&event->recorded) != event->created_at) {
        *done = true;
        result = stream->capture->sequence->invalid ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                                                    : CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
        stream->capture->sequence->invalid = true;
    } else {
        *done = stream->capture != NULL; /* never recorded: nothing to wait for */
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

void gv_capture_forget_stream(struct gv_stream *stream)
{
    struct gv_capture *ended = NULL;
    pthread_mutex_lock(&gv_capture_lock);
    struct gv_member *member = stream->capture;
    if (member != NULL) {
        struct gv_capture *sequence = member->sequence;
        if (sequence->origin == stream) { /* nobody can end it any more */
            close_sequence(sequence);
            ended = sequence;
        } else {
            member->stream = NULL; /* its tail stays: it must have been joined */
            __atomic_store_n(&stream->capture, NULL, __ATOMIC_RELEASE);
        }
    }
    pthread_mutex_unlock(&gv_capture_lock);
    if (ended != NULL && ended->owns_graph)
        gv_graph_free(ended->graph);
    free(ended);
}

void gv_capture_forget_event(struct gv_event *event)
{
    if (__atomic_load_n(&event->captured, __ATOMIC_RELAXED) == NULL)
        return;
    pthread_mutex_lock(&gv_capture_lock);
    forget_record(event);
    pthread_mutex_unlock(&gv_capture_lock);
}

/* The graph that the stream records into; INVALIDATED when there is none any more. */
static CUresult graph_of(const struct gv_stream *stream, uint64_t *sequence, struct gv_graph **graph)
{
    pthread_mutex_lock(&gv_capture_lock);
    const struct gv_member *member = stream->capture;
    const bool valid = member != NULL && !member->sequence->invalid;
    if (valid) {
        *sequence = member->sequence->id;
        *graph = member->sequence->graph;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return valid ? CUDA_SUCCESS : CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
}

/* Adds the node unless making its work has failed. The memory's lock comes before ours: work is made without ours. */
static CUresult add_memory_node(const struct gv_stream *stream, uint64_t sequence, struct gv_operation *work,
                                CUresult result)
{
    pthread_mutex_lock(&gv_capture_lock);
    struct gv_member *member = stream->capture;
    const bool made = result == CUDA_SUCCESS;
    if (member == NULL || member->sequence->id != sequence || member->sequence->invalid) {
        result = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else {
        if (made)
            result = add_node(member, work->kind->node, work);
        member->sequence->invalid |= result != CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    if (made && result != CUDA_SUCCESS)
        gv_operation_release(work);
    return result;
}

CUresult gv_capture_allocate(struct gv_stream *stream, CUmemoryPool pool, size_t bytes, CUdeviceptr *address)
{
    (void)pool; /* as documented: a graph takes the memory from its own pool, with the properties of this one */
    CUDA_MEM_ALLOC_NODE_PARAMS params = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                      .location = {CU_MEM_LOCATION_TYPE_DEVICE, {stream->context->device}}},
        .bytesize = bytes,
    };
    uint64_t sequence;
    struct gv_graph *graph;
    struct gv_operation *work = NULL;
    GV_TRY(graph_of(stream, &sequence, &graph));
    const CUresult made = gv_graph_allocate(graph, &params, &work);
    GV_TRY(add_memory_node(stream, sequence, work, made));
    *address = params.dptr;
    return CUDA_SUCCESS;
}

CUresult gv_capture_free(struct gv_stream *stream, CUdeviceptr address)
{
    uint64_t sequence;
    struct gv_graph *graph;
    struct gv_operation *work = NULL;
    GV_TRY(graph_of(stream, &sequence, &graph));
    const CUresult made = gv_graph_deallocate(graph, address, &work);
    return add_memory_node(stream, sequence, work, made);
}
