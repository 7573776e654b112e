/* SPDX-License-Identifier: Apache-2.0
 *
 * elide.c against a plain model: two processes of one job write, evict and restore pages in random order, with copies and
 * reservations that fail, and a budget that is short. What comes back is what was there; nothing of the arena is lost.
 */
#include "elide.h"

#include <string.h>

#include "check.h"

enum { PROCESSES = 2, PAGES = 24, SLOTS = 64, STEPS = 60000, CONTENTS = 12 };

/* --- an arena of contents that are numbers; 0 is the page of zeros ------------------------------------------------------------ */

struct slot {
    int references[PROCESSES];
    int published, publisher;
    uint64_t hash[2];
    uint64_t content[2]; /* as many bytes as a page, for all that memcmp is told */
};
static struct slot slots[SLOTS];
static int self, budget = SLOTS, verifying;
static uint64_t *bytes; /* of two pages, to compare */

static int users(const struct slot *slot) { return slot->references[0] + slot->references[1]; }

static int taken(void)
{
    int count = 0;
    for (int i = 0; i < SLOTS; i++)
        count += users(&slots[i]) != 0;
    return count;
}

CUresult gv_arena_take(uint32_t count, gv_slot *found)
{
    if (taken() + (int)count > budget)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (int i = 0; count != 0; i++) {
        CHECK(i < SLOTS);
        if (users(&slots[i]) != 0)
            continue;
        slots[i] = (struct slot){.content = {~0ull, ~0ull}};
        slots[i].references[self] = 1;
        *found++ = i;
        count--;
    }
    return CUDA_SUCCESS;
}

void gv_arena_publish(gv_slot slot, const uint64_t hash[2])
{
    CHECK(slots[slot].references[self] != 0);
    slots[slot].published = 1;
    slots[slot].publisher = self;
    memcpy(slots[slot].hash, hash, sizeof slots[slot].hash);
}

int gv_arena_reclaim(gv_slot slot)
{
    CHECK(slots[slot].references[self] != 0);
    if (users(&slots[slot]) == 1) {
        slots[slot].published = 0;
        return 1;
    }
    gv_arena_release(slot);
    return 0;
}

gv_slot gv_arena_find(const uint64_t hash[2], int *foreign)
{
    for (int i = 0; i < SLOTS; i++) {
        if (users(&slots[i]) != 0 && slots[i].published && memcmp(slots[i].hash, hash, sizeof slots[i].hash) == 0) {
            slots[i].references[self]++;
            *foreign = slots[i].publisher != self;
            return i;
        }
    }
    return -1;
}

void gv_arena_release(gv_slot slot)
{
    if (slot < 0)
        return;
    CHECK(slots[slot].references[self] > 0);
    slots[slot].references[self]--;
}

void *gv_arena_address(gv_slot slot, uint32_t *run)
{
    static int turn;
    uint8_t *const page = (uint8_t *)bytes + (turn ^= 1) * GV_MEMORY_PAGE;
    memcpy(page, slots[slot].content, sizeof slots[slot].content); /* the rest of both is equal */
    *run = 1;
    return page;
}

int gv_arena_verify(void) { return verifying; }

/* --- the processes ------------------------------------------------------------------------------------------------------------ */

static struct process {
    struct gv_page pages[PAGES];
    uint64_t device[PAGES], model[PAGES];
    int away[PAGES];
} processes[PROCESSES];

static uint64_t state = 88172645463325252ull;
static uint64_t pick(uint64_t limit)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (state >> 11) % limit;
}

static struct gv_page_hash hash_of(uint64_t content)
{
    return (struct gv_page_hash){{content * 77, content}, content != 0};
}

uint64_t gv_pages_give_back(uint64_t most)
{
    uint64_t given = 0;
    for (int i = 0; i < PAGES && given < most; i++) {
        struct gv_page *const page = &processes[self].pages[i];
        if (processes[self].away[i] != 0 || page->slot < 0)
            continue; /* away: 2 = in the eviction that asks */
        gv_arena_release(page->slot);
        page->slot = -1;
        page->state = GV_PAGE_UNKNOWN;
        given++;
    }
    return given;
}

static void write_page(struct process *process)
{
    const int i = (int)pick(PAGES);
    if (!process->away[i])
        process->device[i] = process->model[i] = pick(CONTENTS);
}

static void copy_out(const struct process *process, const struct gv_item *item)
{
    const int page = (int)item->address;
    CHECK(item->page->slot >= 0 && users(&slots[item->page->slot]) == 1 && !slots[item->page->slot].published);
    slots[item->page->slot].content[0] = slots[item->page->slot].content[1] = process->device[page];
}

static void evict(struct process *process)
{
    struct gv_item items[PAGES], *order[PAGES];
    struct gv_page_hash hashes[PAGES];
    struct gv_swap_counts counts = {0};
    const int hashing = pick(10) != 0, fails_at = pick(4) == 0 ? (int)pick(PAGES) : PAGES;
    uint64_t count = 0, left = 0;
    for (int i = 0; i < PAGES; i++) {
        if (process->away[i] || pick(3) == 0)
            continue;
        hashes[count] = hash_of(process->device[i]);
        process->away[i] = 2;
        items[count++] = (struct gv_item){.page = &process->pages[i], .address = (CUdeviceptr)i};
    }
    CHECK(gv_elide_begin(items, count) == 0);
    for (uint64_t first = 0; first < count;) {
        const uint64_t part = 1 + pick(count - first);
        gv_elide_decide(first, part, hashing ? hashes + first : NULL);
        for (uint64_t i = 0; i < part; i++)
            order[i] = &items[first + part - 1 - i];
        if (gv_elide_reserve(order, part) != CUDA_SUCCESS)
            break;
        for (uint64_t i = 0; i < part; i++)
            if (order[i]->fate == GV_FATE_COPY)
                copy_out(process, order[i]);
        if ((int)(first + part) > fails_at)
            break; /* the copies did not end well */
        for (uint64_t i = first; i < first + part; i++, left++) {
            CUresult result = gv_elide_settle(&items[i], &counts);
            if (result == CUDA_ERROR_NOT_FOUND) {
                items[i].fate = GV_FATE_COPY;
                order[0] = &items[i];
                if (gv_elide_reserve(order, 1) != CUDA_SUCCESS)
                    break;
                copy_out(process, &items[i]);
                result = gv_elide_settle(&items[i], &counts);
            }
            CHECK_EQUAL(result, CUDA_SUCCESS);
            process->away[items[i].address] = 1;
            process->device[items[i].address] = ~0ull; /* somebody else's now */
        }
        first += part;
        if (left != first)
            break;
    }
    gv_elide_end();
    for (int i = 0; i < PAGES; i++)
        process->away[i] = process->away[i] == 1;
    CHECK_EQUAL(counts.hash_errors, 0);
    CHECK_EQUAL(counts.copied + counts.zero + counts.clean + counts.duplicate, left * GV_MEMORY_PAGE);
}

static void restore(struct process *process)
{
    for (int i = 0; i < PAGES; i++) {
        const struct gv_page *const page = &process->pages[i];
        if (!process->away[i] || pick(4) == 0)
            continue;
        CHECK(page->state != GV_PAGE_UNKNOWN);
        process->device[i] = page->state == GV_PAGE_ZERO ? 0 : slots[page->slot].content[0];
        process->away[i] = 0;
        CHECK_EQUAL(process->device[i], process->model[i]);
    }
}

/* References are those of the records, neither more nor less; what is published is what was hashed. */
static void check_arena(void)
{
    int references[SLOTS][PROCESSES] = {{0}};
    for (int p = 0; p < PROCESSES; p++)
        for (int i = 0; i < PAGES; i++)
            if (processes[p].pages[i].slot >= 0)
                references[processes[p].pages[i].slot][p]++;
    for (int i = 0; i < SLOTS; i++) {
        CHECK(memcmp(references[i], slots[i].references, sizeof references[i]) == 0);
        if (users(&slots[i]) != 0 && slots[i].published)
            CHECK_EQUAL(slots[i].hash[1], slots[i].content[0]);
    }
}

/* Another process publishes something else under the hash of two pages: it is noticed, and both are right. */
static void a_wrong_hash_is_noticed(void)
{
    struct gv_page pages[2] = {{.slot = -1}, {.slot = -1}};
    struct gv_item items[2] = {{.page = &pages[0]}, {.page = &pages[1]}}, *order[2] = {&items[0], &items[1]};
    struct gv_swap_counts counts = {0};
    const struct gv_page_hash hashes[2] = {hash_of(1000), hash_of(1000)};
    gv_slot wrong;
    gv_elide_forget();
    self = 1;
    CHECK_EQUAL(gv_arena_take(1, &wrong), CUDA_SUCCESS);
    slots[wrong].content[0] = 999;
    gv_arena_publish(wrong, hashes[0].hash);
    self = 0;
    CHECK(gv_elide_begin(items, 2) == 0);
    gv_elide_decide(0, 2, hashes);
    CHECK_EQUAL(items[0].fate, GV_FATE_COPY);
    CHECK_EQUAL(items[1].fate, GV_FATE_SAME);
    CHECK_EQUAL(gv_elide_reserve(order, 2), CUDA_SUCCESS);
    slots[pages[0].slot].content[0] = 1000;
    CHECK_EQUAL(gv_elide_settle(&items[0], &counts), CUDA_SUCCESS);
    CHECK_EQUAL(gv_elide_settle(&items[1], &counts), CUDA_ERROR_NOT_FOUND);
    items[1].fate = GV_FATE_COPY;
    CHECK_EQUAL(gv_elide_reserve(order + 1, 1), CUDA_SUCCESS);
    slots[pages[1].slot].content[0] = 1000;
    CHECK_EQUAL(gv_elide_settle(&items[1], &counts), CUDA_SUCCESS);
    gv_elide_end();
    CHECK_EQUAL(counts.hash_errors, 2);
    for (int i = 0; i < 2; i++) {
        CHECK(pages[i].slot != wrong && pages[i].state == GV_PAGE_HELD && slots[pages[i].slot].content[0] == 1000);
        gv_arena_release(pages[i].slot);
    }
    self = 1;
    gv_arena_release(wrong);
}

int main(void)
{
    bytes = calloc(2, GV_MEMORY_PAGE);
    CHECK(bytes != NULL);
    for (int p = 0; p < PROCESSES; p++)
        for (int i = 0; i < PAGES; i++)
            processes[p].pages[i].slot = -1;
    for (int step = 0; step < STEPS; step++) {
        self = (int)pick(PROCESSES);
        struct process *const process = &processes[self];
        if (step % 1000 == 0) {
            verifying = (int)pick(8) == 0;
            budget = 10 + (int)pick(SLOTS - 10);
        }
        switch (pick(6)) {
        case 0:
            evict(process);
            break;
        case 1:
            restore(process);
            break;
        default:
            write_page(process);
        }
        check_arena();
    }
    for (int p = 0; p < PROCESSES; p++) {
        self = p;
        for (int i = 0; i < PAGES; i++) {
            gv_arena_release(processes[p].pages[i].slot);
            processes[p].pages[i].slot = -1;
        }
    }
    check_arena();
    budget = SLOTS;
    a_wrong_hash_is_noticed();
    return 0;
}
