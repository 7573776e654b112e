/* SPDX-License-Identifier: Apache-2.0 */
#include "restore.h"

#include <stdlib.h>
#include <string.h>

#include "failpoints.h"
#include "gate.h"
#include "swap.h"
#include "transaction.h"

enum { WINDOWS_AHEAD = 4 }; /* given to the copy engine and not yet in: a cancelled restore waits for so many */

static struct {
    int active;
    uint64_t allowance, credit; /* bytes that may be resident in the end, and now */
    uint64_t before;            /* what the daemon had allowed before */
    struct gv_move move;
    uint64_t exhausted; /* the credit with which nothing more came in: it need not be tried again */
    /* Brought in, accessible, given to the copy engine: settled together when all of it is in. */
    struct gv_piece **flying;
    uint64_t count, room;
} restore;

int gv_restore_under_way(void) { return restore.active; }

void gv_restore_forget(void) { memset(&restore, 0, sizeof restore); }

/* Nobody else takes of the allowance while a restore fills it. */
static void publish_allowance(uint64_t allowance, int restoring)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.allowance = allowance;
    gv_memory.restoring = (uint8_t)restoring;
    pthread_mutex_unlock(&gv_memory.lock);
}

void gv_restore_begin(uint64_t allowance, uint64_t credit)
{
    if (!restore.active) {
        gv_restore_forget();
        restore.active = 1;
        restore.exhausted = UINT64_MAX;
        restore.before = gv_memory.allowance;
    }
    restore.allowance = allowance;
    gv_restore_credit(credit, 0);
    uint64_t absent, after = 0;
    int error = gv_absent_bytes(&absent, &after);
    if (after > allowance && gv_extents_release_cached(after - allowance) != 0)
        error = gv_absent_bytes(&absent, &after); /* kept handles are for extents alone: blocks cannot use them */
    if (gv_failpoint(GV_FAIL_RESTORE_BEGIN))
        restore.move.status = CUDA_ERROR_UNKNOWN;
    if (error != 0 || after > allowance) {
        restore.move.status = CUDA_ERROR_OUT_OF_MEMORY;
        restore.move.bytes_short = after > allowance ? after - allowance : 0;
    }
}

void gv_restore_credit(uint64_t credit, int cancelled)
{
    if (!restore.active)
        return;
    if (cancelled && restore.move.status == CUDA_SUCCESS)
        restore.move.status = CUDA_ERROR_NOT_READY;
    restore.credit = credit < restore.allowance ? credit : restore.allowance;
    publish_allowance(restore.credit, 1);
}

/* Waits for the copies that are under way; what is in may be touched, or, after an error, is absent as before. */
static void settle(void)
{
    struct gv_swap_counts counts = {0};
    const CUresult result = gv_swap_finish_in(&counts);
    gv_move_count(&restore.move, &counts);
    if (result == CUDA_SUCCESS) {
        gv_settle_mapped(restore.flying, restore.count);
    } else { /* the arena still holds everything, `saved` was not touched */
        restore.move.status = restore.move.status == CUDA_SUCCESS ? result : restore.move.status;
        for (uint64_t i = restore.count; i-- > 0;)
            gv_piece_drop(restore.flying[i]);
        gv_settle_absent(restore.flying, restore.count);
    }
    restore.count = 0;
}

static void end(struct gv_move *move)
{
    settle();
    uint64_t allowance = restore.credit;       /* less than was promised: something was given back meanwhile */
    if (restore.move.status != CUDA_SUCCESS) { /* what came in stays, and nothing more may come */
        struct gv_memory_report report;
        gv_extents_report(&report);
        allowance = restore.before > report.resident ? restore.before : report.resident;
        uint64_t absent, after;
        if (restore.move.status == CUDA_ERROR_OUT_OF_MEMORY && restore.move.bytes_short == 0 &&
            gv_absent_bytes(&absent, &after) == 0)
            restore.move.bytes_short = absent;
    }
    *move = restore.move;
    free(restore.flying);
    gv_restore_forget();
    publish_allowance(allowance, 0);
}

static int make_room(uint64_t more)
{
    if (restore.count + more <= restore.room)
        return 0;
    const uint64_t room = (restore.count + more) * 2;
    struct gv_piece **const grown = realloc(restore.flying, room * sizeof *grown);
    if (grown == NULL)
        return -1;
    restore.flying = grown;
    restore.room = room;
    return 0;
}

/* Creates, maps and opens the pieces of a window and gives them to the copy engine. After an error they are absent. */
static CUresult bring_window(const struct gv_batch *window)
{
    struct gv_swap_counts counts = {0};
    const uint64_t began = gv_now_ns();
    CUresult result = make_room(window->count) == 0 ? gv_batch_bring(window) : CUDA_ERROR_OUT_OF_MEMORY;
    const int there = result == CUDA_SUCCESS;
    restore.move.map_ns += gv_now_ns() - began;
    if (there)
        result = gv_swap_submit_in(window->pieces, window->count, &counts);
    gv_move_count(&restore.move, &counts);
    if (result == CUDA_SUCCESS) {
        memcpy(restore.flying + restore.count, window->pieces, window->count * sizeof *window->pieces);
        restore.count += window->count;
        return CUDA_SUCCESS;
    }
    if (there) {
        settle(); /* some of its copies may be under way */
        for (uint64_t i = window->count; i-- > 0;)
            gv_piece_drop(window->pieces[i]);
    }
    gv_settle_absent(window->pieces, window->count);
    return result;
}

/* The next absent pieces that the credit allows. 0: there are none; *waiting: more would come with more credit. */
static int next_window(struct gv_batch *window, int *waiting)
{
    int error = gv_batch_absent(window, restore.credit, waiting);
    if (error == 0 && *waiting && gv_extents_release_cached(gv_window_bytes()) != 0) {
        gv_batch_free(window); /* handles that are kept for extents took the place of a block */
        error = gv_batch_absent(window, restore.credit, waiting);
    }
    if (error != 0)
        restore.move.status = CUDA_ERROR_OUT_OF_MEMORY;
    return error == 0 && window->count != 0;
}

static enum gv_restore_state wait_or_end(int waiting, struct gv_move *move)
{
    if (gv_swap_under_way() != 0)
        return GV_RESTORE_WAITS;
    /* What became absent since it began, beyond the allowance, is for the next time. */
    if (!waiting || restore.credit == restore.allowance) {
        end(move);
        return GV_RESTORE_ENDED;
    }
    restore.exhausted = restore.credit;
    settle(); /* nothing moves while credit is waited for: the program may go on with what it has */
    if (gv_failpoint(GV_FAIL_RESTORE_CREDIT))
        restore.move.status = CUDA_ERROR_UNKNOWN;
    return restore.move.status == CUDA_SUCCESS ? GV_RESTORE_NEEDS_CREDIT : GV_RESTORE_AGAIN;
}

static enum gv_restore_state go_on(struct gv_move *move, uint32_t ahead)
{
    if (!restore.active)
        return GV_RESTORE_NONE;
    if (restore.move.status != CUDA_SUCCESS) {
        end(move);
        return GV_RESTORE_ENDED;
    }
    if (gv_swap_under_way() >= ahead || restore.exhausted == restore.credit)
        return GV_RESTORE_WAITS;
    struct gv_batch window = {0};
    int waiting;
    const int any = next_window(&window, &waiting);
    if (any)
        restore.move.status = bring_window(&window);
    gv_batch_free(&window);
    return any || restore.move.status != CUDA_SUCCESS ? GV_RESTORE_AGAIN : wait_or_end(waiting, move);
}

enum gv_restore_state gv_restore_go_on(struct gv_move *move) { return go_on(move, WINDOWS_AHEAD); }

struct gv_move gv_restore_now(uint64_t allowance)
{
    struct gv_move move = {0};
    gv_restore_begin(allowance, allowance);
    for (enum gv_restore_state state; (state = go_on(&move, UINT32_MAX)) != GV_RESTORE_ENDED;)
        if (state == GV_RESTORE_WAITS)
            settle();
    return move;
}

void gv_restore_stop(void)
{
    struct gv_move move;
    if (!restore.active)
        return;
    if (restore.move.status == CUDA_SUCCESS)
        restore.move.status = CUDA_ERROR_NOT_READY;
    end(&move);
}
