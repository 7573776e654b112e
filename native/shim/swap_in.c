/* SPDX-License-Identifier: Apache-2.0
 *
 * The way in. Zeros are set, content comes from the arena; a page whose slot has just been brought for another page is copied
 * from that one, on the device.
 */
#include <stdlib.h>
#include <string.h>

#include "contexts.h"
#include "failpoints.h"
#include "gate.h"
#include "log.h"
#include "page_records.h"
#include "real_driver.h"
#include "session.h"
#include "swap_parts.h"

struct brought {
    CUdeviceptr address;
    const struct gv_page *page;
};

static struct {
    CUstream stream;    /* NULL: no group since the last finish */
    uint32_t submitted; /* groups */
    uint32_t ended;     /* of them; written by the driver's thread */
    uint64_t since;
    struct gv_piece **blocks; /* with a window that is open */
    uint64_t count, room;
    struct brought *pages; /* of all groups */
    uint64_t page_count, page_room;
    uint32_t *by_slot; /* number + 1 of a page that brings this slot; open addressing, at most half full */
    uint64_t mask;
    struct gv_place *places; /* of the run that is being put together */
    uint64_t place_count, place_room;
    CUdeviceptr zeros; /* likewise, of a run of zeros */
    uint64_t zero_bytes;
} in;

void gv_swap_in_reset(void) { memset(&in, 0, sizeof in); }

/* A thread of the driver's. */
static void CUDA_CB group_ended(__attribute__((unused)) void *unused)
{
    __atomic_add_fetch(&in.ended, 1, __ATOMIC_RELEASE);
    gv_session_ring();
}

/* Room for `more` entries behind `count`: 0, or -1. */
static int grow(void **array, uint64_t *room, uint64_t count, uint64_t more, size_t size)
{
    if (count + more <= *room)
        return 0;
    const uint64_t wanted = (count + more) * 2;
    void *const grown = realloc(*array, wanted * size);
    if (grown == NULL)
        return -1;
    *array = grown;
    *room = wanted;
    return 0;
}

/* --- pages ------------------------------------------------------------------------------------------------------------------ */

static uint64_t slot_index(gv_slot slot) { return ((uint64_t)slot * 0x9e3779b97f4a7c15ull >> 20) & in.mask; }

static void note_slot(uint64_t number)
{
    uint64_t at = slot_index(in.pages[number].page->slot);
    while (in.by_slot[at] != 0)
        at = (at + 1) & in.mask;
    in.by_slot[at] = (uint32_t)number + 1;
}

/* The page of this transaction that has brought the slot, or NULL. */
static const struct brought *with_slot(gv_slot slot)
{
    for (uint64_t at = slot_index(slot); in.by_slot[at] != 0; at = (at + 1) & in.mask)
        if (in.pages[in.by_slot[at] - 1].page->slot == slot)
            return &in.pages[in.by_slot[at] - 1];
    return NULL;
}

static CUresult make_room(uint64_t more)
{
    if (grow((void **)&in.pages, &in.page_room, in.page_count, more, sizeof *in.pages) != 0 ||
        grow((void **)&in.places, &in.place_room, 0, more, sizeof *in.places) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (in.by_slot != NULL && 2 * (in.page_count + more) <= in.mask)
        return CUDA_SUCCESS;
    uint64_t size = 256;
    while (size < 4 * (in.page_count + more))
        size *= 2;
    uint32_t *const table = calloc(size, sizeof *table);
    if (table == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    free(in.by_slot);
    in.by_slot = table;
    in.mask = size - 1;
    for (uint64_t i = 0; i < in.page_count; i++)
        if (in.pages[i].page->state == GV_PAGE_HELD && with_slot(in.pages[i].page->slot) == NULL)
            note_slot(i);
    return CUDA_SUCCESS;
}

static CUresult submit_places(void)
{
    CUresult result = CUDA_SUCCESS;
    for (uint64_t i = 0; i < in.place_count && result == CUDA_SUCCESS;) {
        void *host;
        const uint64_t run = gv_swap_run(in.places + i, in.place_count - i, &host);
        result = REAL(cuMemcpyHtoDAsync_v2)(in.places[i].address, host, run * GV_MEMORY_PAGE, in.stream);
        i += run;
    }
    in.place_count = 0;
    return result;
}

static CUresult submit_zeros(void)
{
    const uint64_t bytes = in.zero_bytes;
    in.zero_bytes = 0;
    return bytes == 0 ? CUDA_SUCCESS : REAL(cuMemsetD8Async)(in.zeros, 0, bytes, in.stream);
}

static CUresult add_zeros(CUdeviceptr address)
{
    CUresult result = CUDA_SUCCESS;
    if (in.zero_bytes == 0 || address != in.zeros + in.zero_bytes) {
        result = submit_zeros();
        in.zeros = address;
    }
    in.zero_bytes += GV_MEMORY_PAGE;
    return result;
}

static CUresult submit_page(const struct gv_page *page, CUdeviceptr address, struct gv_swap_counts *counts)
{
    in.pages[in.page_count++] = (struct brought){address, page};
    if (page->state == GV_PAGE_ZERO) {
        counts->zero += GV_MEMORY_PAGE;
        return add_zeros(address);
    }
    const struct brought *const other = with_slot(page->slot);
    if (other == NULL) {
        note_slot(in.page_count - 1);
        in.places[in.place_count++] = (struct gv_place){address, page->slot};
        counts->copied += GV_MEMORY_PAGE;
        return CUDA_SUCCESS;
    }
    counts->duplicate += GV_MEMORY_PAGE;
    const CUresult result = submit_places(); /* its source may be among them */
    return result == CUDA_SUCCESS ? REAL(cuMemcpyDtoDAsync_v2)(address, other->address, GV_MEMORY_PAGE, in.stream)
                                  : result;
}

/* --- pieces ----------------------------------------------------------------------------------------------------------------- */

static CUresult submit_piece(struct gv_piece *piece, struct gv_swap_counts *counts)
{
    const uint64_t count = gv_piece_pages(piece);
    CUdeviceptr address = 0;
    CUresult result = make_room(count);
    if (result == CUDA_SUCCESS && piece->is_block) {
        if (grow((void **)&in.blocks, &in.room, in.count, 1, sizeof *in.blocks) != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        in.blocks[in.count++] = piece;
    }
    if (result == CUDA_SUCCESS)
        result = gv_swap_open(piece, &address);
    if (result == CUDA_SUCCESS && gv_failpoint(GV_FAIL_RESTORE_COPY))
        result = CUDA_ERROR_UNKNOWN;
    for (uint64_t i = 0; i < count && result == CUDA_SUCCESS; i++)
        result = submit_page(&piece->pages[i], address + i * GV_MEMORY_PAGE, counts);
    const CUresult places = submit_places(), zeros = submit_zeros();
    return result != CUDA_SUCCESS ? result : places != CUDA_SUCCESS ? places : zeros;
}

CUresult gv_swap_submit_in(struct gv_piece *const *pieces, uint64_t count, struct gv_swap_counts *counts)
{
    const uint64_t before = in.page_count;
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
            result = submit_piece(pieces[i], counts);
    }
    if (result != CUDA_SUCCESS)
        in.page_count = before; /* not all of it was brought: the end is next, and compares none of it */
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

/* --- the end ---------------------------------------------------------------------------------------------------------------- */

static int is_as_recorded(const struct gv_page *page, const struct gv_page_hash *hash)
{
    if (page->state == GV_PAGE_ZERO)
        return hash->any == 0;
    return !page->hashed || (page->hash[0] == hash->hash[0] && page->hash[1] == hash->hash[1]);
}

/* Hashes what came in and compares it with what had left. */
static CUresult verify(struct gv_swap_counts *counts)
{
    const struct gv_hash_key *const key = gv_swap_hash_key();
    CUdeviceptr pages[GV_HASH_BATCH_PAGES];
    uint64_t wrong = 0;
    for (uint64_t first = 0; key != NULL && first < in.page_count; first += GV_HASH_BATCH_PAGES) {
        const uint64_t left = in.page_count - first, count = left < GV_HASH_BATCH_PAGES ? left : GV_HASH_BATCH_PAGES;
        const struct gv_page_hash *hashes;
        for (uint64_t i = 0; i < count; i++)
            pages[i] = in.pages[first + i].address;
        CUresult result = gv_page_hash_submit(0, pages, (uint32_t)count, key);
        if (result == CUDA_SUCCESS)
            result = gv_page_hash_wait(0, &hashes);
        if (result != CUDA_SUCCESS) {
            gv_page_hash_settle();
            return result;
        }
        for (uint64_t i = 0; i < count; i++)
            wrong += !is_as_recorded(in.pages[first + i].page, &hashes[i]);
    }
    if (gv_failpoint(GV_FAIL_RESTORE_VERIFY))
        return CUDA_ERROR_UNKNOWN;
    if (wrong == 0)
        return CUDA_SUCCESS;
    counts->verify_errors += wrong;
    gv_log("%llu pages of device memory came back with another content; they are not used", (unsigned long long)wrong);
    return CUDA_ERROR_ECC_UNCORRECTABLE;
}

CUresult gv_swap_finish_in(struct gv_swap_counts *counts)
{
    if (in.stream == NULL)
        return CUDA_SUCCESS;
    CUresult result = REAL(cuStreamSynchronize)(in.stream);
    if (result == CUDA_SUCCESS && gv_arena_verify())
        result = verify(counts);
    while (in.count-- > 0)
        gv_swap_close(in.blocks[in.count]);
    counts->copy_ns += gv_now_ns() - in.since;
    gv_swap_publish(counts);
    free(in.blocks);
    free(in.pages);
    free(in.places);
    free(in.by_slot);
    in.blocks = NULL;
    in.pages = NULL;
    in.places = NULL;
    in.by_slot = NULL;
    in.stream = NULL;
    in.count = in.room = in.page_count = in.page_room = in.place_count = in.place_room = in.zero_bytes = 0;
    in.submitted = __atomic_load_n(&in.ended, __ATOMIC_ACQUIRE);
    return result;
}
