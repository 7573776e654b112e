/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of an arena: runs, content, owners that are gone, and processes that are killed at any instant.
 *
 *     test_slots [KILLS]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "gpuvirt/store_ops.h"
#include "slots_check.h"

enum { SEGMENT = 8, SEGMENTS = 6, HASHES = 40 };
#define FILE_BYTES ((SEGMENT * SEGMENTS + 1) * (uint64_t)GV_STORE_PAGE_BYTES)

static void *new_store(void)
{
    /* Only the tables are touched; the data stays a hole. */
    void *const address =
        mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(address != MAP_FAILED);
    CHECK_EQUAL(gv_store_first(FILE_BYTES, SEGMENT, 0, (const uint8_t[GV_STORE_KEY_BYTES]){1}, address), 0);
    return address;
}

static struct gv_slots open_as(void *store, uint32_t owner)
{
    struct gv_slots slots;
    CHECK_EQUAL(gv_slots_open(&slots, store, FILE_BYTES, owner, owner + 1), 0);
    __atomic_fetch_or(&slots.store->alive[owner / 64], 1ull << owner % 64, __ATOMIC_RELEASE);
    CHECK_EQUAL(gv_slots_lock(&slots), 0);
    gv_slots_begin(&slots);
    gv_slots_unlock(&slots);
    return slots;
}

static void sound(struct gv_slots *slots)
{
    const char *const wrong = slots_wrong(slots);
    if (wrong != NULL)
        fprintf(stderr, "the table has %s\n", wrong);
    CHECK(wrong == NULL);
}

static void back(struct gv_slots *slots, uint32_t wanted)
{
    uint32_t segment;
    const uint32_t count = gv_slots_begin_backing(slots, wanted, &segment);
    CHECK_EQUAL(count, wanted);
    gv_slots_end_backing(slots, segment, count, 1);
}

static uint32_t runs_in(const gv_slot *slots, uint32_t count)
{
    uint32_t runs = 1;
    for (uint32_t i = 1; i < count; i++)
        runs += slots[i] != slots[i - 1] + 1;
    return runs;
}

static void layouts(void)
{
    struct gv_store_layout layout;
    CHECK_EQUAL(gv_store_layout(FILE_BYTES, SEGMENT, &layout), 0);
    CHECK_EQUAL(layout.segment_count, SEGMENTS);
    CHECK(layout.slots_at + layout.slot_count * sizeof(struct gv_slot_entry) <= layout.data_at);
    CHECK_EQUAL(layout.data_at % GV_STORE_PAGE_BYTES, 0);
    CHECK_EQUAL(layout.data_at + layout.segment_count * layout.segment_bytes, FILE_BYTES);
    CHECK_EQUAL(gv_store_layout(FILE_BYTES, 3, &layout), -1);
    CHECK_EQUAL(gv_store_layout(FILE_BYTES, 0, &layout), -1);
    CHECK_EQUAL(gv_store_layout(FILE_BYTES, 1024, &layout), -1);
    CHECK_EQUAL(gv_store_layout(SEGMENT * GV_STORE_PAGE_BYTES, SEGMENT, &layout), -1);
    CHECK_EQUAL(gv_store_layout(1ull << 40, 64, &layout), 0);
    CHECK(layout.data_at + layout.segment_count * layout.segment_bytes <= 1ull << 40);
    CHECK(layout.segment_count >= (1u << 13) - 2);
}

static void runs(void)
{
    void *const store = new_store();
    struct gv_slots slots = open_as(store, 0);
    gv_slot taken[SEGMENT * SEGMENTS];
    CHECK_EQUAL(gv_slots_lock(&slots), 0);
    CHECK_EQUAL(gv_slots_take(&slots, 5, taken), 5); /* nothing is backed */
    back(&slots, 2);
    CHECK_EQUAL(gv_slots_free(&slots), 2 * SEGMENT);
    CHECK_EQUAL(gv_slots_take(&slots, 2 * SEGMENT + 3, taken), 3);
    CHECK_EQUAL(gv_slots_free(&slots), 2 * SEGMENT); /* all or nothing */
    CHECK_EQUAL(gv_slots_take(&slots, 6, taken), 0);
    CHECK_EQUAL(taken[0], 0);
    CHECK_EQUAL(runs_in(taken, 6), 1);
    CHECK_EQUAL(gv_slots_take(&slots, 5, taken + 6), 0); /* not in the two that are left of the first segment */
    CHECK_EQUAL(taken[6], SEGMENT);
    CHECK_EQUAL(gv_slots_take(&slots, 2, taken + 11), 0); /* these fit there */
    CHECK_EQUAL(taken[11], 6);
    CHECK_EQUAL(gv_slots_free(&slots), 3);
    /* Holes of 1, 3 and 3 pages: four pages come from the two longest. */
    gv_slots_release(&slots, 0);
    gv_slots_release(&slots, 2);
    gv_slots_release(&slots, 3);
    gv_slots_release(&slots, 4);
    CHECK_EQUAL(gv_slots_take(&slots, 4, taken), 0);
    CHECK_EQUAL(runs_in(taken, 4), 2);
    CHECK(taken[0] != 0 && taken[3] != 0);
    sound(&slots);
    gv_slots_unlock(&slots);
    munmap(store, FILE_BYTES);
}

static void content(void)
{
    void *const store = new_store();
    struct gv_slots one = open_as(store, 3), two = open_as(store, 100);
    const uint64_t hash[2] = {7, 9}, near[2] = {7, 10};
    gv_slot mine, other;
    int foreign;
    CHECK_EQUAL(gv_slots_lock(&one), 0);
    back(&one, 1);
    CHECK_EQUAL(gv_slots_take(&one, 1, &mine), 0);
    CHECK_EQUAL(gv_slots_find(&two, hash, &foreign), -1);
    gv_slots_publish(&one, mine, hash);
    CHECK_EQUAL(gv_slots_find(&one, hash, &foreign), mine);
    CHECK_EQUAL(foreign, 0);
    CHECK_EQUAL(gv_slots_find(&two, near, &foreign), -1);
    CHECK_EQUAL(gv_slots_reclaim(&one, mine), 1); /* alone: it is to be overwritten, and nobody finds it */
    CHECK_EQUAL(gv_slots_find(&two, hash, &foreign), -1);
    gv_slots_publish(&one, mine, hash);
    CHECK_EQUAL(gv_slots_find(&two, hash, &foreign), mine);
    CHECK_EQUAL(foreign, 1);
    sound(&one);
    CHECK_EQUAL(gv_slots_reclaim(&one, mine), 0); /* the other one needs it as it is */
    CHECK_EQUAL(gv_slots_take(&one, 1, &other), 0);
    CHECK(other != mine);
    CHECK_EQUAL(gv_slots_find(&one, hash, &foreign), mine);
    gv_slots_release(&one, mine);
    CHECK_EQUAL(gv_slots_free(&one), SEGMENT - 2);
    gv_slots_release(&two, mine);
    gv_slots_release(&two, mine); /* not twice */
    CHECK_EQUAL(gv_slots_free(&one), SEGMENT - 1);
    CHECK_EQUAL(gv_slots_find(&one, hash, &foreign), -1);
    sound(&one);
    gv_slots_unlock(&one);
    munmap(store, FILE_BYTES);
}

static void memory_that_stays(void)
{
    void *const store = new_store();
    struct gv_slots one = open_as(store, 0), two = open_as(store, 1);
    const uint64_t hash[2] = {1, 2};
    gv_slot slot;
    int foreign;
    CHECK_EQUAL(gv_slots_lock(&one), 0);
    back(&one, 1);
    CHECK_EQUAL(gv_slots_take(&one, 1, &slot), 0);
    gv_slots_publish(&one, slot, hash);
    CHECK_EQUAL(gv_slots_begin_going(&one, 0), 0); /* in use */
    CHECK_EQUAL(gv_slots_find(&two, hash, &foreign), slot);
    gv_slots_release(&one, slot);
    gv_slots_release(&two, slot);
    gv_slots_unpinned(&one, 0);
    CHECK_EQUAL(gv_slots_begin_going(&one, 0), 0); /* the other process has it pinned */
    gv_slots_unpinned(&two, 0);
    CHECK_EQUAL(gv_slots_begin_going(&one, 0), 1);
    CHECK_EQUAL(gv_slots_take(&two, 1, &slot), 1); /* it is on its way */
    CHECK_EQUAL(gv_slots_pin(&two, 0), 0);
    CHECK_EQUAL(gv_slots_begin_going(&two, 0), 0); /* and it is not this one's to give back */
    gv_slots_gone(&one, 0);
    uint32_t segment;
    CHECK_EQUAL(gv_slots_begin_backing(&two, 1, &segment), 1);
    CHECK_EQUAL(segment, 0);
    CHECK_EQUAL(gv_slots_take(&one, 1, &slot), 1);
    gv_slots_end_backing(&two, 0, 1, 0); /* refused */
    CHECK_EQUAL(gv_slots_begin_backing(&one, SEGMENTS + 9, &segment), SEGMENTS);
    sound(&one);
    gv_slots_unlock(&one);
    munmap(store, FILE_BYTES);
}

/* An owner that is not alive has nothing; nor has a new process what an earlier one of its number had. */
static void owners_that_are_gone(void)
{
    void *const store = new_store();
    struct gv_slots one = open_as(store, 0), two = open_as(store, 64);
    const uint64_t hash[2] = {5, 6};
    gv_slot slots[3];
    uint32_t segment;
    int foreign;
    CHECK_EQUAL(gv_slots_lock(&two), 0);
    back(&two, 1);
    CHECK_EQUAL(gv_slots_take(&two, 3, slots), 0);
    gv_slots_publish(&two, slots[0], hash);
    gv_slots_publish(&two, slots[1], (const uint64_t[2]){8, 8});
    CHECK_EQUAL(gv_slots_begin_backing(&two, 1, &segment), 1);
    CHECK_EQUAL(gv_slots_find(&one, hash, &foreign), slots[0]);
    gv_slots_void_dead(&one);
    CHECK_EQUAL(gv_slots_free(&one), SEGMENT - 3); /* it lives */
    __atomic_store_n(&one.store->alive[1], 0, __ATOMIC_RELEASE);
    __atomic_fetch_add(&one.store->deaths, 1, __ATOMIC_RELEASE);
    gv_slots_void_dead(&one);
    CHECK_EQUAL(gv_slots_free(&one), SEGMENT - 1);
    CHECK_EQUAL(gv_slots_find(&one, hash, &foreign), slots[0]); /* what both had stays */
    CHECK_EQUAL(gv_slots_find(&one, (const uint64_t[2]){8, 8}, &foreign), -1);
    CHECK_EQUAL(gv_slots_begin_going(&one, segment), 1); /* what was on its way to it can be given back */
    gv_slots_gone(&one, segment);
    sound(&one);
    gv_slots_unlock(&one);

    CHECK_EQUAL(gv_slots_lock(&one), 0);
    CHECK_EQUAL(gv_slots_take(&one, 2, slots), 0);
    gv_slots_unlock(&one);
    struct gv_slots again = open_as(store, 0);
    CHECK_EQUAL(gv_slots_lock(&again), 0);
    CHECK_EQUAL(gv_slots_free(&again), SEGMENT);
    sound(&again);
    gv_slots_unlock(&again);
    munmap(store, FILE_BYTES);
}

/* --- killed at any instant ------------------------------------------------------------------------------------------------ */

static uint64_t random_state;
static uint32_t draw(uint32_t limit)
{
    random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(random_state >> 33) % limit;
}

/* Every operation, as fast as it goes, for ever. */
static void work(struct gv_slots *slots)
{
    gv_slot mine[64];
    uint32_t count = 0, segment;
    for (;;) {
        CHECK_EQUAL(gv_slots_lock(slots), 0);
        gv_slots_void_dead(slots);
        for (int i = 0; i < 20; i++) {
            const uint64_t hash[2] = {draw(HASHES), 0};
            int foreign;
            const uint32_t wanted = draw(6) + 1;
            switch (draw(8)) {
            case 0:
                if (count + wanted <= 64 && gv_slots_take(slots, wanted, mine + count) == 0)
                    count += wanted;
                break;
            case 1:
                if (count < 64 && (mine[count] = gv_slots_find(slots, hash, &foreign)) >= 0)
                    count++;
                break;
            case 2:
            case 3:
                if (count != 0)
                    gv_slots_release(slots, mine[--count]); /* perhaps for a second time: that does nothing */
                break;
            case 4:
            case 5:
                if (count != 0 && gv_slots_reclaim(slots, mine[count - 1]))
                    gv_slots_publish(slots, mine[count - 1], hash);
                else if (count != 0)
                    count--;
                break;
            case 6:
                segment = 0;
                if (gv_slots_begin_backing(slots, 1, &segment) != 0)
                    gv_slots_end_backing(slots, segment, 1, (int)draw(4));
                break;
            default:
                segment = draw(SEGMENTS);
                if (slots->segments[segment].used == 0)
                    gv_slots_unpinned(slots, segment);
                if (gv_slots_begin_going(slots, segment))
                    gv_slots_gone(slots, segment);
            }
        }
        gv_slots_unlock(slots);
    }
}

static void killed(int kills)
{
    void *const store = new_store();
    struct gv_slots watcher = open_as(store, 127);
    int inside = 0;
    for (int i = 0; i < kills; i++) {
        const uint32_t owner = (uint32_t)i % 127;
        __atomic_fetch_or(&watcher.store->alive[owner / 64], 1ull << owner % 64, __ATOMIC_RELEASE);
        const pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            struct gv_slots slots = open_as(store, owner);
            random_state = (uint64_t)i + 1;
            work(&slots);
        }
        nanosleep(&(struct timespec){0, 50000 + i * 7919L % 400000}, NULL);
        CHECK_EQUAL(kill(child, SIGKILL), 0);
        CHECK_EQUAL(waitpid(child, NULL, 0), child);
        const uint32_t repairs = watcher.store->repairs;
        CHECK_EQUAL(gv_slots_lock(&watcher), 0);
        inside += watcher.store->repairs != repairs;
        sound(&watcher);
        gv_slots_unlock(&watcher);
        if (i % 3 == 0) /* two more may have died before anybody hears of it */
            continue;
        __atomic_store_n(&watcher.store->alive[0], 0, __ATOMIC_RELEASE);
        __atomic_store_n(&watcher.store->alive[1], 1ull << 63, __ATOMIC_RELEASE);
        __atomic_fetch_add(&watcher.store->deaths, 1, __ATOMIC_RELEASE);
        CHECK_EQUAL(gv_slots_lock(&watcher), 0);
        gv_slots_void_dead(&watcher);
        sound(&watcher);
        uint32_t backed = 0;
        for (uint32_t n = 0; n < SEGMENTS; n++) {
            if (watcher.segments[n].state == GV_SEGMENT_GOING && gv_slots_begin_going(&watcher, n))
                gv_slots_gone(&watcher, n);
            CHECK(watcher.segments[n].state == GV_SEGMENT_EMPTY || watcher.segments[n].state == GV_SEGMENT_BACKED);
            CHECK(watcher.segments[n].pinned[0] == 0 && watcher.segments[n].pinned[1] == 0);
            backed += watcher.segments[n].state == GV_SEGMENT_BACKED;
        }
        CHECK_EQUAL(gv_slots_free(&watcher), backed * SEGMENT); /* no slot is lost */
        gv_slots_unlock(&watcher);
    }
    printf("%d processes killed, %d of them inside the lock\n", kills, inside);
    CHECK(inside > kills / 20);
    munmap(store, FILE_BYTES);
}

int main(int argc, char **argv)
{
    layouts();
    runs();
    content();
    memory_that_stays();
    owners_that_are_gone();
    killed(argc > 1 ? atoi(argv[1]) : 2000);
    return 0;
}
