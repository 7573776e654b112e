/* SPDX-License-Identifier: Apache-2.0
 *
 * Reservations and mappings of the program by address: two balanced trees of ranges that do not overlap. All under
 * gv_memory.lock.
 */
#include "blocks.h"

#include <search.h>
#include <stdlib.h>

struct reservation {
    uint64_t base, bytes; /* first, as in struct gv_mapping: compared */
};

static void *reservations, *mappings;

static int compare(const void *left, const void *right)
{
    const struct reservation *a = left, *b = right;
    if (a->base + a->bytes <= b->base)
        return -1;
    return b->base + b->bytes <= a->base ? 1 : 0;
}

static void *look_up(void *const *tree, uint64_t base, uint64_t bytes)
{
    const struct reservation key = {base, bytes};
    void *const *const node = tfind(&key, tree, compare);
    return node == NULL ? NULL : *node;
}

void gv_mappings_forget(void) { reservations = mappings = NULL; }

int gv_reservation_add(uint64_t base, uint64_t bytes)
{
    struct reservation *const made = malloc(sizeof *made);
    if (made == NULL)
        return -1;
    *made = (struct reservation){base, bytes};
    if (tsearch(made, &reservations, compare) != NULL)
        return 0;
    free(made);
    return -1;
}

int gv_reservation_around(uint64_t address, uint64_t *base, uint64_t *bytes)
{
    const struct reservation *const found = look_up(&reservations, address, 1);
    if (found == NULL)
        return 0;
    *base = found->base;
    *bytes = found->bytes;
    return 1;
}

int gv_reservation_remove(uint64_t base, uint64_t bytes)
{
    struct reservation *const found = look_up(&reservations, base, 1);
    if (found == NULL)
        return 0;
    if (found->base != base || found->bytes != bytes || look_up(&mappings, base, bytes) != NULL)
        return -1;
    tdelete(found, &reservations, compare);
    free(found);
    return 1;
}

struct gv_mapping *gv_mapping_around(uint64_t address, uint64_t bytes) { return look_up(&mappings, address, bytes); }

int gv_mapping_add(struct gv_mapping *mapping)
{
    if (tsearch(mapping, &mappings, compare) == NULL)
        return -1;
    mapping->serial = ++gv_memory.serial;
    mapping->next = mapping->block->mappings;
    mapping->block->mappings = mapping;
    return 0;
}

void gv_mapping_remove(struct gv_mapping *mapping)
{
    struct gv_mapping **link = &mapping->block->mappings;
    while (*link != mapping)
        link = &(*link)->next;
    *link = mapping->next;
    tdelete(mapping, &mappings, compare);
    free(mapping);
}

int64_t gv_mappings_count(uint64_t base, uint64_t bytes)
{
    if (gv_mapping_around(base, bytes) == NULL)
        return 0;
    int64_t count = 0;
    for (uint64_t at = base; at < base + bytes; count++) {
        const struct gv_mapping *const mapping = gv_mapping_around(at, 1);
        if (mapping == NULL || mapping->base != at || mapping->bytes > base + bytes - at)
            return -1;
        at += mapping->bytes;
    }
    return count;
}
