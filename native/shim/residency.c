/* SPDX-License-Identifier: Apache-2.0
 *
 * Batches of pieces: which ones move, and when they may be touched again. See transaction.h.
 */
#include <stdlib.h>

#include "blocks.h"
#include "failpoints.h"
#include "gate.h"
#include "session.h"
#include "settled.h"
#include "transaction.h"

#define WINDOW_MOST (256ull << 20)
enum { WINDOWS_PER_DEVICE = 32, EXTENTS_PER_WINDOW = 2 };

/* Under the lock. */
static void look(struct gv_memory_report *report)
{
    report->charged = gv_memory_charged();
    report->resident = gv_memory_resident();
    report->fixed = gv_memory.fixed_bytes + gv_memory.kept_bytes;
}

void gv_extents_report(struct gv_memory_report *report)
{
    pthread_mutex_lock(&gv_memory.lock);
    look(report);
    pthread_mutex_unlock(&gv_memory.lock);
}

void gv_extents_tell(struct gv_memory_report *report)
{
    pthread_mutex_lock(&gv_memory.lock);
    look(report);
    gv_memory.granted = report->charged;
    gv_memory.reports++;
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
    const int news = report.charged != gv_memory.reported || report.charged < gv_memory.granted;
    if ((news && gv_load32(&gv_gate.lease->clients) > 1) || fixed_change >= gv_memory_granule())
        gv_session_poke(GV_POKE_MEMORY);
}

uint64_t gv_window_bytes(void)
{
    uint64_t window = WINDOW_MOST;
    while (window > EXTENTS_PER_WINDOW * gv_memory_granule() && window * WINDOWS_PER_DEVICE > gv_memory.total)
        window /= 2;
    return window;
}

/* --- collecting ----------------------------------------------------------------------------------------------------------- */

/* Under the lock: the piece is the control thread's until it is settled. Returns 1 if it was there and is absent now. */
static int add(struct gv_batch *batch, struct gv_piece *piece)
{
    const int lost = piece->mapped && piece->live != 0;
    piece->moving = 1;
    piece->mapped = 0;
    batch->pieces[batch->count++] = piece;
    batch->extents += !piece->is_block;
    batch->bytes += gv_piece_bytes(piece);
    return lost;
}

static int is_absent(const struct gv_piece *piece) { return !piece->moving && piece->live != 0 && !piece->mapped; }

/* Under the lock: adds the piece if the batch has room and the device is allowed to. 0: it does not fit. */
static int add_if_fits(struct gv_batch *batch, struct gv_piece *piece, uint64_t most)
{
    const uint64_t bytes = batch->bytes + gv_piece_bytes(piece);
    batch->pieces[batch->count] = piece;
    const uint64_t cached = gv_extents_cached_for(batch->pieces, batch->extents + !piece->is_block);
    if (gv_memory_resident() + bytes - cached > most || (batch->count != 0 && bytes > gv_window_bytes()))
        return 0;
    add(batch, piece);
    return 1;
}

static int add_absent(struct gv_batch *batch, uint64_t most)
{
    for (uint64_t i = 0; i < gv_memory.extents_touched; i++)
        if (is_absent(&gv_memory.extents[i]) && !add_if_fits(batch, &gv_memory.extents[i], most))
            return 1;
    for (struct gv_block *block = gv_memory.blocks; block != NULL; block = block->next)
        if (is_absent(&block->piece) && !add_if_fits(batch, &block->piece, most))
            return 1;
    return 0;
}

static uint64_t add_blocks(struct gv_batch *batch, uint64_t wanted, int in_use)
{
    uint64_t lost = 0;
    for (struct gv_block *block = gv_memory.blocks; block != NULL && batch->bytes < wanted; block = block->next) {
        struct gv_piece *const piece = &block->piece;
        if (piece->mapped && !piece->moving && !piece->kept && (piece->live != 0) == in_use)
            lost += (uint64_t)add(batch, piece);
    }
    return lost;
}

/* At least `wanted` bytes, if there are so many that may move. Blocks that are mapped nowhere are missed least. */
static uint64_t add_mapped(struct gv_batch *batch, uint64_t wanted)
{
    uint64_t lost = add_blocks(batch, wanted, 0);
    for (uint64_t i = gv_memory.extents_touched; i-- > 0 && batch->bytes < wanted;) {
        struct gv_piece *const extent = &gv_memory.extents[i];
        if (!extent->moving && extent->live != 0 && extent->mapped && !extent->kept)
            lost += (uint64_t)add(batch, extent);
    }
    return lost + add_blocks(batch, wanted, 1);
}

/* Takes the lock when no thread of the program calls the driver for a block. 0, or -1 (unlocked) without host memory. */
static int begin_batch(struct gv_batch *batch)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.mover_waits = 1;
    while (gv_memory.claims != 0)
        gv_wait_settled(&gv_memory.settled, &gv_memory.lock, NULL);
    gv_memory.mover_waits = 0;
    pthread_cond_broadcast(&gv_memory.settled);
    *batch = (struct gv_batch){
        .pieces = malloc((gv_memory.extents_touched + gv_memory.block_count + 1) * sizeof *batch->pieces)};
    if (batch->pieces == NULL)
        pthread_mutex_unlock(&gv_memory.lock);
    return batch->pieces != NULL ? 0 : -1;
}

int gv_batch_absent(struct gv_batch *batch, uint64_t most, int *waiting)
{
    *waiting = 0;
    if (begin_batch(batch) != 0)
        return -1;
    const int left = add_absent(batch, most);
    *waiting = batch->count == 0 && left;
    pthread_mutex_unlock(&gv_memory.lock);
    return 0;
}

int gv_batch_mapped(struct gv_batch *batch, uint64_t wanted)
{
    if (begin_batch(batch) != 0)
        return -1;
    const uint64_t lost = add_mapped(batch, wanted);
    /* Still under the lock: who frees one of them now takes it off the count, which must not go below zero. */
    if (lost != 0)
        __atomic_fetch_add(&gv_gate.obstacles, lost, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&gv_memory.lock);
    return 0;
}

void gv_batch_free(struct gv_batch *batch)
{
    free(batch->pieces);
    *batch = (struct gv_batch){0};
}

int gv_absent_bytes(uint64_t *bytes, uint64_t *after)
{
    struct gv_batch all;
    if (begin_batch(&all) != 0)
        return -1;
    for (uint64_t i = 0; i < gv_memory.extents_touched; i++)
        if (is_absent(&gv_memory.extents[i]))
            all.pieces[all.extents++] = &gv_memory.extents[i];
    for (uint64_t i = 0; i < all.extents; i++)
        all.bytes += gv_piece_bytes(all.pieces[i]);
    for (struct gv_block *block = gv_memory.blocks; block != NULL; block = block->next)
        all.bytes += is_absent(&block->piece) ? block->bytes : 0;
    *bytes = all.bytes;
    *after = gv_memory_resident() + all.bytes - gv_extents_cached_for(all.pieces, all.extents);
    pthread_mutex_unlock(&gv_memory.lock);
    gv_batch_free(&all);
    return 0;
}

/* --- settling ------------------------------------------------------------------------------------------------------------- */

void gv_settle_mapped(struct gv_piece *const *pieces, uint64_t count)
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

void gv_settle_absent(struct gv_piece *const *pieces, uint64_t count)
{
    uint64_t unused = 0;
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < count; i++) {
        pieces[i]->moving = 0;
        unused += pieces[i]->live == 0 && !pieces[i]->is_block;
    }
    pthread_cond_broadcast(&gv_memory.settled);
    pthread_mutex_unlock(&gv_memory.lock);
    if (unused != 0) /* who freed them meanwhile had to leave their content to us */
        gv_extents_vacated(0, gv_memory.extents_touched - 1);
}

/* --- physical memory ------------------------------------------------------------------------------------------------------ */

void gv_piece_drop(struct gv_piece *piece)
{
    if (piece->is_block)
        gv_block_drop(gv_block_of(piece));
    else
        gv_extent_drop(piece, 0);
}

static CUresult bring(struct gv_piece *piece)
{
    if (gv_failpoint(GV_FAIL_RESTORE_CREATE))
        return CUDA_ERROR_OUT_OF_MEMORY;
    return piece->is_block ? gv_block_bring(gv_block_of(piece)) : gv_extent_bring(piece);
}

CUresult gv_batch_bring(const struct gv_batch *batch)
{
    CUresult result = CUDA_SUCCESS;
    uint64_t done = 0;
    while (done < batch->count && (result = bring(batch->pieces[done])) == CUDA_SUCCESS)
        done++;
    if (result == CUDA_SUCCESS && gv_failpoint(GV_FAIL_RESTORE_ACCESS))
        result = CUDA_ERROR_UNKNOWN;
    if (result == CUDA_SUCCESS)
        result = gv_extents_open(batch->pieces, batch->extents);
    if (result == CUDA_SUCCESS)
        result = gv_blocks_open(batch->pieces + batch->extents, batch->count - batch->extents);
    while (result != CUDA_SUCCESS && done-- > 0)
        gv_piece_drop(batch->pieces[done]);
    return result;
}
