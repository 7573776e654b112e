/* SPDX-License-Identifier: Apache-2.0 */
#include "moves.h"

#include "evict.h"
#include "failpoints.h"
#include "gate.h"
#include "graph_memory.h"
#include "restore.h"
#include "room.h"
#include "session.h"
#include "swap.h"

static uint64_t restore_began;

void gv_moves_forget(void)
{
    gv_restore_forget();
    gv_swap_reset();
}

static void add(uint64_t *field, uint64_t more) { gv_store64(field, *field + more); }

static void count(uint16_t type, const struct gv_move *move)
{
    struct gv_client *const page = gv_session.client;
    add(type == GV_EVICTED ? &page->out_bytes : &page->in_bytes, move->bytes_moved);
    if (type == GV_EVICTED) {
        add(&page->zero_bytes, move->zero_bytes);
        add(&page->clean_bytes, move->clean_bytes);
        add(&page->duplicate_bytes, move->duplicate_bytes);
    }
    add(&page->copy_ns, move->copy_ns);
    add(&page->hash_ns, move->hash_ns);
    add(&page->map_ns, move->map_ns);
}

static void tell_moved(uint16_t type, const struct gv_move *move, uint64_t began)
{
    gv_extents_publish();
    const struct gv_memory_report report = gv_control_report();
    count(type, move);
    struct gv_moved message = {.status = move->status,
                               .charged_bytes = report.charged,
                               .resident_bytes = report.resident,
                               .moved_bytes = move->bytes_moved,
                               .short_bytes = move->bytes_short,
                               .duration_ns = gv_now_ns() - began,
                               .native_bytes = report.fixed,
                               .zero_bytes = move->zero_bytes,
                               .clean_bytes = move->clean_bytes,
                               .duplicate_bytes = move->duplicate_bytes,
                               .copy_ns = move->copy_ns,
                               .hash_ns = move->hash_ns,
                               .map_ns = move->map_ns};
    const int lost = gv_failpoint(type == GV_EVICTED ? GV_FAIL_EVICT_END : GV_FAIL_RESTORE_END);
    gv_control_tell(lost ? 0 : type, &message, sizeof message); /* no type at all: the daemon hangs up */
}

/* --- restore -------------------------------------------------------------------------------------------------------------- */

static void restored(const struct gv_move *move)
{
    gv_control_served();
    tell_moved(GV_RESTORED, move, restore_began);
    gv_gate_notify();
    gv_room_answered(move->status == CUDA_SUCCESS);
}

static void restore(const struct gv_restore *message)
{
    if (!gv_restore_under_way())
        restore_began = gv_now_ns();
    /* Fixed memory that the driver refused is told first, by the answer that says so: the daemon makes room and asks again. */
    const struct gv_move refused = {.status = CUDA_ERROR_OUT_OF_MEMORY, .bytes_short = gv_room_missing()};
    if (refused.bytes_short != 0 && !gv_restore_under_way())
        restored(&refused);
    else
        gv_restore_begin(message->allowance, message->credit);
}

int gv_moves_go_on(void)
{
    struct gv_move move;
    const enum gv_restore_state state = gv_restore_go_on(&move);
    if (state == GV_RESTORE_ENDED)
        restored(&move);
    if (state == GV_RESTORE_NEEDS_CREDIT) { /* that may last: what is in is in */
        gv_extents_publish();
        gv_control_tell_memory();
    }
    return state == GV_RESTORE_AGAIN;
}

void gv_moves_lost(void)
{
    if (!gv_restore_under_way())
        return;
    gv_restore_stop();
    gv_extents_publish();
    gv_gate_notify();
}

int gv_moves_grow(void)
{
    if (gv_restore_under_way())
        return 1; /* it will be answered */
    const int room_wanted = gv_room_wanted();
    if ((gv_gate.obstacles & GV_ABSENT_MASK) == 0 && !room_wanted)
        return 1;
    const struct gv_move move = gv_restore_now(gv_memory.allowance);
    gv_extents_publish();
    if (move.status == CUDA_SUCCESS) /* else who waits would ask again at once, and so would we */
        gv_gate_notify();
    if (move.status != CUDA_SUCCESS || (gv_gate.obstacles & GV_ABSENT_MASK) != 0 || room_wanted)
        return 0;
    count(GV_RESTORED, &move);
    gv_control_tell_memory();
    return 1;
}

/* --- evict ---------------------------------------------------------------------------------------------------------------- */

static int tell_progress(void)
{
    gv_extents_publish();
    struct gv_progress message = {.resident_bytes = gv_control_report().resident};
    gv_control_tell(gv_failpoint(GV_FAIL_EVICT_PROGRESS) ? 0 : GV_PROGRESS, &message, sizeof message);
    return gv_control_connected() ? 0 : -1;
}

static void evict(uint64_t target)
{
    const uint64_t began = gv_now_ns();
    struct gv_move move = {.status = CUDA_ERROR_ILLEGAL_STATE};
    /* Never unmap under a lease: the daemon may be wrong, the data must not be. */
    if (!gv_holds_lease(gv_load32(&gv_session.lease->word)) && !gv_restore_under_way()) {
        gv_graph_memory_trim();
        move = gv_evict(target, tell_progress);
    }
    tell_moved(GV_EVICTED, &move, began);
}

void gv_moves_take(const union gv_packet *packet)
{
    switch (packet->header.type) {
    case GV_RESTORE:
        if (packet->header.size >= sizeof packet->restore)
            restore(&packet->restore);
        break;
    case GV_CREDIT:
        if (packet->header.size >= sizeof packet->credit)
            gv_restore_credit(packet->credit.credit, (int)packet->credit.cancelled);
        break;
    case GV_EVICT:
        if (packet->header.size >= sizeof packet->evict)
            evict(packet->evict.target);
        break;
    default:
        break;
    }
}
