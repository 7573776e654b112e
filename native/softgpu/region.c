/* SPDX-License-Identifier: Apache-2.0
 *
 * Which address belongs to what: a balanced tree of disjoint ranges (search.h).
 */
#include "memory.h"

#include <search.h>
#include <stdlib.h>

static void *tree; /* of struct gv_region */
static uint64_t last_id;

/* Overlapping ranges compare as equal. */
static int compare(const void *left, const void *right)
{
    const struct gv_region *a = left, *b = right;
    if (a->base + a->bytes <= b->base)
        return -1;
    return b->base + b->bytes <= a->base ? 1 : 0;
}

struct gv_region *gv_region_find(uint64_t address)
{
    const struct gv_region key = {.base = address, .bytes = 1};
    if (address == UINT64_MAX)
        return NULL;
    struct gv_region **node = tfind(&key, &tree, compare);
    return node == NULL ? NULL : *node;
}

struct gv_region *gv_region_add(uint64_t base, uint64_t bytes, enum gv_region_kind kind, int device,
                                struct gv_context *context)
{
    struct gv_region *region = calloc(1, sizeof *region);
    if (region == NULL)
        return NULL;
    region->base = base;
    region->bytes = bytes;
    region->kind = kind;
    region->device = device;
    region->context = context;
    region->id = ++last_id;
    struct gv_region **node = tsearch(region, &tree, compare);
    if (node == NULL || *node != region) {
        free(region);
        return NULL;
    }
    return region;
}

void gv_region_remove(struct gv_region *region)
{
    tdelete(region, &tree, compare);
    free(region);
}

struct walk {
    struct gv_region **list;
    size_t count, room;
};

static void collect(const void *node, VISIT visit, void *data)
{
    struct walk *walk = data;
    if (visit != postorder && visit != leaf)
        return;
    if (walk->count == walk->room) {
        const size_t room = walk->room * 2 + 64;
        struct gv_region **list = realloc(walk->list, room * sizeof *list);
        if (list == NULL)
            return;
        walk->list = list;
        walk->room = room;
    }
    walk->list[walk->count++] = *(struct gv_region *const *)node;
}

void gv_region_each(bool (*visit)(struct gv_region *region, void *data), void *data)
{
    struct walk walk = {0};
    twalk_r(tree, collect, &walk);
    for (size_t i = 0; i < walk.count; i++)
        if (!visit(walk.list[i], data))
            break;
    free(walk.list);
}

bool gv_range_known(uint64_t address, uint64_t bytes, enum gv_region_kind *kind)
{
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(address);
    const bool known = region != NULL && bytes <= region->base + region->bytes - address;
    if (known && kind != NULL)
        *kind = region->kind;
    pthread_mutex_unlock(&gv_memory_lock);
    return known;
}

bool gv_is_host_kind(enum gv_region_kind kind)
{
    return kind == GV_REGION_HOST || kind == GV_REGION_REGISTERED || kind == GV_REGION_POOL_HOST;
}

bool gv_is_public_kind(enum gv_region_kind kind) { return kind != GV_REGION_ARRAY && kind != GV_REGION_KERNEL; }

bool gv_is_managed_kind(enum gv_region_kind kind)
{
    return kind == GV_REGION_MANAGED || kind == GV_REGION_POOL_MANAGED;
}

bool gv_is_pool_kind(enum gv_region_kind kind)
{
    return kind == GV_REGION_POOL || kind == GV_REGION_POOL_HOST || kind == GV_REGION_POOL_MANAGED;
}

bool gv_same_memory(uint64_t one, uint64_t other)
{
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *a = gv_region_find(one), *b = gv_region_find(other);
    const bool same = a != NULL && b != NULL && a->device == b->device &&
                      gv_is_host_kind(a->kind) == gv_is_host_kind(b->kind) &&
                      gv_is_managed_kind(a->kind) == gv_is_managed_kind(b->kind);
    pthread_mutex_unlock(&gv_memory_lock);
    return same;
}
