/* SPDX-License-Identifier: Apache-2.0
 *
 * Which streams come after a free: its own, and those that have since waited for an event that was recorded behind it
 * (CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES). Only what is sure is remembered, and only a little: what is forgotten
 * makes an allocation take other memory.
 */
#ifndef GPUVIRT_SHIM_FOLLOW_H
#define GPUVIRT_SHIM_FOLLOW_H

#include <stdint.h>

#include "cuda_api.h"

/*
 * What orders a free before an allocation: a stream. A handle alone does not say which: the default streams have the same in
 * every context, the per-thread ones in every thread. And a destroyed stream's handle may come again: gv_pool_stream_ends.
 */
struct gv_order {
    CUstream stream;
    CUcontext context;
    uint64_t thread; /* of the per-thread default stream, else 0 */
};
#define GV_NO_STREAM ((CUstream) - 1)

enum { GV_FOLLOWED = 4 };

struct gv_follow {
    struct gv_order streams[GV_FOLLOWED];
    CUevent events[GV_FOLLOWED];
    uint64_t noted[GV_FOLLOWED]; /* when each event was, by the number of its record */
    uint8_t stream_count, event_count;
};

static inline int gv_same_order(struct gv_order a, struct gv_order b)
{
    return a.stream == b.stream && a.context == b.context && a.thread == b.thread;
}

static inline int gv_follow_has_stream(const struct gv_follow *follow, struct gv_order order)
{
    int found = 0;
    for (int i = 0; i < follow->stream_count; i++)
        found |= gv_same_order(follow->streams[i], order);
    return found;
}

static inline void gv_follow_add_stream(struct gv_follow *follow, struct gv_order order)
{
    if (follow->stream_count < GV_FOLLOWED && !gv_follow_has_stream(follow, order))
        follow->streams[follow->stream_count++] = order;
}

static inline void gv_follow_drop_stream(struct gv_follow *follow, CUstream stream)
{
    for (int i = 0; i < follow->stream_count; i++)
        if (follow->streams[i].stream == stream)
            follow->streams[i].stream = GV_NO_STREAM;
}

/* Was the event recorded behind the free, by a record noted as `ticket` or before? */
static inline int gv_follow_has_event(const struct gv_follow *follow, CUevent event, uint64_t ticket)
{
    int found = 0;
    for (int i = 0; i < follow->event_count; i++)
        found |= follow->events[i] == event && follow->noted[i] <= ticket;
    return found;
}

static inline void gv_follow_add_event(struct gv_follow *follow, CUevent event, uint64_t number)
{
    if (follow->event_count == GV_FOLLOWED)
        return;
    follow->events[follow->event_count] = event;
    follow->noted[follow->event_count++] = number;
}

/* Its record is not the one that was noted any more. */
static inline void gv_follow_drop_event(struct gv_follow *follow, CUevent event)
{
    for (int i = 0; i < follow->event_count;) {
        if (follow->events[i] == event) {
            follow->events[i] = follow->events[--follow->event_count];
            follow->noted[i] = follow->noted[follow->event_count];
        } else {
            i++;
        }
    }
}

#endif
