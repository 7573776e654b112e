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
    range->previous_free = NULL;
    range->next_free = *head;
    if (*head != NULL)
        (*head)->previous_free = range;
    *head = range;
    ranges->class_bits |= 1ull << at.power;
    ranges->step_bits[at.power] |= 1u << at.step;
}

static void remove_free(struct gv_ranges *ranges, struct gv_range *range)
{
    const struct size_class at = class_of(range->bytes / ranges->unit);
    if (range->previous_free != NULL)
        range->previous_free->next_free = range->next_free;
    else
        ranges->free[at.power][at.step] = range->next_free;
    if (range->next_free != NULL)
        range->next_free->previous_free = range->previous_free;
    if (ranges->free[at.power][at.step] == NULL) {
        ranges->step_bits[at.power] &= ~(1u << at.step);
        if (ranges->step_bits[at.power] == 0)
            ranges->class_bits &= ~(1ull << at.power);
    }
}

int gv_ranges_init(struct gv_ranges *ranges, uint64_t base, uint64_t bytes, uint64_t unit)
{
    memset(ranges, 0, sizeof *ranges);
    ranges->base = base;
    ranges->bytes = bytes;
    ranges->unit = unit;
    ranges->starts = mmap(NULL, bytes / unit * sizeof(struct gv_range *), PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ranges->starts == MAP_FAILED)
        return errno;
    struct gv_range *whole = calloc(1, sizeof *whole);
    if (whole == NULL) {
        munmap(ranges->starts, bytes / unit * sizeof(struct gv_range *));
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
    munmap(ranges->starts, ranges->bytes / ranges->unit * sizeof(struct gv_range *));
}

static struct gv_range *find_fit(const struct gv_ranges *ranges, uint64_t units)
{
    const struct size_class at = class_above(units);
    if (at.power >= GV_RANGE_CLASSES)
        return NULL;
    uint32_t steps = ranges->step_bits[at.power] & (~0u << at.step);
    int power = at.power;
    if (steps == 0) {
        const uint64_t classes = ranges->class_bits & (~0ull << at.power << 1);
        if (classes == 0) {
            /* The class of the size itself may still hold a large enough member. */
            const struct size_class own = class_of(units);
            struct gv_range *range = ranges->free[own.power][own.step];
            while (range != NULL && range->bytes < units * ranges->unit)
                range = range->next_free;
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
    ranges->starts[(range->address - ranges->base) / ranges->unit] = range;
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
    ranges->starts[(range->address - ranges->base) / ranges->unit] = NULL;
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

struct gv_range *gv_ranges_at(const struct gv_ranges *ranges, uint64_t address)
{
    if (!gv_ranges_own(ranges, address) || (address - ranges->base) % ranges->unit != 0)
        return NULL;
    return ranges->starts[(address - ranges->base) / ranges->unit];
}

struct gv_range *gv_ranges_around(const struct gv_ranges *ranges, uint64_t address)
{
    if (!gv_ranges_own(ranges, address))
        return NULL;
    for (uint64_t unit = (address - ranges->base) / ranges->unit + 1; unit-- > 0;) {
        struct gv_range *range = ranges->starts[unit];
        if (range != NULL)
            return address - range->address < range->bytes ? range : NULL;
    }
    return NULL;
}
