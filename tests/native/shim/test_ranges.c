/* SPDX-License-Identifier: Apache-2.0
 *
 * ranges.c against a plain list: never two ranges on one address, nothing lost after any sequence, the same answers to the
 * same calls.
 */
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "ranges.h"

enum { UNITS = 4096, UNIT = 512, LIVE = 300, STEPS = 60000 };
#define BASE 0x100000000ull

static uint64_t seed;
static uint64_t pick(uint64_t limit)
{
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (seed >> 33) % limit;
}

struct held {
    struct gv_range *range;
    uint64_t address, units;
};

/* A range that a free is under way for: no address leads to it, also not after others came and went around it. */
static void hide_and_look(struct gv_ranges *ranges, const struct held *held)
{
    gv_ranges_hide(ranges, held->range);
    CHECK(gv_ranges_at(ranges, held->address) == NULL && gv_ranges_around(ranges, held->address) == NULL);
    struct gv_range *const other = gv_ranges_take(ranges, UNIT);
    if (other != NULL) {
        CHECK(gv_ranges_around(ranges, other->address + UNIT - 1) == other);
        gv_ranges_give(ranges, other);
    }
    if (pick(2) == 0) {
        gv_ranges_show(ranges, held->range);
        CHECK(gv_ranges_around(ranges, held->address + held->units * UNIT - 1) == held->range);
    }
}

static uint64_t own_memory(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL && fscanf(file, "%llu %llu", &size, &resident) == 2);
    fclose(file);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* 100,000 ranges of one size: what each costs in memory of the process. */
static void costs_little(uint64_t bytes)
{
    enum { MANY = 100000 };
    struct gv_ranges ranges;
    CHECK_EQUAL(gv_ranges_init(&ranges, BASE, MANY * bytes * 2, UNIT), 0);
    malloc_trim(0); /* what earlier ranges left would hide what these cost */
    const uint64_t before = own_memory();
    for (int i = 0; i < MANY; i++)
        CHECK(gv_ranges_take(&ranges, bytes) != NULL);
    const uint64_t each = (own_memory() - before) / MANY;
    printf("%llu bytes a range of %llu\n", (unsigned long long)each, (unsigned long long)bytes);
#ifndef __SANITIZE_ADDRESS__
    CHECK(each <= 128);
#endif
    gv_ranges_destroy(&ranges);
}

/* Runs one random history; returns a digest of all addresses handed out. */
static uint64_t history(uint64_t start)
{
    static uint8_t taken[UNITS];
    static struct held held[LIVE];
    struct gv_ranges ranges;
    uint64_t digest = 0, free_units = UNITS;
    int count = 0;
    seed = start;
    memset(taken, 0, sizeof taken);
    CHECK_EQUAL(gv_ranges_init(&ranges, BASE, (uint64_t)UNITS * UNIT, UNIT), 0);
    for (int step = 0; step < STEPS; step++) {
        if (count < LIVE && pick(100) < 55) {
            const uint64_t bytes = 1 + pick(pick(10) == 0 ? 200 * UNIT : 20 * UNIT);
            struct gv_range *range = gv_ranges_take(&ranges, bytes);
            if (range == NULL) {
                uint64_t run = 0, longest = 0;
                for (int i = 0; i < UNITS; i++) {
                    run = taken[i] ? 0 : run + 1;
                    longest = run > longest ? run : longest;
                }
                /* Good fit may miss by less than one step of its class, never by more. */
                CHECK(longest * UNIT < bytes + bytes / 8 + 2 * UNIT);
                continue;
            }
            const uint64_t first = (range->address - BASE) / UNIT, units = range->bytes / UNIT;
            CHECK(range->address >= BASE && first + units <= UNITS && range->bytes >= bytes);
            CHECK_EQUAL(units, (bytes + UNIT - 1) / UNIT);
            for (uint64_t i = first; i < first + units; i++) {
                CHECK(!taken[i]);
                taken[i] = 1;
            }
            free_units -= units;
            held[count++] = (struct held){range, range->address, units};
            CHECK(gv_ranges_at(&ranges, range->address) == range);
            CHECK(gv_ranges_around(&ranges, range->address + range->bytes - 1) == range);
            digest = digest * 31 + range->address;
        } else if (count > 0) {
            const int which = (int)pick((uint64_t)count);
            const struct held gone = held[which];
            held[which] = held[--count];
            memset(taken + (gone.address - BASE) / UNIT, 0, gone.units);
            free_units += gone.units;
            if (pick(3) == 0)
                hide_and_look(&ranges, &gone);
            gv_ranges_give(&ranges, gone.range);
            CHECK(gv_ranges_at(&ranges, gone.address) == NULL);
            CHECK(gv_ranges_around(&ranges, gone.address) == NULL);
        }
        const uint64_t address = BASE + pick((uint64_t)UNITS * UNIT);
        const struct gv_range *around = gv_ranges_around(&ranges, address);
        CHECK((around != NULL) == (taken[(address - BASE) / UNIT] != 0));
        CHECK(around == NULL || (around->in_use && address - around->address < around->bytes));
    }
    while (count > 0)
        gv_ranges_give(&ranges, held[--count].range);
    struct gv_range *whole = gv_ranges_take(&ranges, (uint64_t)UNITS * UNIT); /* all joined again */
    CHECK(whole != NULL && whole->address == BASE);
    CHECK(gv_ranges_take(&ranges, 1) == NULL);
    gv_ranges_destroy(&ranges);
    (void)free_units;
    return digest;
}

int main(void)
{
    for (uint64_t start = 1; start <= 5; start++)
        CHECK_EQUAL(history(start), history(start));
    struct gv_ranges ranges;
    CHECK_EQUAL(gv_ranges_init(&ranges, BASE, UNITS * UNIT, UNIT), 0);
    CHECK(gv_ranges_take(&ranges, 0) == NULL);
    CHECK(gv_ranges_take(&ranges, UINT64_MAX) == NULL);
    CHECK(gv_ranges_at(&ranges, BASE - 1) == NULL && gv_ranges_around(&ranges, BASE + UNITS * UNIT) == NULL);
    gv_ranges_destroy(&ranges);
    costs_little(UNIT);
    costs_little(1000 * UNIT);
    return 0;
}
