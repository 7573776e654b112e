/* SPDX-License-Identifier: Apache-2.0
 *
 * Which addresses of a region are handed out. Two-level segregated fit over an address range (Masmano et al., "TLSF", ECRTS
 * 2004): O(1) take and give with immediate joining of neighbours. Deterministic: the same calls give the same addresses, in
 * every replica of a job. Knows nothing of the driver; the caller holds a lock.
 */
#ifndef GPUVIRT_SHIM_RANGES_H
#define GPUVIRT_SHIM_RANGES_H

#include <stddef.h>
#include <stdint.h>

enum { GV_RANGE_CLASSES = 40, GV_RANGE_STEPS = 16 }; /* sizes by power of two, each split into linear steps */
enum { GV_RANGE_GRANULE = 8 };                       /* units */

/* One piece of the region, free or in use. The fields after `base` belong to the caller. */
struct gv_range {
    uint64_t address, bytes;
    struct gv_range *lower, *upper; /* neighbours by address */
    struct gv_range *previous,
        *next; /* free: in the list of its size class; shown: `next` in its bucket of the table */
    int in_use;
    int16_t shown; /* in the table */
    /* caller */
    int16_t sync_memops;  /* CU_POINTER_ATTRIBUTE_SYNC_MEMOPS */
    uint64_t asked_bytes; /* as the program asked */
    uint64_t serial;      /* unique in the process: CU_POINTER_ATTRIBUTE_BUFFER_ID */
    void *context, *pool; /* CUcontext; CUmemoryPool or NULL */
};

/*
 * The table of the ranges in use, by first unit: linear hashing (Litwin 1980), which grows by one bucket at a time, so that no
 * call pays for all entries; and one bit for each GV_RANGE_GRANULE units in which a range may begin, to find what lies around
 * an address. 8 bytes a range and a bit a granule, whatever the sizes: a plain array by unit would cost a page a range.
 */
struct gv_ranges {
    uint64_t base, bytes, unit;
    struct gv_range **buckets; /* a sparse mapping, room for one a unit */
    uint64_t bucket_count, shown;
    uint64_t *marks;        /* a sparse mapping; a bit may be set without need, while a hidden range begins there */
    uint64_t longest;       /* bytes of the longest range so far: how far down a search has to go */
    struct gv_range *first; /* the piece at the base: split and joined, but always this one; walk from it by `upper` */
    uint64_t class_bits;
    uint32_t step_bits[GV_RANGE_CLASSES];
    struct gv_range *free[GV_RANGE_CLASSES][GV_RANGE_STEPS];
};

/* `unit`: power of two; base and bytes are multiples of it. 0, or an errno. */
int gv_ranges_init(struct gv_ranges *ranges, uint64_t base, uint64_t bytes, uint64_t unit);
void gv_ranges_destroy(struct gv_ranges *ranges);

/* A range of at least `bytes` (rounded up to units), aligned to the unit; NULL when there is none or no host memory. */
struct gv_range *gv_ranges_take(struct gv_ranges *ranges, uint64_t bytes);
void gv_ranges_give(struct gv_ranges *ranges, struct gv_range *range);

/* The shown range that begins at / contains an address; NULL if none. */
struct gv_range *gv_ranges_at(const struct gv_ranges *ranges, uint64_t address);
struct gv_range *gv_ranges_around(const struct gv_ranges *ranges, uint64_t address);

/* A range in use is shown from the start; hidden, it is still in use, but no address leads to it. */
void gv_ranges_hide(struct gv_ranges *ranges, struct gv_range *range);
void gv_ranges_show(struct gv_ranges *ranges, struct gv_range *range);

static inline int gv_ranges_own(const struct gv_ranges *ranges, uint64_t address)
{
    return address - ranges->base < ranges->bytes;
}

#endif
