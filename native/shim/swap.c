/* SPDX-License-Identifier: Apache-2.0 */
#include "swap.h"

#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "blocks.h"
#include "contexts.h"
#include "failpoints.h"
#include "gate.h"
#include "log.h"
#include "real_driver.h"
#include "session.h"

/* Where the copy engine reaches the piece; what had to be mapped for that is unmapped by close_window. */
static CUresult open_window(struct gv_piece *piece, CUdeviceptr *address)
{
    if (piece->is_block)
        return gv_block_open_window(gv_block_of(piece), address);
    *address = gv_piece_address(piece);
    return CUDA_SUCCESS;
}

static void close_window(struct gv_piece *piece)
{
    if (piece->is_block)
        gv_block_close_window(gv_block_of(piece));
}

/* How many pages from this one on lie in one pinned piece of the arena, one behind the other. */
static uint64_t run_of(const gv_slot *slots, uint64_t count, uint8_t **host)
{
    uint32_t pinned;
    uint64_t run = 1;
    *host = gv_arena_address(slots[0], &pinned);
    while (run < count && run < pinned && slots[run] == slots[0] + (gv_slot)run)
        run++;
    return run;
}

/* Submits the copy of a whole piece, in one part for each such run. */
static CUresult copy(const struct gv_piece *piece, CUdeviceptr address, int out, CUstream stream)
{
    const uint64_t count = gv_piece_bytes(piece) / GV_MEMORY_PAGE;
    CUresult result = CUDA_SUCCESS;
    if (gv_failpoint(out ? GV_FAIL_EVICT_COPY : GV_FAIL_RESTORE_COPY))
        return CUDA_ERROR_UNKNOWN;
    for (uint64_t page = 0; page < count && result == CUDA_SUCCESS;) {
        uint8_t *host;
        const uint64_t run = run_of(piece->slots + page, count - page, &host), bytes = run * GV_MEMORY_PAGE;
        const CUdeviceptr at = address + page * GV_MEMORY_PAGE;
        result = out ? REAL(cuMemcpyDtoHAsync_v2)(host, at, bytes, stream)
                     : REAL(cuMemcpyHtoDAsync_v2)(at, host, bytes, stream);
        page += run;
    }
    return result;
}

/* --- in ------------------------------------------------------------------------------------------------------------------- */

static struct {
    CUstream stream;    /* NULL: no group since the last finish */
    uint32_t submitted; /* groups */
    uint32_t ended;     /* of them; written by the driver's thread */
    uint64_t since;
    struct gv_piece **blocks; /* with a window that is open */
    uint64_t count, room;
} in;

void gv_swap_reset(void) { memset(&in, 0, sizeof in); }

/* A thread of the driver's. */
static void CUDA_CB group_ended(__attribute__((unused)) void *unused)
{
    __atomic_add_fetch(&in.ended, 1, __ATOMIC_RELEASE);
    gv_session_ring();
}

static CUresult note_window(struct gv_piece *piece)
{
    if (in.count == in.room) {
        const uint64_t room = in.room == 0 ? 16 : in.room * 2;
        struct gv_piece **const grown = realloc(in.blocks, room * sizeof *grown);
        if (grown == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        in.blocks = grown;
        in.room = room;
    }
    in.blocks[in.count++] = piece;
    return CUDA_SUCCESS;
}

static CUresult submit_in(struct gv_piece *piece)
{
    CUdeviceptr address = 0;
    CUresult result = piece->is_block ? note_window(piece) : CUDA_SUCCESS;
    if (result == CUDA_SUCCESS)
        result = open_window(piece, &address);
    return result == CUDA_SUCCESS ? copy(piece, address, 0, in.stream) : result;
}

CUresult gv_swap_submit_in(struct gv_piece *const *pieces, uint64_t count, struct gv_swap_counts *counts)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t i = 0; i < count && result == CUDA_SUCCESS; i++) {
        if (!pieces[i]->saved)
            continue;
        if (in.stream == NULL) {
            in.since = gv_now_ns();
            result = gv_contexts_enter();
            if (result == CUDA_SUCCESS && (in.stream = gv_contexts_stream()) == NULL)
                result = CUDA_ERROR_INVALID_HANDLE;
        }
        if (result == CUDA_SUCCESS)
            result = submit_in(pieces[i]);
        counts->copied += gv_piece_bytes(pieces[i]);
    }
    /* Without the call at its end a group counts as ended: who waits then waits in gv_swap_finish_in. */
    if (in.stream != NULL && REAL(cuLaunchHostFunc)(in.stream, group_ended, NULL) == CUDA_SUCCESS)
        in.submitted++;
    return result;
}

uint32_t gv_swap_under_way(void)
{
    const uint32_t open = in.submitted - __atomic_load_n(&in.ended, __ATOMIC_ACQUIRE);
    /* A context that was lost calls nobody. */
    return open != 0 && REAL(cuStreamQuery)(in.stream) == CUDA_ERROR_NOT_READY ? open : 0;
}

int gv_swap_holds_context(void) { return in.stream != NULL; }

CUresult gv_swap_finish_in(struct gv_swap_counts *counts)
{
    if (in.stream == NULL)
        return CUDA_SUCCESS;
    const CUresult result = REAL(cuStreamSynchronize)(in.stream);
    while (in.count-- > 0)
        close_window(in.blocks[in.count]);
    counts->copy_ns += gv_now_ns() - in.since;
    free(in.blocks);
    in.blocks = NULL;
    in.stream = NULL;
    in.count = in.room = 0;
    in.submitted = __atomic_load_n(&in.ended, __ATOMIC_ACQUIRE);
    return result;
}

/* --- out ------------------------------------------------------------------------------------------------------------------ */

void gv_swap_forget(struct gv_piece *piece)
{
    if (piece->slots == NULL)
        return;
    for (uint64_t page = 0; page < gv_piece_bytes(piece) / GV_MEMORY_PAGE; page++)
        gv_arena_release(piece->slots[page]);
    free(piece->slots);
    piece->slots = NULL;
    piece->saved = 0;
}

/* Host memory for all of them, before the first byte moves. Slots of a try that failed stay for the next one. */
static CUresult reserve_slots(struct gv_piece *const *pieces, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (pieces[i]->slots != NULL)
            continue;
        const uint64_t pages = gv_piece_bytes(pieces[i]) / GV_MEMORY_PAGE;
        gv_slot *const slots = malloc(pages * sizeof *slots);
        if (slots == NULL || gv_failpoint(GV_FAIL_EVICT_RESERVE) ||
            gv_arena_take((uint32_t)pages, slots) != CUDA_SUCCESS) {
            free(slots);
            gv_debug("no host memory to swap out %llu pieces", (unsigned long long)count);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        pthread_mutex_lock(&gv_memory.lock);
        pieces[i]->slots = slots;
        pthread_mutex_unlock(&gv_memory.lock);
    }
    return CUDA_SUCCESS;
}

static CUresult submit_out(struct gv_piece *piece, CUevent *event, CUstream stream)
{
    CUdeviceptr address = 0;
    CUresult result = open_window(piece, &address);
    if (result == CUDA_SUCCESS)
        result = copy(piece, address, 1, stream);
    if (result == CUDA_SUCCESS)
        result = REAL(cuEventCreate)(event, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
    if (result == CUDA_SUCCESS)
        result = REAL(cuEventRecord)(*event, stream);
    return result;
}

CUresult gv_swap_copy_out(struct gv_piece *const *pieces, uint64_t count,
                          void (*release)(struct gv_piece *piece, void *context), void *context,
                          struct gv_swap_counts *counts, uint64_t *done)
{
    const uint64_t began = gv_now_ns();
    *done = 0;
    CUresult result = gv_contexts_enter();
    if (result != CUDA_SUCCESS)
        return result;
    if (gv_gate_lost_context() !=
        CUDA_SUCCESS) { /* no copy is possible, and every byte is lost to the program anyway */
        for (; *done < count; (*done)++)
            release(pieces[*done], context);
        return CUDA_SUCCESS;
    }
    CUstream const stream = gv_contexts_stream();
    CUevent *const events = calloc(count, sizeof *events);
    if (stream == NULL || events == NULL) {
        free(events);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    result = reserve_slots(pieces, count);
    uint64_t submitted = 0, opened = 0;
    for (; submitted < count && result == CUDA_SUCCESS; opened++) {
        result = submit_out(pieces[submitted], &events[submitted], stream);
        submitted += result == CUDA_SUCCESS;
    }
    /* Unmap the first while the later ones copy. What was submitted is finished, also after an error further on. */
    for (CUresult finished = CUDA_SUCCESS; *done < submitted && finished == CUDA_SUCCESS;) {
        finished = gv_failpoint(GV_FAIL_EVICT_WAIT) ? CUDA_ERROR_UNKNOWN : REAL(cuEventSynchronize)(events[*done]);
        if (finished == CUDA_SUCCESS && gv_failpoint(GV_FAIL_EVICT_UNMAP))
            finished = CUDA_ERROR_UNKNOWN;
        if (finished != CUDA_SUCCESS) {
            result = finished;
            break;
        }
        pieces[*done]->saved = 1;
        close_window(pieces[*done]);
        counts->copied += gv_piece_bytes(pieces[*done]);
        release(pieces[(*done)++], context);
    }
    REAL(cuStreamSynchronize)(stream);
    for (uint64_t i = *done; i < opened; i++)
        close_window(pieces[i]);
    for (uint64_t i = 0; i < count; i++)
        if (events[i] != NULL)
            REAL(cuEventDestroy_v2)(events[i]);
    free(events);
    counts->copy_ns += gv_now_ns() - began;
    return result;
}
