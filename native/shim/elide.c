/* SPDX-License-Identifier: Apache-2.0 */
#include "elide.h"

#include <stdlib.h>
#include <string.h>

/*
 * Pages of another process are taken for ours by their hash alone, and compared byte by byte the first times and now and then
 * later: should the two ever compute different hashes or keep other bytes than they hashed, it is to be noticed.
 */
enum { COMPARED_FIRST = 8, COMPARED_EVERY = 64 };

static struct {
    struct gv_item *items;
    uint32_t *pending; /* by hash: number + 1 of an item that is to be copied; open addressing, at most half full */
    uint64_t mask;
    int mistrusts; /* a page of another process was not what its hash says: none is believed unseen until this ends */
} list;
static uint64_t foreign_pages; /* taken so far */

void gv_elide_forget(void)
{
    memset(&list, 0, sizeof list); /* what the parent had is left */
    foreign_pages = 0;
}

int gv_elide_begin(struct gv_item *items, uint64_t count)
{
    uint64_t room = 64;
    while (room < 2 * count)
        room *= 2;
    list.items = items;
    list.mistrusts = 0;
    list.mask = room - 1;
    list.pending = calloc(room, sizeof *list.pending);
    return list.pending != NULL ? 0 : -1;
}

void gv_elide_end(void)
{
    free(list.pending);
    list.pending = NULL;
}

static int equal(const uint64_t a[2], const uint64_t b[2]) { return a[0] == b[0] && a[1] == b[1]; }

/* 1: an item before this one is being copied with the same hash; else this one is noted. */
static int is_pending(uint64_t number)
{
    const struct gv_item *const item = &list.items[number];
    uint64_t at = item->hash[0] & list.mask;
    for (; list.pending[at] != 0; at = (at + 1) & list.mask)
        if (equal(list.items[list.pending[at] - 1].hash, item->hash))
            return 1;
    list.pending[at] = (uint32_t)number + 1;
    return 0;
}

/* The record has another slot from now on (-1: none). */
static void refer(struct gv_page *page, gv_slot slot)
{
    gv_arena_release(page->slot);
    page->slot = slot;
}

static int is_to_be_compared(void)
{
    const uint64_t number = foreign_pages++;
    return list.mistrusts || number < COMPARED_FIRST || number % COMPARED_EVERY == 0 || gv_arena_verify();
}

static enum gv_fate fate_of(uint64_t number, const struct gv_page_hash *hash)
{
    struct gv_item *const item = &list.items[number];
    struct gv_page *const page = item->page;
    if (hash == NULL)
        return GV_FATE_COPY;
    item->hashed = 1;
    memcpy(item->hash, hash->hash, sizeof item->hash);
    if (hash->any == 0)
        return GV_FATE_ZERO;
    if (page->state == GV_PAGE_HELD && page->hashed && equal(page->hash, item->hash))
        return GV_FATE_CLEAN;
    int foreign;
    const gv_slot slot = gv_arena_find(item->hash, &foreign);
    item->compared = slot >= 0 && foreign && is_to_be_compared();
    if (slot >= 0 && !item->compared) {
        refer(page, slot);
        return GV_FATE_DUPLICATE;
    }
    gv_arena_release(slot); /* it is found again when this one has been copied */
    return is_pending(number) ? GV_FATE_SAME : GV_FATE_COPY;
}

void gv_elide_decide(uint64_t first, uint64_t count, const struct gv_page_hash *hashes)
{
    for (uint64_t i = 0; i < count; i++) {
        struct gv_item *const item = &list.items[first + i];
        struct gv_page *const page = item->page;
        item->hashed = item->compared = 0;
        item->fate = (uint8_t)fate_of(first + i, hashes == NULL ? NULL : &hashes[i]);
        if (item->fate == GV_FATE_ZERO)
            refer(page, -1);
        if (item->fate == GV_FATE_DUPLICATE) {
            page->state = GV_PAGE_HELD;
            page->hashed = 1;
            memcpy(page->hash, item->hash, sizeof page->hash);
        } else if (item->fate != GV_FATE_CLEAN) {
            page->state = GV_PAGE_UNKNOWN; /* before its slot is written to, or is another's */
        }
    }
}

CUresult gv_elide_reserve(struct gv_item *const *order, uint64_t count)
{
    uint64_t missing = 0;
    for (uint64_t i = 0; i < count; i++) {
        struct gv_page *const page = order[i]->page;
        if (order[i]->fate != GV_FATE_COPY)
            continue;
        if (page->slot >= 0 && !gv_arena_reclaim(page->slot))
            page->slot = -1; /* others refer to it: the reference is gone */
        missing += page->slot < 0;
    }
    if (missing == 0)
        return CUDA_SUCCESS;
    gv_slot *const slots = malloc(missing * sizeof *slots);
    CUresult result = slots == NULL ? CUDA_ERROR_OUT_OF_MEMORY : gv_arena_take((uint32_t)missing, slots);
    /* Slots that only spare a later copy are worth less than this one. */
    if (slots != NULL && result == CUDA_ERROR_OUT_OF_MEMORY && gv_pages_give_back(missing) != 0)
        result = gv_arena_take((uint32_t)missing, slots);
    for (uint64_t i = 0, next = 0; i < count && result == CUDA_SUCCESS; i++)
        if (order[i]->fate == GV_FATE_COPY && order[i]->page->slot < 0)
            order[i]->page->slot = slots[next++];
    free(slots);
    return result;
}

static int is_same(gv_slot a, gv_slot b)
{
    uint32_t run;
    const void *const left = gv_arena_address(a, &run);
    return memcmp(left, gv_arena_address(b, &run), GV_MEMORY_PAGE) == 0;
}

/* The page is in its slot. Others of the job may have published the same meanwhile, or before: then theirs serves both. */
static void publish(struct gv_item *item, struct gv_swap_counts *counts)
{
    struct gv_page *const page = item->page;
    int foreign;
    const gv_slot other = gv_arena_find(item->hash, &foreign);
    if (other < 0) {
        gv_arena_publish(page->slot, item->hash);
    } else if (!(item->compared || (foreign && is_to_be_compared())) || is_same(page->slot, other)) {
        refer(page, other);
    } else {
        counts->hash_errors++;
        list.mistrusts = 1;
        /* this one keeps a slot of its own, which nobody finds */
        gv_arena_release(other);
        page->hashed = 0;
    }
}

CUresult gv_elide_settle(struct gv_item *item, struct gv_swap_counts *counts)
{
    struct gv_page *const page = item->page;
    int foreign;
    switch ((enum gv_fate)item->fate) {
    case GV_FATE_ZERO:
        page->state = GV_PAGE_ZERO;
        counts->zero += GV_MEMORY_PAGE;
        return CUDA_SUCCESS;
    case GV_FATE_CLEAN:
        counts->clean += GV_MEMORY_PAGE;
        return CUDA_SUCCESS;
    case GV_FATE_SAME: {
        const gv_slot slot = gv_arena_find(item->hash, &foreign);
        if (slot < 0 || (foreign && list.mistrusts)) {
            gv_arena_release(slot);
            return CUDA_ERROR_NOT_FOUND;
        }
        refer(page, slot);
        break;
    }
    case GV_FATE_DUPLICATE:
        break;
    case GV_FATE_COPY:
        page->state = GV_PAGE_HELD;
        page->hashed = item->hashed;
        memcpy(page->hash, item->hash, sizeof page->hash);
        counts->copied += GV_MEMORY_PAGE;
        if (item->hashed)
            publish(item, counts);
        return CUDA_SUCCESS;
    }
    page->state = GV_PAGE_HELD;
    page->hashed = 1;
    memcpy(page->hash, item->hash, sizeof page->hash);
    counts->duplicate += GV_MEMORY_PAGE;
    return CUDA_SUCCESS;
}
