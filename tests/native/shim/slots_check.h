/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether the table of an arena agrees with itself.
 */
#ifndef GPUVIRT_TESTS_SLOTS_CHECK_H
#define GPUVIRT_TESTS_SLOTS_CHECK_H

#include "slots.h"

static int referred(const struct gv_slot_entry *entry) { return (entry->owners[0] | entry->owners[1]) != 0; }

static int32_t *bucket_of(const struct gv_slots *slots, const uint64_t hash[2])
{
    return &slots->buckets[(hash[0] ^ hash[1] >> 32) & (slots->layout.bucket_count - 1)];
}

/* Under the lock: NULL, or what is wrong. */
static const char *slots_wrong(const struct gv_slots *slots)
{
    const uint32_t count = slots->store->touched * slots->layout.segment_slots;
    uint32_t published = 0, chained = 0;
    for (uint32_t i = 0; i < slots->layout.segment_count; i++) {
        uint32_t used = 0;
        for (uint32_t n = 0; n < slots->layout.segment_slots; n++) {
            const struct gv_slot_entry *const entry = &slots->entries[i * slots->layout.segment_slots + n];
            used += (uint32_t)referred(entry);
            if (entry->published && !referred(entry))
                return "a published slot that is nobody's";
            published += entry->published != 0;
        }
        if (used != slots->segments[i].used)
            return "a wrong number of used slots";
        if (used != 0 && slots->segments[i].state != GV_SEGMENT_BACKED)
            return "used slots without memory";
    }
    for (uint32_t i = 0; i < slots->layout.bucket_count; i++) {
        for (int32_t next = slots->buckets[i]; next != 0; next = slots->entries[next - 1].next, chained++) {
            if ((uint32_t)next > count || chained > published)
                return "a chain that leads nowhere";
            if (!slots->entries[next - 1].published ||
                bucket_of(slots, slots->entries[next - 1].hash) != &slots->buckets[i])
                return "a slot in a wrong chain";
        }
    }
    return chained == published ? NULL : "a published slot in no chain";
}

#endif
