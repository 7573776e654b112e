/* SPDX-License-Identifier: Apache-2.0 */
#include "board_events.h"
#include "board.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void gv_board_raise(struct gv_board *board, uint32_t device, uint64_t type, uint64_t data, uint32_t pid)
{
    struct gv_board_events *events = &board->events;
    gv_board_lock(board);
    const uint64_t number = events->last + 1;
    events->ring[number % GV_BOARD_EVENTS] = (struct gv_board_event){
        .number = number, .type = type, .data = data, .at_ns = gv_board_now_ns(), .device = device, .pid = pid};
    __atomic_store_n(&events->last, number, __ATOMIC_RELEASE);
    gv_board_unlock(board);
    __atomic_fetch_add(&events->bell, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &events->bell, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool gv_board_next_event(struct gv_board *board, uint64_t *after, const uint64_t *types, struct gv_board_event *event)
{
    struct gv_board_events *events = &board->events;
    bool found = false;
    gv_board_lock(board);
    if (events->last > GV_BOARD_EVENTS && *after < events->last - GV_BOARD_EVENTS)
        *after = events->last - GV_BOARD_EVENTS;
    while (!found && *after < events->last) {
        *event = events->ring[++*after % GV_BOARD_EVENTS];
        found = event->device < GV_BOARD_DEVICES && types[event->device] & event->type;
    }
    gv_board_unlock(board);
    return found;
}

void gv_board_await_event(struct gv_board *board, uint64_t after, uint64_t limit_ns)
{
    struct gv_board_events *events = &board->events;
    const uint32_t bell = __atomic_load_n(&events->bell, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&events->last, __ATOMIC_ACQUIRE) > after)
        return;
    const struct timespec limit = {(time_t)(limit_ns / 1000000000u), (long)(limit_ns % 1000000000u)};
    syscall(SYS_futex, &events->bell, FUTEX_WAIT, bell, &limit, NULL, 0);
}
