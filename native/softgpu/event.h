/* SPDX-License-Identifier: Apache-2.0
 *
 * Events: each record gets the next number; `done` is the last record that the stream has reached.
 */
#ifndef GPUVIRT_SOFTGPU_EVENT_H
#define GPUVIRT_SOFTGPU_EVENT_H

#include "stream.h"

struct gv_event {
    struct gv_object object;
    struct gv_context *context;
    unsigned flags;
    _Atomic uint64_t recorded; /* number of the last record call; never reset */
    uint64_t created_at;       /* value of `recorded` when created: equal = not recorded yet */
    struct gv_gauge done;      /* never reset */
    _Atomic uint64_t time_ns;  /* of the record `done` */
};

bool gv_is_event_record(const struct gv_operation *operation);

#endif
