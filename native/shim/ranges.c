/* SPDX-License-Identifier: Apache-2.0 */
#include "ranges.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct size_class {
    int power, step;
};

/* Class of a size in units: [2^power, 2^(power+1)) in GV_RANGE_STEPS linear steps; small sizes share class 0. */
static struct size_class class_of(uint64_t units)
{
    if (units < GV_RANGE_STEPS)
        return (struct size_class){0, (int)units};
    const int log = 63 - __builtin_clzll(units);
    return (struct size_class){log - 3, (int)(units >> (log - 4)) & (GV_RANGE_STEPS - 1)};
}

/* The smallest class all of whose members are at least this large. */
static struct size_class class_above(uint64_t units)
{
    if (units >= GV_RANGE_STEPS) {
        const int log = 63 - __builtin_clzll(units);
        units += (1ull << (log - 4)) - 1;
    }
    return class_of(units);
}

static void insert_free(struct gv_ranges *ranges, struct gv_range *range)
{
    const struct size_class at = class_of(range->bytes / ranges->unit);
    struct gv_range **head = &ranges->free[at.power][at.step];
    range->in_use = 0;
    range->previous = NULL;
    range->next = *head;
    if (*head != NULL)
        (*head)->previous = range;
    *head = range;
    ranges->class_bits |= 1ull << at.power;
    ranges->step_bits[at.power] |= 1u << at.step;
}

static void remove_free(struct gv_ranges *ranges, struct gv_range *range)
{
    const struct size_class at = class_of(range->bytes / ranges->unit);
    if (range->previous != NULL)
        range->previous->next = range->next;
    else
        ranges->free[at.power][at.step] = range->next;
    if (range->next != NULL)
        range->next->previous = range->previous;
    if (ranges->free[at.power][at.step] == NULL) {
        ranges->step_bits[at.power] &= ~(1u << at.step);
        if (ranges->step_bits[at.power] == 0)
            ranges->class_bits &= ~(1ull << at.power);
    }
}

/* --- the table ------------------------------------------------------------------------------------------------------------ */

enum { FIRST_BUCKETS = 64, MARKS = 64 }; /* MARKS: granules in a word of marks */

static uint64_t unit_of(const struct gv_ranges *ranges, uint64_t address)
{
    return (address - ranges->base) / ranges->unit;
}

static uint64_t granule_of(const struct gv_ranges *ranges, const struct gv_range *range)
{
    return unit_of(ranges, range->address) / GV_RANGE_GRANULE;
}

static struct gv_range **bucket_of(const struct gv_ranges *ranges, uint64_t unit, uint64_t count)
{
    const uint64_t hash = unit * 0x9e3779b97f4a7c15ull >> 24; /* strides of powers of two must not share buckets */
    const uint64_t half = 1ull << (63 - __builtin_clzll(count)), index = hash & (2 * half - 1);
    return &ranges->buckets[index < count ? index : hash & (half - 1)];
}

/* One bucket more: what now belongs into it comes from one other. */
static void grow(struct gv_ranges *ranges)
{
    const uint64_t count = ranges->bucket_count, half = 1ull << (63 - __builtin_clzll(count));
    struct gv_range **const added = &ranges->buckets[count];
    ranges->bucket_count = count + 1;
    for (struct gv_range **link = &ranges->buckets[count - half]; *link != NULL;) {
        struct gv_range *const range = *link;
        if (bucket_of(ranges, unit_of(ranges, range->address), count + 1) != added) {
            link = &range->next;
            continue;
        }
        *link = range->next;
        range->next = *added;
        *added = range;
    }
}

void gv_ranges_show(struct gv_ranges *ranges, struct gv_range *range)
{
    const uint64_t unit = unit_of(ranges, range->address), granule = unit / GV_RANGE_GRANULE;
    struct gv_range **const bucket = bucket_of(ranges, unit, ranges->bucket_count);
    range->shown = 1;
    range->next = *bucket;
    *bucket = range;
    ranges->marks[granule / MARKS] |= 1ull << granule % MARKS;
    if (range->bytes > ranges->longest)
        ranges->longest = range->bytes;
    if (++ranges->shown > ranges->bucket_count && ranges->bucket_count < ranges->bytes / ranges->unit)
        grow(ranges);
}

/* Nearest neighbours in use; free ones are joined, so there is at most one between. */
static const struct gv_range *used_below(const struct gv_range *range)
{
    const struct gv_range *const lower = range->lower;
    return lower != NULL && !lower->in_use ? lower->lower : lower;
}

static const struct gv_range *used_above(const struct gv_range *range)
{
    const struct gv_range *const upper = range->upper;
    return upper != NULL && !upper->in_use ? upper->upper : upper;
}

static void unmark(struct gv_ranges *ranges, const struct gv_range *range)
{
    const uint64_t granule = granule_of(ranges, range);
    const struct gv_range *const below = used_below(range), *const above = used_above(range);
    if ((below == NULL || granule_of(ranges, below) != granule) &&
        (above == NULL || granule_of(ranges, above) != granule))
        ranges->marks[granule / MARKS] &= ~(1ull << granule % MARKS);
}

void gv_ranges_hide(struct gv_ranges *ranges, struct gv_range *range)
{
    if (range->shown) {
        struct gv_range **link = bucket_of(ranges, unit_of(ranges, range->address), ranges->bucket_count);
        while (*link != range)
            link = &(*link)->next;
        *link = range->next;
        range->shown = 0;
        ranges->shown--;
    }
    unmark(ranges, range); /* also of one that was hidden before: then its neighbours may have kept the bit for it */
}

static void *map_sparse(uint64_t bytes)
{
    return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static uint64_t bucket_bytes(const struct gv_ranges *ranges)
{
    const uint64_t units = ranges->bytes / ranges->unit;
    return (units < FIRST_BUCKETS ? FIRST_BUCKETS : units) * sizeof *ranges->buckets;
}

static uint64_t mark_bytes(const struct gv_ranges *ranges)
{
    return (ranges->bytes / ranges->unit / GV_RANGE_GRANULE / MARKS + 1) * sizeof *ranges->marks;
}

int gv_ranges_init(struct gv_ranges *ranges, uint64_t base, uint64_t bytes, uint64_t unit)
{
    memset(ranges, 0, sizeof *ranges);
    ranges->base = base;
    ranges->bytes = bytes;
    ranges->unit = unit;
    ranges->bucket_count = FIRST_BUCKETS;
    ranges->buckets = map_sparse(bucket_bytes(ranges));
    ranges->marks = map_sparse(mark_bytes(ranges));
    struct gv_range *const whole = calloc(1, sizeof *whole);
    if (ranges->buckets == MAP_FAILED || ranges->marks == MAP_FAILED || whole == NULL) {
        if (ranges->buckets != MAP_FAILED)
            munmap(ranges->buckets, bucket_bytes(ranges));
        if (ranges->marks != MAP_FAILED)
            munmap(ranges->marks, mark_bytes(ranges));
        free(whole);
        return ENOMEM;
    }
    whole->address = base;
    whole->bytes = bytes;
    ranges->first = whole;
    insert_free(ranges, whole);
    return 0;
}

void gv_ranges_destroy(struct gv_ranges *ranges)
{
    struct gv_range *range = ranges->first;
    while (range != NULL) {
        struct gv_range *upper = range->upper;
        free(range);
        range = upper;
    }
    munmap(ranges->buckets, bucket_bytes(ranges));
    munmap(ranges->marks, mark_bytes(ranges));
}

/* --- take and give -------------------------------------------------------------------------------------------------------- */

enum { OWN_CLASS_LOOKS = 4 };

static struct gv_range *find_fit(const struct gv_ranges *ranges, uint64_t units)
{
    const struct size_class own = class_of(units), at = class_above(units);
    if (at.power >= GV_RANGE_CLASSES)
        return NULL;
    /* A hole of just this size, as a program leaves that takes and frees the same sizes again and again: without a look here
     * it would be passed over for a larger one. Only so many looks: O(1). */
    struct gv_range *range = ranges->free[own.power][own.step];
    for (int looks = 0; range != NULL && looks < OWN_CLASS_LOOKS; looks++, range = range->next)
        if (range->bytes >= units * ranges->unit)
            return range;
    uint32_t steps = ranges->step_bits[at.power] & (~0u << at.step);
    int power = at.power;
    if (steps == 0) {
        const uint64_t classes = ranges->class_bits & (~0ull << at.power << 1);
        if (classes == 0) {
            /* The class of the size itself may still hold a large enough member. */
            range = ranges->free[own.power][own.step];
            while (range != NULL && range->bytes < units * ranges->unit)
                range = range->next;
            return range;
        }
        power = __builtin_ctzll(classes);
        steps = ranges->step_bits[power];
    }
    return ranges->free[power][__builtin_ctz(steps)];
}

struct gv_range *gv_ranges_take(struct gv_ranges *ranges, uint64_t bytes)
{
    if (bytes == 0 || bytes > ranges->bytes)
        return NULL;
    const uint64_t units = (bytes + ranges->unit - 1) / ranges->unit;
    struct gv_range *range = find_fit(ranges, units);
    if (range == NULL)
        return NULL;
    const uint64_t size = units * ranges->unit;
    struct gv_range *rest = NULL;
    if (range->bytes > size && (rest = calloc(1, sizeof *rest)) == NULL)
        return NULL;
    remove_free(ranges, range);
    if (rest != NULL) {
        rest->address = range->address + size;
        rest->bytes = range->bytes - size;
        rest->lower = range;
        rest->upper = range->upper;
        if (rest->upper != NULL)
            rest->upper->lower = rest;
        range->upper = rest;
        range->bytes = size;
        insert_free(ranges, rest);
    }
    range->in_use = 1;
    gv_ranges_show(ranges, range);
    return range;
}

/* `upper` goes into `range`, which is its lower neighbour. */
static void join(struct gv_range *range, struct gv_range *upper)
{
    range->bytes += upper->bytes;
    range->upper = upper->upper;
    if (range->upper != NULL)
        range->upper->lower = range;
    free(upper);
}

void gv_ranges_give(struct gv_ranges *ranges, struct gv_range *range)
{
    gv_ranges_hide(ranges, range);
    if (range->upper != NULL && !range->upper->in_use) {
        remove_free(ranges, range->upper);
        join(range, range->upper);
    }
    if (range->lower != NULL && !range->lower->in_use) {
        struct gv_range *lower = range->lower;
        remove_free(ranges, lower);
        join(lower, range);
        range = lower;
    }
    insert_free(ranges, range);
}

static struct gv_range *starting_at(const struct gv_ranges *ranges, uint64_t unit)
{
    struct gv_range *range = *bucket_of(ranges, unit, ranges->bucket_count);
    while (range != NULL && unit_of(ranges, range->address) != unit)
        range = range->next;
    return range;
}

struct gv_range *gv_ranges_at(const struct gv_ranges *ranges, uint64_t address)
{
    if (!gv_ranges_own(ranges, address) || (address - ranges->base) % ranges->unit != 0)
        return NULL;
    return starting_at(ranges, unit_of(ranges, address));
}

/* The highest marked granule of [lowest, granule], or UINT64_MAX. */
static uint64_t marked_below(const struct gv_ranges *ranges, uint64_t granule, uint64_t lowest)
{
    uint64_t word = granule / MARKS, bits = ranges->marks[word] & (~0ull >> (MARKS - 1 - granule % MARKS));
    while (bits == 0 && word > lowest / MARKS)
        bits = ranges->marks[--word];
    const uint64_t found = bits == 0 ? UINT64_MAX : word * MARKS + 63 - (uint64_t)__builtin_clzll(bits);
    return found != UINT64_MAX && found >= lowest ? found : UINT64_MAX;
}

struct gv_range *gv_ranges_around(const struct gv_ranges *ranges, uint64_t address)
{
    if (!gv_ranges_own(ranges, address))
        return NULL;
    const uint64_t unit = unit_of(ranges, address), reach = ranges->longest / ranges->unit;
    const uint64_t lowest = unit > reach ? (unit - reach) / GV_RANGE_GRANULE : 0;
    uint64_t granule = unit / GV_RANGE_GRANULE;
    while ((granule = marked_below(ranges, granule, lowest)) != UINT64_MAX) {
        const uint64_t bottom = granule * GV_RANGE_GRANULE, top = bottom + GV_RANGE_GRANULE - 1;
        for (uint64_t at = (top < unit ? top : unit) + 1; at-- > bottom;) {
            struct gv_range *const range = starting_at(ranges, at);
            if (range != NULL)
                return address - range->address < range->bytes ? range : NULL;
        }
        if (granule-- == lowest)
            break;
    }
    return NULL;
}
