/* SPDX-License-Identifier: Apache-2.0
 *
 * Events: each record gets the next number; `done` is the last record that its stream has reached. Records in two streams may
 * be reached out of order: who waits holds the record that the wait is for.
 */
#ifndef GPUVIRT_SOFTGPU_EVENT_H
#define GPUVIRT_SOFTGPU_EVENT_H

#include "stream.h"

struct gv_captured_record;

struct gv_event {
    struct gv_object object;
    struct gv_context *context;
    unsigned flags;
    _Atomic uint64_t recorded;           /* number of the last record call; never reset */
    uint64_t created_at;                 /* value of `recorded` when created: equal = not recorded yet */
    struct gv_gauge done;                /* never reset */
    _Atomic uint64_t time_ns;            /* of the record `done` */
    pthread_mutex_t lock;                /* `last`, `after`; all zero is unlocked */
    struct gv_operation *last;           /* the last record, while the event lives; NULL: none */
    struct gv_captured_record *captured; /* under gv_capture_lock; NULL: last recorded in a stream that ran */
    struct gv_dependency after;          /* what the last record comes after: the stream and its number then */
    struct gv_event_slot *slot; /* of several processes: all numbers are there (ipc_event.c). NULL: of this one */
};

bool gv_is_event_record(const struct gv_operation *operation);

/* Events of several processes. NULL: none left. */
struct gv_event_slot *gv_event_slot_new(void);
void gv_event_slot_free(struct gv_event_slot *slot);
/* Has this process an event of several processes? Such cannot be checkpointed. */
bool gv_event_slots_used(void);
CUresult gv_event_slot_record(struct gv_event_slot *slot, struct gv_stream *stream);
CUresult gv_event_slot_wait(struct gv_event_slot *slot, struct gv_stream *stream);
bool gv_event_slot_done(struct gv_event_slot *slot);
void gv_event_slot_synchronise(struct gv_event_slot *slot);

/* Work on an event, for a stream or a graph. INVALID_VALUE when it is none. */
CUresult gv_event_make_record(CUevent event, struct gv_operation **operation);
CUresult gv_event_make_wait(CUevent event, struct gv_operation **operation);
CUresult gv_event_record(struct gv_event *event, struct gv_stream *stream);

#endif
