/* SPDX-License-Identifier: Apache-2.0
 *
 * The way out, as a pipeline of windows of pages:
 *
 *     hash k + 2, k + 1    |    decide k, give it slots, submit its copies    |    wait for k - 1, k - 2, release their pieces
 *
 * The device hashes and copies meanwhile, each on a stream of its own; this thread waits for the oldest copy only when enough
 * is under way behind it. Where windows are small several are hashed by one launch, a batch: a block hashes a page, and a
 * launch of a few blocks keeps no GPU busy. The first batch is one window: the first copy waits for it.
 */
#include <stdlib.h>
#include <string.h>

#include "contexts.h"
#include "elide.h"
#include "failpoints.h"
#include "gate.h"
#include "log.h"
#include "real_driver.h"
#include "swap_parts.h"
#include "transaction.h"

enum {
    HASH_AHEAD = 2,  /* batches; GV_HASH_BATCHES is one more */
    HASH_LEAST = 16, /* pages of a batch, where there are as many */
    COPY_AHEAD = 3,  /* windows given to the copy engine and not waited for */
};

static struct {
    struct gv_piece *const *pieces;
    uint64_t piece_count;
    void (*release)(struct gv_piece *piece, void *context);
    void *context;
    struct gv_swap_counts *counts;

    struct gv_item *items;   /* all pages of all pieces, in their order */
    struct gv_item **order;  /* of the window that is being copied, by address */
    struct gv_place *places; /* likewise, of those that are copied */
    uint64_t item_count, opened_items;
    uint64_t opened, released; /* pieces */

    uint64_t window; /* pages */
    uint64_t batch;  /* windows that are hashed by one launch */
    const struct gv_hash_key *key;
    CUstream stream;
    CUevent events[COPY_AHEAD];
} out;

void gv_swap_out_reset(void) { memset(&out, 0, sizeof out); /* handles of the parent's */ }

static uint64_t begin_of(uint64_t window) { return window * out.window; }
static uint64_t length_of(uint64_t window)
{
    const uint64_t left = out.item_count - begin_of(window);
    return left < out.window ? left : out.window;
}
static uint64_t batch_of(uint64_t window) { return (window + out.batch - 1) / out.batch; }
static uint64_t first_window_of(uint64_t batch) { return batch == 0 ? 0 : (batch - 1) * out.batch + 1; }

/* --- begin and end --------------------------------------------------------------------------------------------------------- */

static uint64_t window_pages(void)
{
    uint64_t pages = gv_window_bytes() / GV_MEMORY_PAGE / 2;
    pages = pages < GV_HASH_BATCH_PAGES ? pages : GV_HASH_BATCH_PAGES;
    return pages != 0 ? pages : 1;
}

static CUresult begin(void)
{
    out.item_count = 0;
    for (uint64_t i = 0; i < out.piece_count; i++) {
        if (gv_pages_of(out.pieces[i]) == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        out.item_count += gv_piece_pages(out.pieces[i]);
    }
    out.window = window_pages();
    out.batch = (HASH_LEAST + out.window - 1) / out.window;
    out.opened = out.opened_items = out.released = 0;
    out.items = calloc(out.item_count, sizeof *out.items);
    out.order = malloc(out.window * sizeof *out.order);
    out.places = malloc(out.window * sizeof *out.places);
    if (out.items == NULL || out.order == NULL || out.places == NULL || gv_elide_begin(out.items, out.item_count) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    out.stream = gv_contexts_stream();
    out.key = gv_swap_hash_key();
    CUresult result = out.stream != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    for (int i = 0; i < COPY_AHEAD && result == CUDA_SUCCESS; i++)
        result = REAL(cuEventCreate)(&out.events[i], CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC);
    return result;
}

static void end(void)
{
    if (out.stream != NULL)
        REAL(cuStreamSynchronize)(out.stream);
    if (out.key != NULL)
        gv_page_hash_settle(); /* after an error windows ahead are still being hashed */
    for (uint64_t i = out.released; i < out.opened; i++)
        gv_swap_close(out.pieces[i]);
    for (int i = 0; i < COPY_AHEAD; i++) {
        if (out.events[i] != NULL)
            REAL(cuEventDestroy_v2)(out.events[i]);
        out.events[i] = NULL;
    }
    gv_elide_end();
    free(out.items);
    free(out.order);
    free(out.places);
    out.items = NULL;
    out.order = NULL;
    out.places = NULL;
    out.key = NULL;
    out.stream = NULL;
}

/* --- hash ------------------------------------------------------------------------------------------------------------------ */

/* Makes the pieces reachable whose pages begin before item `last`. */
static CUresult open_until(uint64_t last)
{
    while (out.opened_items < last) {
        struct gv_piece *const piece = out.pieces[out.opened];
        CUdeviceptr address = 0;
        const CUresult result = gv_swap_open(piece, &address);
        if (result != CUDA_SUCCESS)
            return result;
        out.opened++;
        for (uint64_t i = 0; i < gv_piece_pages(piece); i++)
            out.items[out.opened_items++] =
                (struct gv_item){.page = &piece->pages[i], .address = address + i * GV_MEMORY_PAGE};
    }
    return CUDA_SUCCESS;
}

static CUresult submit_hash(uint64_t batch)
{
    CUdeviceptr pages[GV_HASH_BATCH_PAGES];
    const uint64_t first = begin_of(first_window_of(batch)), next = begin_of(first_window_of(batch + 1));
    const uint64_t count = (next < out.item_count ? next : out.item_count) - first;
    CUresult result = open_until(first + count);
    if (result == CUDA_SUCCESS && gv_failpoint(GV_FAIL_EVICT_HASH))
        result = CUDA_ERROR_UNKNOWN;
    if (result != CUDA_SUCCESS || out.key == NULL)
        return result;
    for (uint64_t i = 0; i < count; i++)
        pages[i] = out.items[first + i].address;
    return gv_page_hash_submit((uint32_t)(batch % GV_HASH_BATCHES), pages, (uint32_t)count, out.key);
}

/* --- copy ------------------------------------------------------------------------------------------------------------------ */

static int by_address(const void *left, const void *right)
{
    const struct gv_item *const a = *(struct gv_item *const *)left, *const b = *(struct gv_item *const *)right;
    return a->address < b->address ? -1 : a->address > b->address;
}

/* Takes slots for what must be copied of `order` and submits the copies, as few as can be. */
static CUresult copy(uint64_t count)
{
    if (gv_failpoint(GV_FAIL_EVICT_RESERVE))
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult result = gv_elide_reserve(out.order, count);
    if (result != CUDA_SUCCESS) {
        gv_debug("no host memory to swap out %llu pages", (unsigned long long)count);
        return result;
    }
    uint64_t places = 0;
    for (uint64_t i = 0; i < count; i++)
        if (out.order[i]->fate == GV_FATE_COPY)
            out.places[places++] = (struct gv_place){out.order[i]->address, out.order[i]->page->slot};
    if (places != 0 && gv_failpoint(GV_FAIL_EVICT_COPY))
        result = CUDA_ERROR_UNKNOWN;
    for (uint64_t i = 0; i < places && result == CUDA_SUCCESS;) {
        void *host;
        const uint64_t run = gv_swap_run(out.places + i, places - i, &host);
        result = REAL(cuMemcpyDtoHAsync_v2)(host, out.places[i].address, run * GV_MEMORY_PAGE, out.stream);
        i += run;
    }
    return result;
}

static CUresult decide_and_copy(uint64_t window)
{
    const uint64_t first = begin_of(window), count = length_of(window), began = gv_now_ns();
    const struct gv_page_hash *hashes = NULL;
    CUresult result = CUDA_SUCCESS;
    if (out.key != NULL)
        result = gv_page_hash_wait((uint32_t)(batch_of(window) % GV_HASH_BATCHES), &hashes);
    out.counts->hash_ns += gv_now_ns() - began;
    if (result != CUDA_SUCCESS)
        return result;
    gv_elide_decide(first, count,
                    hashes != NULL ? hashes + (first - begin_of(first_window_of(batch_of(window)))) : NULL);
    for (uint64_t i = 0; i < count; i++)
        out.order[i] = &out.items[first + i];
    qsort(out.order, count, sizeof *out.order, by_address);
    result = copy(count);
    return result == CUDA_SUCCESS ? REAL(cuEventRecord)(out.events[window % COPY_AHEAD], out.stream) : result;
}

/* --- release --------------------------------------------------------------------------------------------------------------- */

/* The page that it was the same as is found no more. */
static CUresult copy_alone(struct gv_item *item)
{
    item->fate = GV_FATE_COPY;
    out.order[0] = item;
    const CUresult result = copy(1);
    return result == CUDA_SUCCESS ? REAL(cuStreamSynchronize)(out.stream) : result;
}

static CUresult settle(struct gv_item *item)
{
    CUresult result = gv_elide_settle(item, out.counts);
    if (result == CUDA_ERROR_NOT_FOUND && (result = copy_alone(item)) == CUDA_SUCCESS)
        result = gv_elide_settle(item, out.counts);
    return result;
}

static CUresult finish(uint64_t window)
{
    CUresult result = gv_failpoint(GV_FAIL_EVICT_WAIT) ? CUDA_ERROR_UNKNOWN
                                                       : REAL(cuEventSynchronize)(out.events[window % COPY_AHEAD]);
    const uint64_t last = begin_of(window) + length_of(window);
    for (uint64_t i = begin_of(window); i < last && result == CUDA_SUCCESS; i++) {
        struct gv_piece *const piece = out.pieces[out.released];
        result = settle(&out.items[i]);
        if (result != CUDA_SUCCESS || out.items[i].page != &piece->pages[gv_piece_pages(piece) - 1])
            continue;
        if (gv_failpoint(GV_FAIL_EVICT_UNMAP))
            return CUDA_ERROR_UNKNOWN;
        piece->saved = 1;
        gv_swap_close(piece);
        out.released++;
        out.release(piece, out.context);
    }
    return result;
}

static CUresult run(void)
{
    const uint64_t windows = (out.item_count + out.window - 1) / out.window;
    const uint64_t batches = batch_of(windows - 1) + 1;
    uint64_t hashed = 0, submitted = 0, finished = 0;
    CUresult result = CUDA_SUCCESS;
    while (finished < windows) {
        while (result == CUDA_SUCCESS && hashed < batches && hashed < batch_of(submitted) + HASH_AHEAD + 1)
            if ((result = submit_hash(hashed)) == CUDA_SUCCESS)
                hashed++;
        if (result == CUDA_SUCCESS && submitted < windows && batch_of(submitted) < hashed &&
            submitted < finished + COPY_AHEAD) {
            if ((result = decide_and_copy(submitted)) == CUDA_SUCCESS)
                submitted++;
            continue;
        }
        if (finished == submitted)
            break; /* after an error: what was submitted is finished, nothing more is */
        const CUresult one = finish(finished++);
        if (one != CUDA_SUCCESS)
            return result == CUDA_SUCCESS ? one : result;
    }
    return result;
}

CUresult gv_swap_copy_out(struct gv_piece *const *pieces, uint64_t count,
                          void (*release)(struct gv_piece *piece, void *context), void *context,
                          struct gv_swap_counts *counts, uint64_t *done)
{
    const uint64_t began = gv_now_ns();
    *done = 0;
    CUresult result = gv_contexts_enter_any();
    if (result != CUDA_SUCCESS)
        return result;
    if (gv_gate_lost_context() !=
        CUDA_SUCCESS) { /* no copy is possible, and every byte is lost to the program anyway */
        for (; *done < count; (*done)++)
            release(pieces[*done], context);
        return CUDA_SUCCESS;
    }
    out.pieces = pieces;
    out.piece_count = count;
    out.release = release;
    out.context = context;
    out.counts = counts;
    result = begin();
    if (result == CUDA_SUCCESS)
        result = run();
    end();
    *done = out.released;
    counts->copy_ns += gv_now_ns() - began;
    gv_swap_publish(counts);
    return result;
}
