/* SPDX-License-Identifier: Apache-2.0
 *
 * A process may be killed between any two instructions here. So what is "truth" in gpuvirt/store.h is changed by single stores,
 * in an order that is right after each of them; release keeps the compiler from another order (the kernel's hand-over of the
 * lock orders the rest). What is "derived" may be wrong then, and is computed again by whoever gets the lock next.
 */
#include "slots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "gpuvirt/store_ops.h"

#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)

int gv_slots_open(struct gv_slots *slots, void *address, uint64_t file_bytes, uint32_t owner, uint32_t nonce)
{
    uint8_t *const file = address;
    struct gv_store *const store = address;
    if (store->magic != GV_STORE_MAGIC || store->version != GV_STORE_VERSION || store->file_bytes != file_bytes ||
        owner >= GV_STORE_OWNERS || gv_store_layout(file_bytes, store->segment_slots, &slots->layout) != 0)
        return EPROTO;
    slots->store = store;
    slots->segments = (struct gv_segment *)(file + slots->layout.segments_at);
    slots->buckets = (int32_t *)(file + slots->layout.buckets_at);
    slots->entries = (struct gv_slot_entry *)(file + slots->layout.slots_at);
    slots->owner = owner;
    slots->nonce = nonce;
    slots->pins = 1;
    slots->deaths_seen = 0;
    return 0;
}

/* --- bits of owners ------------------------------------------------------------------------------------------------------- */

static int any(const uint64_t bits[GV_STORE_OWNER_WORDS]) { return (bits[0] | bits[1]) != 0; }
static uint64_t bit_of(uint32_t owner) { return 1ull << owner % 64; }
static int has(const uint64_t bits[GV_STORE_OWNER_WORDS], uint32_t owner)
{
    return (bits[owner / 64] & bit_of(owner)) != 0;
}
static void set(uint64_t bits[GV_STORE_OWNER_WORDS], uint32_t owner)
{
    STORE(bits[owner / 64], bits[owner / 64] | bit_of(owner));
}
static void clear(uint64_t bits[GV_STORE_OWNER_WORDS], uint32_t owner)
{
    STORE(bits[owner / 64], bits[owner / 64] & ~bit_of(owner));
}

/* Only `kept` bits stay. Returns 1 if the last one went. */
static int keep(uint64_t bits[GV_STORE_OWNER_WORDS], const uint64_t kept[GV_STORE_OWNER_WORDS])
{
    const int before = any(bits);
    for (int i = 0; i < GV_STORE_OWNER_WORDS; i++)
        if ((bits[i] & ~kept[i]) != 0)
            STORE(bits[i], bits[i] & kept[i]);
    return before && !any(bits);
}

/* --- chains of equal buckets ---------------------------------------------------------------------------------------------- */

static struct gv_segment *segment_of(const struct gv_slots *slots, gv_slot slot)
{
    return &slots->segments[(uint32_t)slot / slots->layout.segment_slots];
}

static int32_t *bucket_of(const struct gv_slots *slots, const uint64_t hash[2])
{
    return &slots->buckets[(hash[0] ^ hash[1] >> 32) & (slots->layout.bucket_count - 1)];
}

static void link_in(struct gv_slots *slots, gv_slot slot)
{
    int32_t *const bucket = bucket_of(slots, slots->entries[slot].hash);
    slots->entries[slot].next = *bucket;
    *bucket = slot + 1;
}

static void unpublish(struct gv_slots *slots, gv_slot slot)
{
    struct gv_slot_entry *const entry = &slots->entries[slot];
    if (!entry->published)
        return;
    STORE(entry->published, 0);
    for (int32_t *link = bucket_of(slots, entry->hash); *link != 0; link = &slots->entries[*link - 1].next) {
        if (*link == slot + 1) {
            *link = entry->next;
            return;
        }
    }
}

/* Nobody refers to it any more. */
static void became_free(struct gv_slots *slots, gv_slot slot)
{
    unpublish(slots, slot);
    segment_of(slots, slot)->used--;
}

/* --- the lock ------------------------------------------------------------------------------------------------------------- */

static uint32_t touched_slots(const struct gv_slots *slots)
{
    const uint32_t touched = slots->store->touched;
    return (touched < slots->layout.segment_count ? touched : slots->layout.segment_count) *
           slots->layout.segment_slots;
}

/* All that is derived, from what is truth. */
static void repair(struct gv_slots *slots)
{
    const uint32_t count = touched_slots(slots);
    memset(slots->buckets, 0, slots->layout.bucket_count * sizeof *slots->buckets);
    for (uint32_t i = 0; i < slots->layout.segment_count; i++)
        slots->segments[i].used = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct gv_slot_entry *const entry = &slots->entries[i];
        entry->next = 0;
        if (!any(entry->owners)) {
            if (entry->published)
                STORE(entry->published, 0);
            continue;
        }
        segment_of(slots, (gv_slot)i)->used++;
        if (entry->published)
            link_in(slots, (gv_slot)i);
    }
    STORE(slots->store->repairs, slots->store->repairs + 1);
}

int gv_slots_lock(struct gv_slots *slots)
{
    pthread_mutex_t *const lock = (pthread_mutex_t *)slots->store->lock;
    const int error = pthread_mutex_lock(lock);
    if (error != EOWNERDEAD)
        return error;
    repair(slots); /* who is killed in here leaves it to the next one, in the same way */
    return pthread_mutex_consistent(lock);
}

void gv_slots_unlock(struct gv_slots *slots) { pthread_mutex_unlock((pthread_mutex_t *)slots->store->lock); }

/* --- owners that are gone ------------------------------------------------------------------------------------------------- */

/* Everything of owners without a bit in `kept` is void. Memory that they were about to get or to give back is nobody's: it is
 * said to be backed, and goes with the next sweep. */
static void void_others(struct gv_slots *slots, const uint64_t kept[GV_STORE_OWNER_WORDS])
{
    const uint32_t segments = touched_slots(slots) / slots->layout.segment_slots;
    for (uint32_t i = 0; i < segments; i++) {
        struct gv_segment *const segment = &slots->segments[i];
        keep(segment->pinned, kept);
        const int between = segment->state == GV_SEGMENT_BACKING || segment->state == GV_SEGMENT_GOING;
        if (between && (segment->by >= GV_STORE_OWNERS || !has(kept, segment->by))) {
            STORE(segment->by, slots->owner);
            STORE(segment->state, GV_SEGMENT_GOING); /* of ours: gv_arena_sweep gives it back */
        }
        if (segment->used == 0)
            continue;
        for (uint32_t n = 0; n < slots->layout.segment_slots; n++) {
            const gv_slot slot = (gv_slot)(i * slots->layout.segment_slots + n);
            if (keep(slots->entries[slot].owners, kept))
                became_free(slots, slot);
        }
    }
}

void gv_slots_begin(struct gv_slots *slots)
{
    uint64_t kept[GV_STORE_OWNER_WORDS] = {~0ull, ~0ull};
    kept[slots->owner / 64] &= ~bit_of(slots->owner);
    void_others(slots, kept);
}

void gv_slots_void_dead(struct gv_slots *slots)
{
    uint64_t alive[GV_STORE_OWNER_WORDS];
    /* Acquire, and first: who sees a death sees an `alive` without the dead. */
    const uint64_t deaths = __atomic_load_n(&slots->store->deaths, __ATOMIC_ACQUIRE);
    if (deaths == slots->deaths_seen)
        return;
    slots->deaths_seen = deaths;
    for (int i = 0; i < GV_STORE_OWNER_WORDS; i++)
        alive[i] = __atomic_load_n(&slots->store->alive[i], __ATOMIC_ACQUIRE);
    alive[slots->owner / 64] |= bit_of(slots->owner); /* whatever the daemon thinks */
    void_others(slots, alive);
}

/* --- free slots ----------------------------------------------------------------------------------------------------------- */

struct run {
    uint32_t first, length;
};

static int longer(const void *left, const void *right)
{
    const struct run *const a = left, *const b = right;
    return a->length != b->length ? (a->length < b->length) - (a->length > b->length)
                                  : (a->first > b->first) - (a->first < b->first);
}

static uint32_t usable(const struct gv_slots *slots, uint32_t index)
{
    const struct gv_segment *const segment = &slots->segments[index];
    return segment->state == GV_SEGMENT_BACKED ? slots->layout.segment_slots - segment->used : 0;
}

uint32_t gv_slots_free(const struct gv_slots *slots)
{
    uint32_t count = 0;
    const uint32_t segments = touched_slots(slots) / slots->layout.segment_slots;
    for (uint32_t i = 0; i < segments; i++)
        count += usable(slots, i);
    return count;
}

/* Appends the free runs of a segment, up to `room` of them; returns their number. */
static uint32_t runs_of(const struct gv_slots *slots, uint32_t index, struct run *runs, uint32_t room)
{
    const uint32_t first = index * slots->layout.segment_slots;
    uint32_t count = 0, length = 0;
    for (uint32_t n = 0; n <= slots->layout.segment_slots && count < room; n++) {
        if (n < slots->layout.segment_slots && !any(slots->entries[first + n].owners)) {
            length++;
        } else if (length != 0) {
            runs[count++] = (struct run){first + n - length, length};
            length = 0;
        }
    }
    return count;
}

static void take_run(struct gv_slots *slots, struct run run, gv_slot *taken)
{
    struct gv_segment *const segment = segment_of(slots, (gv_slot)run.first);
    if (slots->pins)
        set(segment->pinned, slots->owner);
    for (uint32_t i = 0; i < run.length; i++) {
        const gv_slot slot = (gv_slot)(run.first + i);
        if (slots->entries[slot].published) /* nobody's, left by who was killed: before it is somebody's */
            unpublish(slots, slot);
        set(slots->entries[slot].owners, slots->owner);
        segment->used++;
        taken[i] = slot;
    }
}

uint32_t gv_slots_take(struct gv_slots *slots, uint32_t count, gv_slot *taken)
{
    const uint32_t segments = touched_slots(slots) / slots->layout.segment_slots, there = gv_slots_free(slots);
    if (there < count)
        return count - there;
    /* The first place where all of it fits: low segments fill up, high ones become empty and are given back. */
    struct run found[GV_STORE_SEGMENT_MAX / 2 + 1];
    for (uint32_t i = 0; i < segments; i++) {
        const uint32_t runs = usable(slots, i) < count ? 0 : runs_of(slots, i, found, sizeof found / sizeof *found);
        for (uint32_t n = 0; n < runs; n++) {
            if (found[n].length >= count) {
                take_run(slots, (struct run){found[n].first, count}, taken);
                return 0;
            }
        }
    }
    /* Else the longest runs that there are. There are at most as many as free slots. */
    struct run *const all = malloc(there * sizeof *all);
    if (all == NULL)
        return count;
    uint32_t runs = 0, done = 0;
    for (uint32_t i = 0; i < segments; i++)
        if (usable(slots, i) != 0)
            runs += runs_of(slots, i, all + runs, there - runs);
    qsort(all, runs, sizeof *all, longer);
    for (uint32_t n = 0; n < runs && done < count; n++) {
        if (all[n].length > count - done)
            all[n].length = count - done;
        take_run(slots, all[n], taken + done);
        done += all[n].length;
    }
    free(all);
    return 0;
}

/* --- host memory ---------------------------------------------------------------------------------------------------------- */

uint32_t gv_slots_begin_backing(struct gv_slots *slots, uint32_t wanted, uint32_t *segment)
{
    uint32_t first = 0, length = 0;
    while (first < slots->layout.segment_count && slots->segments[first].state != GV_SEGMENT_EMPTY)
        first++;
    while (length < wanted && first + length < slots->layout.segment_count &&
           slots->segments[first + length].state == GV_SEGMENT_EMPTY) {
        struct gv_segment *const next = &slots->segments[first + length];
        if (slots->store->touched <= first + length) /* first: who comes after a kill looks at no more than this */
            STORE(slots->store->touched, first + length + 1);
        STORE(next->by, slots->owner);
        STORE(next->state, GV_SEGMENT_BACKING);
        length++;
    }
    *segment = first;
    return length;
}

void gv_slots_end_backing(struct gv_slots *slots, uint32_t segment, uint32_t count, int backed)
{
    for (uint32_t i = segment; i < segment + count; i++)
        if (slots->segments[i].state == GV_SEGMENT_BACKING && slots->segments[i].by == slots->owner)
            STORE(slots->segments[i].state, backed ? GV_SEGMENT_BACKED : GV_SEGMENT_EMPTY);
}

int gv_slots_pin(struct gv_slots *slots, uint32_t segment)
{
    if (slots->segments[segment].state != GV_SEGMENT_BACKED)
        return 0;
    set(slots->segments[segment].pinned, slots->owner);
    return 1;
}

void gv_slots_unpinned(struct gv_slots *slots, uint32_t segment)
{
    clear(slots->segments[segment].pinned, slots->owner);
}

int gv_slots_begin_going(struct gv_slots *slots, uint32_t index)
{
    struct gv_segment *const segment = &slots->segments[index];
    if (segment->state == GV_SEGMENT_GOING)
        return segment->by == slots->owner; /* a dead owner's, taken over */
    if (segment->state != GV_SEGMENT_BACKED || segment->used != 0 || any(segment->pinned))
        return 0;
    STORE(segment->by, slots->owner);
    STORE(segment->state, GV_SEGMENT_GOING);
    return 1;
}

void gv_slots_gone(struct gv_slots *slots, uint32_t segment)
{
    STORE(slots->segments[segment].state, GV_SEGMENT_EMPTY);
}

/* --- content -------------------------------------------------------------------------------------------------------------- */

void gv_slots_publish(struct gv_slots *slots, gv_slot slot, const uint64_t hash[2])
{
    struct gv_slot_entry *const entry = &slots->entries[slot];
    if (!has(entry->owners, slots->owner)) /* content of a free slot is nobody's */
        return;
    if (entry->published)
        unpublish(slots, slot);
    STORE(entry->hash[0], hash[0]);
    STORE(entry->hash[1], hash[1]);
    STORE(entry->publisher, slots->nonce);
    STORE(entry->published, 1);
    link_in(slots, slot);
}

int gv_slots_reclaim(struct gv_slots *slots, gv_slot slot)
{
    struct gv_slot_entry *const entry = &slots->entries[slot];
    if (!has(entry->owners, slots->owner))
        return 0;
    uint64_t others[GV_STORE_OWNER_WORDS] = {entry->owners[0], entry->owners[1]};
    others[slots->owner / 64] &= ~bit_of(slots->owner);
    if (any(others)) {
        clear(entry->owners, slots->owner);
        return 0;
    }
    unpublish(slots, slot);
    return 1;
}

gv_slot gv_slots_find(struct gv_slots *slots, const uint64_t hash[2], int *foreign)
{
    for (int32_t next = *bucket_of(slots, hash); next != 0; next = slots->entries[next - 1].next) {
        struct gv_slot_entry *const entry = &slots->entries[next - 1];
        if (entry->hash[0] != hash[0] || entry->hash[1] != hash[1])
            continue;
        if (slots->pins)
            set(segment_of(slots, next - 1)->pinned, slots->owner);
        set(entry->owners, slots->owner);
        *foreign = entry->publisher != slots->nonce;
        return next - 1;
    }
    return -1;
}

void gv_slots_release(struct gv_slots *slots, gv_slot slot)
{
    struct gv_slot_entry *const entry = &slots->entries[slot];
    if (!has(entry->owners, slots->owner))
        return;
    clear(entry->owners, slots->owner);
    if (!any(entry->owners))
        became_free(slots, slot);
}
