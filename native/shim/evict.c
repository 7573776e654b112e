/* SPDX-License-Identifier: Apache-2.0 */
#include "evict.h"

#include "failpoints.h"
#include "gate.h"
#include "swap.h"
#include "transaction.h"

enum {
    WINDOWS_AT_ONCE = 8
}; /* given to the copy engine together; host memory is reserved for so many before any leaves */

static struct {
    int (*progress)(void);
    uint64_t released, settled; /* pieces of the batch: without physical memory; of them, settled */
    uint64_t bytes;             /* of them, since the last progress */
    struct gv_batch batch;
    struct gv_move move;
} evict;

/* Extents in use, and handles that are kept, are counted in what is resident; all of it is to come down to the target. */
static uint64_t surplus(uint64_t target)
{
    pthread_mutex_lock(&gv_memory.lock);
    const uint64_t resident = gv_memory_resident();
    pthread_mutex_unlock(&gv_memory.lock);
    return resident > target ? resident - target : 0;
}

static void settle_released(void)
{
    gv_settle_absent(evict.batch.pieces + evict.settled, evict.released - evict.settled);
    evict.settled = evict.released;
}

/* The content of the next piece of the batch is safe. After an error no more leaves. */
static void release(struct gv_piece *piece, void *context)
{
    (void)context;
    if (evict.move.status != CUDA_SUCCESS)
        return;
    const uint64_t began = gv_now_ns();
    gv_piece_drop(piece);
    evict.move.map_ns += gv_now_ns() - began;
    evict.released++;
    evict.bytes += gv_piece_bytes(piece);
    if (evict.bytes < gv_window_bytes())
        return;
    evict.bytes = 0;
    settle_released();
    if (evict.progress() != 0)
        evict.move.status = CUDA_ERROR_NOT_READY;
}

static void evict_batch(void)
{
    struct gv_swap_counts counts = {0};
    uint64_t safe = 0;
    evict.released = evict.settled = 0;
    const CUresult result = gv_swap_copy_out(evict.batch.pieces, evict.batch.count, release, NULL, &counts, &safe);
    gv_move_count(&evict.move, &counts);
    if (evict.move.status == CUDA_SUCCESS)
        evict.move.status = result;
    settle_released();
    gv_settle_mapped(evict.batch.pieces + evict.released, evict.batch.count - evict.released);
}

struct gv_move gv_evict(uint64_t target, int (*progress)(void))
{
    if (gv_failpoint(GV_FAIL_EVICT_BEGIN))
        return (struct gv_move){.status = CUDA_ERROR_UNKNOWN};
    evict.move = (struct gv_move){0};
    evict.progress = progress;
    evict.bytes = 0;
    pthread_mutex_lock(&gv_memory.lock);
    if (target < gv_memory.fixed_bytes + gv_memory.kept_bytes)
        target = gv_memory.fixed_bytes + gv_memory.kept_bytes; /* the answer says what stayed */
    gv_memory.allowance = target;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_extents_release_unused(0, gv_memory.extents_touched == 0 ? 0 : gv_memory.extents_touched - 1);
    gv_extents_release_cached(surplus(target));
    for (uint64_t wanted; evict.move.status == CUDA_SUCCESS && (wanted = surplus(target)) != 0;) {
        const uint64_t most = WINDOWS_AT_ONCE * gv_window_bytes();
        if (gv_batch_mapped(&evict.batch, wanted < most ? wanted : most) != 0) {
            evict.move.status = CUDA_ERROR_OUT_OF_MEMORY;
            break;
        }
        const uint64_t count = evict.batch.count;
        if (count != 0)
            evict_batch();
        gv_batch_free(&evict.batch);
        if (count == 0)
            break; /* nothing is left that may move */
    }
    return evict.move;
}
