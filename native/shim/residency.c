/* SPDX-License-Identifier: Apache-2.0
 *
 * The two transactions of the control thread over all pieces, extents and blocks alike: restore brings in all that is absent,
 * evict takes out enough to come down to a target. Either all of it is done, or what was there before is there again.
 */
#include <stdlib.h>

#include "blocks.h"
#include "failpoints.h"
#include "gate.h"
#include "memory.h"
#include "session.h"
#include "settled.h"
#include "swap.h"

void gv_extents_report(struct gv_memory_report *report)
{
    pthread_mutex_lock(&gv_memory.lock);
    report->charged = gv_memory_charged();
    report->resident = gv_memory_resident();
    report->fixed = gv_memory.fixed_bytes + gv_memory.kept_bytes;
    pthread_mutex_unlock(&gv_memory.lock);
}

void gv_extents_publish(void)
{
    if (gv_gate.obstacles & GV_UNATTACHED)
        return;
    struct gv_memory_report report;
    gv_extents_report(&report);
    gv_store64(&gv_client_page()->charged_bytes, report.charged);
    gv_store64(&gv_client_page()->resident_bytes, report.resident);
    gv_store64(&gv_client_page()->native_bytes, report.fixed);
    const uint64_t fixed_change = report.fixed > gv_memory.reported_fixed ? report.fixed - gv_memory.reported_fixed
                                                                          : gv_memory.reported_fixed - report.fixed;
    if ((report.charged != gv_memory.reported && gv_load32(&gv_gate.lease->clients) > 1) ||
        fixed_change >= gv_memory_granule())
        gv_session_poke(GV_POKE_MEMORY);
}

/* --- lists of pieces ------------------------------------------------------------------------------------------------------ */

struct list {
    struct gv_piece **pieces; /* extents first, upwards; then blocks */
    uint64_t count, extents;
    uint64_t bytes;
};

static CUresult bring(struct gv_piece *piece)
{
    if (gv_failpoint(GV_FAIL_RESTORE_CREATE))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return piece->is_block ? gv_block_bring(gv_block_of(piece)) : gv_extent_bring(piece);
}

static void drop(struct gv_piece *piece)
{
    if (piece->is_block)
        gv_block_drop(gv_block_of(piece));
    else
        gv_extent_drop(piece, 0);
}

/* Under the lock: the piece is the control thread's until it is settled. Returns 1 if it was there and is absent now. */
static int add(struct list *list, struct gv_piece *piece)
{
    const int lost = piece->mapped && piece->live != 0;
    piece->moving = 1;
    piece->mapped = 0;
    list->pieces[list->count++] = piece;
    list->extents += !piece->is_block;
    list->bytes += gv_piece_bytes(piece);
    return lost;
}

static void add_absent(struct list *list)
{
    for (uint64_t i = 0; i < gv_memory.extents_touched; i++) {
        struct gv_piece *const extent = &gv_memory.extents[i];
        if (!extent->moving && extent->live != 0 && !extent->mapped)
            add(list, extent);
    }
    for (struct gv_block *block = gv_memory.blocks; block != NULL; block = block->next)
        if (block->piece.live != 0 && !block->piece.mapped)
            add(list, &block->piece);
}

static uint64_t add_blocks(struct list *list, uint64_t wanted, int in_use)
{
    uint64_t lost = 0;
    for (struct gv_block *block = gv_memory.blocks; block != NULL && list->bytes < wanted; block = block->next) {
        struct gv_piece *const piece = &block->piece;
        if (piece->mapped && !piece->moving && !piece->kept && (piece->live != 0) == in_use)
            lost += (uint64_t)add(list, piece);
    }
    return lost;
}

/* At least `wanted` bytes, if there are so many that may move. Blocks that are mapped nowhere are missed least. */
static uint64_t add_mapped(struct list *list, uint64_t wanted)
{
    uint64_t lost = add_blocks(list, wanted, 0);
    for (uint64_t i = gv_memory.extents_touched; i-- > 0 && list->bytes < wanted;) {
        struct gv_piece *const extent = &gv_memory.extents[i];
        if (!extent->moving && extent->live != 0 && extent->mapped && !extent->kept)
            lost += (uint64_t)add(list, extent);
    }
    return lost + add_blocks(list, wanted, 1);
}

/* Marks pieces moving: all that are absent, or mapped ones of `wanted` bytes. 0, or -1 without host memory. */
static int collect(struct list *list, int absent, uint64_t wanted)
{
    uint64_t lost = 0;
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.mover_waits = 1;
    while (gv_memory.claims != 0)
        gv_wait_settled(&gv_memory.settled, &gv_memory.lock, NULL);
    gv_memory.mover_waits = 0;
    pthread_cond_broadcast(&gv_memory.settled);
    *list =
        (struct list){.pieces = malloc((gv_memory.extents_touched + gv_memory.block_count + 1) * sizeof *list->pieces)};
    if (list->pieces != NULL && absent)
        add_absent(list);
    else if (list->pieces != NULL)
        lost = add_mapped(list, wanted);
    /* Still under the lock: who frees one of them now takes it off the count, which must not go below zero. */
    if (lost != 0)
        __atomic_fetch_add(&gv_gate.obstacles, lost, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&gv_memory.lock);
    return list->pieces != NULL ? 0 : -1;
}

/* The pieces may be touched from now on. Extents that went out of use meanwhile are unmapped again. */
static void settle_mapped(struct gv_piece *const *pieces, uint64_t count)
{
    uint64_t present = 0, unused = 0;
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < count; i++) {
        struct gv_piece *const piece = pieces[i];
        piece->mapped = 1;
        piece->moving = 0;
        piece->saved = 0; /* the place is kept for the next time, but the program may now write */
        present += piece->live != 0;
        unused += piece->live == 0 && !piece->is_block;
    }
    if (present != 0)
        __atomic_fetch_sub(&gv_gate.obstacles, present, __ATOMIC_ACQ_REL);
    pthread_cond_broadcast(&gv_memory.settled);
    pthread_mutex_unlock(&gv_memory.lock);
    if (unused != 0)
        gv_extents_release_unused(0, gv_memory.extents_touched - 1);
}

static void settle_absent(struct gv_piece *const *pieces, uint64_t count)
{
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < count; i++)
        pieces[i]->moving = 0;
    pthread_cond_broadcast(&gv_memory.settled);
    pthread_mutex_unlock(&gv_memory.lock);
}

/* --- restore -------------------------------------------------------------------------------------------------------------- */

/* The end of a restore: the allowance counts from now on, unless it came to nothing. */
static void end_restore(const struct gv_move *move, uint64_t allowance)
{
    pthread_mutex_lock(&gv_memory.lock);
    if (move->status == CUDA_SUCCESS)
        gv_memory.allowance = allowance;
    gv_memory.restoring = 0;
    pthread_mutex_unlock(&gv_memory.lock);
}

/* What will be resident with all of the list, which is taken from now on. */
static uint64_t begin_restore(const struct list *list)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.restoring = 1; /* what follows is counted now and taken later */
    const uint64_t cached = gv_extents_cached_for(list->pieces, list->extents);
    const uint64_t after = gv_memory_resident() + list->bytes - cached;
    pthread_mutex_unlock(&gv_memory.lock);
    return after;
}

struct gv_move gv_extents_restore(uint64_t allowance)
{
    struct gv_move move = {CUDA_SUCCESS, 0, 0};
    struct list list;
    if (gv_failpoint(GV_FAIL_RESTORE_BEGIN))
        return (struct gv_move){CUDA_ERROR_UNKNOWN, 0, 0};
    if (collect(&list, 1, 0) != 0)
        return (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, 0};
    uint64_t after = begin_restore(&list);
    /* Blocks cannot use the handles that are kept for extents: those go first. */
    if (after > allowance && gv_extents_release_cached(after - allowance) != 0)
        after = begin_restore(&list);
    if (after > allowance) {
        move = (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, after - allowance};
        settle_absent(list.pieces, list.count);
        end_restore(&move, allowance);
        free(list.pieces);
        return move;
    }
    uint64_t done = 0, bytes = 0;
    while (done < list.count && (move.status = bring(list.pieces[done])) == CUDA_SUCCESS)
        bytes += gv_piece_bytes(list.pieces[done++]);
    if (move.status == CUDA_SUCCESS && gv_failpoint(GV_FAIL_RESTORE_ACCESS))
        move.status = CUDA_ERROR_UNKNOWN;
    if (move.status == CUDA_SUCCESS)
        move.status = gv_extents_open(list.pieces, list.extents);
    if (move.status == CUDA_SUCCESS)
        move.status = gv_blocks_open(list.pieces + list.extents, list.count - list.extents);
    if (move.status == CUDA_SUCCESS)
        move.status = gv_swap_copy_in(list.pieces, list.count, &move.bytes_moved);
    if (move.status == CUDA_SUCCESS) {
        settle_mapped(list.pieces, list.count);
    } else {
        /* Roll back: the arena still holds everything, `saved` was not touched. */
        if (move.status == CUDA_ERROR_OUT_OF_MEMORY)
            move.bytes_short = list.bytes - bytes;
        while (done-- > 0)
            drop(list.pieces[done]);
        settle_absent(list.pieces, list.count);
    }
    end_restore(&move, allowance);
    free(list.pieces);
    return move;
}

/* --- evict ---------------------------------------------------------------------------------------------------------------- */

struct gv_move gv_extents_evict(uint64_t target)
{
    struct gv_move move = {CUDA_SUCCESS, 0, 0};
    if (gv_failpoint(GV_FAIL_EVICT_BEGIN))
        return (struct gv_move){CUDA_ERROR_UNKNOWN, 0, 0};
    pthread_mutex_lock(&gv_memory.lock);
    if (target < gv_memory.fixed_bytes + gv_memory.kept_bytes)
        target = gv_memory.fixed_bytes + gv_memory.kept_bytes; /* the answer says what stayed */
    gv_memory.allowance = target;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_extents_release_unused(0, gv_memory.extents_touched == 0 ? 0 : gv_memory.extents_touched - 1);
    pthread_mutex_lock(&gv_memory.lock);
    uint64_t resident = gv_memory_resident();
    pthread_mutex_unlock(&gv_memory.lock);
    if (resident > target)
        resident -= gv_extents_release_cached(resident - target);
    if (resident <= target)
        return move;
    struct list list;
    if (collect(&list, 0, resident - target) != 0)
        return (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, 0};
    uint64_t out = 0;
    move.status = gv_swap_copy_out(list.pieces, list.count, drop, &out);
    for (uint64_t i = 0; i < out; i++)
        move.bytes_moved += gv_piece_bytes(list.pieces[i]);
    settle_absent(list.pieces, out);
    if (out != list.count)
        settle_mapped(list.pieces + out, list.count - out);
    free(list.pieces);
    return move;
}
