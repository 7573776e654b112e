/* SPDX-License-Identifier: Apache-2.0
 *
 * What happened to the devices: a ring of events, as NVML gives them out. A set of NVML remembers how far it has read.
 */
#ifndef GPUVIRT_SOFTGPU_BOARD_EVENTS_H
#define GPUVIRT_SOFTGPU_BOARD_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct gv_board;

enum { GV_BOARD_EVENTS = 128 };

/* Types are those of nvml.h (nvmlEventType*). */
enum {
    GV_EVENT_ECC_CORRECTED = 1,   /* nvmlEventTypeSingleBitEccError */
    GV_EVENT_ECC_UNCORRECTED = 2, /* nvmlEventTypeDoubleBitEccError */
    GV_EVENT_XID = 8,             /* nvmlEventTypeXidCriticalError */
};

struct gv_board_event {
    uint64_t number; /* 1, 2, ...: its place is number % GV_BOARD_EVENTS */
    uint64_t type;
    uint64_t data; /* of an Xid: its number */
    uint64_t at_ns;
    uint32_t device;
    uint32_t pid; /* of the process to blame; 0: none. The kernel's log has it, NVML does not */
};

struct gv_board_events {
    uint64_t last; /* (atomic, written under lock) number of the newest */
    uint32_t bell; /* (atomic) grows with each event; a futex */
    uint32_t reserved;
    struct gv_board_event ring[GV_BOARD_EVENTS]; /* (lock) */
};

void gv_board_raise(struct gv_board *board, uint32_t device, uint64_t type, uint64_t data, uint32_t pid);
/* The first event after `*after` that is of a type in types[its device]; `*after` moves to it, or to the newest there is.
 * Events that have been overwritten are skipped. */
bool gv_board_next_event(struct gv_board *board, uint64_t *after, const uint64_t *types, struct gv_board_event *event);
/* Until there may be an event newer than `after`, at most `limit_ns`. */
void gv_board_await_event(struct gv_board *board, uint64_t after, uint64_t limit_ns);

#endif
