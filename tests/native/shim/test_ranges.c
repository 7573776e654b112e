/* SPDX-License-Identifier: Apache-2.0
 *
 * ranges.c against a plain list: never two ranges on one address, nothing lost after any sequence, the same answers to the
 * same calls.
 */
#include <string.h>

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
            gv_ranges_give(&ranges, gone.range);
            CHECK(gv_ranges_at(&ranges, gone.address) == NULL);
            CHECK(gv_ranges_around(&ranges, gone.address) == NULL);
        }
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
    return 0;
}
