/* SPDX-License-Identifier: Apache-2.0
 *
 * cuEvent*, and streams waiting for events.
 */
#include "event.h"
#include "capture.h"

#include <stdlib.h>

struct record_operation {
    struct gv_operation operation;
    struct gv_event *event;
    uint64_t number;
    struct gv_gauge reached; /* 1: its stream is past it. Who waits for this record must not be let go by a later one */
};

/* Makes `record` (NULL: none) the last one of the event. */
static void set_last(struct gv_event *event, struct record_operation *record)
{
    struct gv_operation *const old = event->last;
    event->last = record != NULL ? &record->operation : NULL;
    if (record != NULL)
        gv_operation_retain(&record->operation);
    if (old != NULL)
        gv_operation_release(old);
}

/* The record that a wait of now is for, retained; NULL: none since the event was created. */
static struct record_operation *take_last(struct gv_event *event)
{
    pthread_mutex_lock(&event->lock);
    struct gv_operation *const last = event->last;
    if (last != NULL)
        gv_operation_retain(last);
    pthread_mutex_unlock(&event->lock);
    return (struct record_operation *)last;
}

static struct gv_dependency after_of(struct gv_event *event)
{
    pthread_mutex_lock(&event->lock);
    const struct gv_dependency after = event->after;
    pthread_mutex_unlock(&event->lock);
    return after;
}

/* Never recorded counts; a record of a destroyed event in the same place does not. */
static bool is_done(const struct gv_event *event)
{
    const uint64_t recorded = atomic_load(&event->recorded);
    return recorded == event->created_at || gv_gauge_reached(&event->done, recorded);
}

/* And so is its stream: the record is an operation of it, which is not "not ready" for it any more. */
static bool is_past(struct gv_event *event)
{
    const struct gv_dependency after = after_of(event);
    return is_done(event) && (after.gauge == NULL || gv_gauge_reached(after.gauge, after.value + 1));
}

static struct gv_event *event_of(CUevent handle) { return gv_is(handle, GV_EVENT) ? (struct gv_event *)handle : NULL; }

GV_EXPORT CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    GV_ENTER_CONTEXT(context);
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    if (phEvent == NULL || Flags & ~known)
        return CUDA_ERROR_INVALID_VALUE;
    if (Flags & CU_EVENT_INTERPROCESS && !(Flags & CU_EVENT_DISABLE_TIMING))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_event *event = gv_object_new(GV_EVENT, sizeof *event);
    if (event == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    event->slot = Flags & CU_EVENT_INTERPROCESS ? gv_event_slot_new() : NULL;
    if (Flags & CU_EVENT_INTERPROCESS && event->slot == NULL) {
        gv_object_free(event, GV_EVENT);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    event->context = context;
    event->flags = Flags;
    pthread_mutex_lock(&event->lock);
    set_last(event, NULL); /* a graph may have recorded it after its end */
    event->created_at = atomic_load(&event->recorded);
    pthread_mutex_unlock(&event->lock);
    event->after = (struct gv_dependency){NULL, 0};
    *phEvent = (CUevent)event;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuEventDestroy_v2(CUevent hEvent)
{
    GV_ENTER();
    if (event_of(hEvent) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    gv_capture_forget_event((struct gv_event *)hEvent);
    if (((struct gv_event *)hEvent)->slot != NULL)
        gv_event_slot_free(((struct gv_event *)hEvent)->slot);
    pthread_mutex_lock(&((struct gv_event *)hEvent)->lock);
    set_last((struct gv_event *)hEvent, NULL);
    pthread_mutex_unlock(&((struct gv_event *)hEvent)->lock);
    gv_object_free(hEvent, GV_EVENT); /* records in flight hold numbers that stay valid, waits hold their record */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuEventDestroy(CUevent hEvent) { return cuEventDestroy_v2(hEvent); }

/* Numbers follow the order in which records are submitted. */
static void arm_record(struct gv_operation *operation)
{
    struct record_operation *record = (struct record_operation *)operation;
    pthread_mutex_lock(&record->event->lock);
    record->number = atomic_fetch_add(&record->event->recorded, 1) + 1;
    set_last(record->event, record);
    pthread_mutex_unlock(&record->event->lock);
}

static CUresult run_record(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    struct record_operation *record = (struct record_operation *)operation;
    pthread_mutex_lock(&record->event->lock); /* records in two streams: the time is that of the later number */
    if (atomic_load(&record->event->done.value) < record->number)
        atomic_store(&record->event->time_ns, gv_board_now_ns());
    gv_gauge_advance(&record->event->done, record->number);
    pthread_mutex_unlock(&record->event->lock);
    return CUDA_SUCCESS;
}

/* Not in run_record: work behind a wait could end, and the program see that, while the event still is "not ready". */
static void record_ended(struct gv_operation *operation)
{
    gv_gauge_advance(&((struct record_operation *)operation)->reached, 1);
}

static void describe_record(struct gv_operation *operation, CUgraphNodeParams *params)
{
    params->eventRecord.event = (CUevent)((struct record_operation *)operation)->event;
    params->eventRecord.ctx = gv_context_handle(operation->context);
}

static const struct gv_operation_kind record_kind = {
    .node = CU_GRAPH_NODE_TYPE_EVENT_RECORD,
    .always = true, /* waiters are let go when the context fails */
    .bytes = sizeof(struct record_operation),
    .run = run_record,
    .arm = arm_record,
    .ended = record_ended,
    .describe = describe_record,
};

CUresult gv_event_make_record(CUevent handle, struct gv_operation **operation)
{
    struct gv_event *event = event_of(handle);
    if (event == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (event->slot != NULL)
        return CUDA_ERROR_NOT_SUPPORTED; /* of several processes */
    struct record_operation *record = malloc(sizeof *record);
    if (record == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    record->operation.kind = &record_kind;
    record->event = event;
    record->number = 0;
    record->reached = (struct gv_gauge){0};
    *operation = &record->operation;
    return CUDA_SUCCESS;
}

CUresult gv_event_record(struct gv_event *event, struct gv_stream *stream)
{
    struct gv_operation *operation;
    GV_TRY(gv_event_make_record((CUevent)event, &operation));
    return gv_stream_submit(stream, operation);
}

bool gv_is_event_record(const struct gv_operation *operation) { return operation->kind == &record_kind; }

GV_EXPORT CUresult cuEventRecordWithFlags(CUevent hEvent, CUstream hStream, unsigned int flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_event *event = event_of(hEvent);
    if (event == NULL || event->context != stream->context)
        return CUDA_ERROR_INVALID_HANDLE;
    if (flags & ~(unsigned)CU_EVENT_RECORD_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool captured;
    GV_TRY(gv_capture_record_event(stream, event, flags, &captured));
    if (captured)
        return CUDA_SUCCESS;
    if (event->slot != NULL)
        return gv_event_slot_record(event->slot, stream);
    pthread_mutex_lock(&event->lock); /* another thread may read it: both members or none */
    event->after = (struct gv_dependency){&stream->completed, atomic_load(&stream->submitted.value)};
    pthread_mutex_unlock(&event->lock);
    return gv_event_record(event, stream);
}

GV_EXPORT CUresult cuEventRecord(CUevent hEvent, CUstream hStream)
{
    return cuEventRecordWithFlags(hEvent, hStream, 0);
}

GV_EXPORT CUresult cuEventQuery(CUevent hEvent)
{
    GV_ENTER();
    struct gv_event *event = event_of(hEvent);
    if (event == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(gv_context_state(event->context));
    GV_TRY(gv_capture_check_event(event));
    if (event->slot != NULL)
        return gv_event_slot_done(event->slot) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
    return is_past(event) ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

GV_EXPORT CUresult cuEventSynchronize(CUevent hEvent)
{
    GV_ENTER();
    struct gv_event *event = event_of(hEvent);
    if (event == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(gv_context_state(event->context));
    GV_TRY(gv_capture_check_event(event));
    struct record_operation *const record = take_last(event);
    if (event->slot != NULL)
        gv_event_slot_synchronise(event->slot);
    if (record != NULL) {
        gv_gauge_wait(&record->reached, 1);
        gv_operation_release(&record->operation);
    }
    const struct gv_dependency after = after_of(event);
    if (after.gauge != NULL) {
        gv_gauge_wait(after.gauge, after.value + 1);
        gv_gauge_see(after.gauge, after.value);
    }
    gv_after_wait();
    return gv_context_state(event->context);
}

static CUresult elapsed(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    GV_READY();
    struct gv_event *events[2] = {event_of(hStart), event_of(hEnd)};
    if (pMilliseconds == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < 2; i++) {
        if (events[i] == NULL || events[i]->flags & CU_EVENT_DISABLE_TIMING ||
            atomic_load(&events[i]->recorded) == events[i]->created_at)
            return CUDA_ERROR_INVALID_HANDLE;
        GV_TRY(gv_context_state(events[i]->context));
    }
    for (int i = 0; i < 2; i++)
        if (!is_done(events[i]))
            return CUDA_ERROR_NOT_READY;
    *pMilliseconds =
        (float)((double)(int64_t)(atomic_load(&events[1]->time_ns) - atomic_load(&events[0]->time_ns)) / 1e6);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuEventElapsedTime(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    GV_ENTER();
    return elapsed(pMilliseconds, hStart, hEnd);
}

GV_EXPORT CUresult cuEventElapsedTime_v2(float *pMilliseconds, CUevent hStart, CUevent hEnd)
{
    GV_ENTER();
    return elapsed(pMilliseconds, hStart, hEnd);
}

struct wait_operation {
    struct gv_operation operation;
    struct gv_event *event;
    struct record_operation *record; /* of the time when it was given to a stream; NULL: none */
};

static void arm_wait(struct gv_operation *operation)
{
    struct wait_operation *wait = (struct wait_operation *)operation;
    wait->record = take_last(wait->event);
}

static CUresult run_wait(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    struct wait_operation *wait = (struct wait_operation *)operation;
    if (wait->record != NULL)
        gv_gauge_wait(&wait->record->reached, 1);
    return CUDA_SUCCESS;
}

static void drop_wait(struct gv_operation *operation)
{
    struct record_operation *const record = ((struct wait_operation *)operation)->record;
    if (record != NULL)
        gv_operation_release(&record->operation);
}

static void describe_wait(struct gv_operation *operation, CUgraphNodeParams *params)
{
    params->eventWait.event = (CUevent)((struct wait_operation *)operation)->event;
}

static const struct gv_operation_kind wait_kind = {
    .node = CU_GRAPH_NODE_TYPE_WAIT_EVENT,
    .bytes = sizeof(struct wait_operation),
    .run = run_wait,
    .arm = arm_wait,
    .drop = drop_wait,
    .describe = describe_wait,
};

CUresult gv_event_make_wait(CUevent handle, struct gv_operation **operation)
{
    struct gv_event *event = event_of(handle);
    if (event == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (event->slot != NULL)
        return CUDA_ERROR_NOT_SUPPORTED; /* of several processes */
    struct wait_operation *wait = malloc(sizeof *wait);
    if (wait == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    wait->operation.kind = &wait_kind;
    wait->event = event;
    wait->record = NULL;
    *operation = &wait->operation;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamWaitEvent(CUstream hStream, CUevent hEvent, unsigned int Flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_event *event = event_of(hEvent);
    if (event == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (Flags & ~(unsigned)CU_EVENT_WAIT_EXTERNAL)
        return CUDA_ERROR_INVALID_VALUE;
    bool captured;
    GV_TRY(gv_capture_wait_event(stream, event, Flags, &captured));
    if (captured)
        return CUDA_SUCCESS;
    if (event->slot != NULL)
        return gv_event_slot_wait(event->slot, stream);
    const struct gv_dependency after = after_of(event);
    gv_stream_order(stream, after.gauge, after.value);
    if (!(Flags & CU_EVENT_WAIT_EXTERNAL) && is_past(event))
        return CUDA_SUCCESS;
    struct gv_operation *operation;
    GV_TRY(gv_event_make_wait(hEvent, &operation));
    return gv_stream_submit(stream, operation);
}
