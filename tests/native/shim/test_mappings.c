/* SPDX-License-Identifier: Apache-2.0
 *
 * What lies where, against a plain array of pages: random mappings and reservations, and every question about them.
 */
#include "blocks.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

struct gv_memory_state gv_memory = {.lock = PTHREAD_MUTEX_INITIALIZER};

enum { PAGES = 64, PAGE = 4096, ROUNDS = 20000 };
static const uint64_t BASE = 0x100000;

static struct gv_mapping *model[PAGES]; /* by page */

static uint64_t at(int page) { return BASE + (uint64_t)page * PAGE; }

static int64_t count_in_model(int first, int pages)
{
    int any = 0;
    for (int i = first; i < first + pages; i++)
        any |= model[i] != NULL;
    if (!any)
        return 0;
    int64_t count = 0;
    for (int i = first; i < first + pages; count++) {
        const struct gv_mapping *const mapping = model[i];
        if (mapping == NULL || mapping->base != at(i))
            return -1;
        i += (int)(mapping->bytes / PAGE);
        if (i > first + pages)
            return -1;
    }
    return count;
}

static void check_mappings(void)
{
    struct gv_block blocks[2];
    memset(blocks, 0, sizeof blocks);
    srand(11);
    for (int round = 0; round < ROUNDS; round++) {
        const int first = rand() % PAGES, pages = 1 + rand() % 6;
        if (first + pages > PAGES)
            continue;
        CHECK(gv_mappings_count(at(first), (uint64_t)pages * PAGE) == count_in_model(first, pages));
        struct gv_mapping *const found = gv_mapping_around(at(first) + 1, 1);
        CHECK(found == model[first]);
        if (found != NULL && rand() % 2) {
            for (int i = 0; i < PAGES; i++)
                model[i] = model[i] == found ? NULL : model[i];
            gv_mapping_remove(found);
        } else if (gv_mapping_around(at(first), (uint64_t)pages * PAGE) == NULL) {
            struct gv_mapping *const made = calloc(1, sizeof *made);
            CHECK(made != NULL);
            made->base = at(first);
            made->bytes = (uint64_t)pages * PAGE;
            made->block = &blocks[rand() % 2];
            CHECK(gv_mapping_add(made) == 0);
            for (int i = first; i < first + pages; i++)
                model[i] = made;
        }
    }
    /* Every mapping is in the list of its block, and nothing else is. */
    int listed = 0, mapped = 0;
    for (int b = 0; b < 2; b++)
        for (const struct gv_mapping *m = blocks[b].mappings; m != NULL; m = m->next, listed++)
            CHECK(model[(m->base - BASE) / PAGE] == m && m->block == &blocks[b]);
    for (int i = 0; i < PAGES; i++)
        mapped += model[i] != NULL && model[i]->base == at(i);
    CHECK(listed == mapped);
    while (blocks[0].mappings != NULL)
        gv_mapping_remove(blocks[0].mappings);
    while (blocks[1].mappings != NULL)
        gv_mapping_remove(blocks[1].mappings);
    CHECK(gv_mappings_count(BASE, (uint64_t)PAGES * PAGE) == 0);
}

static void check_reservations(void)
{
    struct gv_block block = {.name = 1};
    uint64_t base = 0, bytes = 0;
    CHECK(gv_reservation_add(0x10000, 0x4000) == 0);
    CHECK(gv_reservation_add(0x14000, 0x1000) == 0); /* right beside it */
    CHECK(gv_reservation_around(0x13fff, &base, &bytes) && base == 0x10000 && bytes == 0x4000);
    CHECK(gv_reservation_around(0x14000, &base, &bytes) && base == 0x14000);
    CHECK(!gv_reservation_around(0x15000, &base, &bytes));
    CHECK(gv_reservation_remove(0x20000, 0x1000) == 0);
    CHECK(gv_reservation_remove(0x10000, 0x1000) == -1);
    CHECK(gv_reservation_remove(0x11000, 0x3000) == -1);
    struct gv_mapping *const mapping = calloc(1, sizeof *mapping);
    CHECK(mapping != NULL);
    *mapping = (struct gv_mapping){.base = 0x12000, .bytes = 0x1000, .block = &block};
    CHECK(gv_mapping_add(mapping) == 0);
    CHECK(gv_reservation_remove(0x10000, 0x4000) == -1); /* still in use */
    gv_mapping_remove(mapping);
    CHECK(gv_reservation_remove(0x10000, 0x4000) == 1);
    CHECK(gv_reservation_remove(0x10000, 0x4000) == 0);
    CHECK(gv_reservation_remove(0x14000, 0x1000) == 1);
}

int main(void)
{
    check_mappings();
    check_reservations();
    return 0;
}
