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

/* One piece of the region, free or in use. The fields after `base` belong to the caller. */
struct gv_range {
    uint64_t address, bytes;
    struct gv_range *lower, *upper;             /* neighbours by address */
    struct gv_range *previous_free, *next_free; /* in the list of its size class, while free */
    int in_use;
    /* caller */
    uint64_t asked_bytes; /* as the program asked */
    uint64_t serial;      /* unique in the process: CU_POINTER_ATTRIBUTE_BUFFER_ID */
    void *context, *pool; /* CUcontext; CUmemoryPool or NULL */
};

struct gv_ranges {
    uint64_t base, bytes, unit;
    struct gv_range **starts; /* by unit: the range in use that begins there; a sparse mapping */
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

/* The range in use that begins at / contains an address; NULL if none. Linear in the units of the range for interior ones. */
struct gv_range *gv_ranges_at(const struct gv_ranges *ranges, uint64_t address);
struct gv_range *gv_ranges_around(const struct gv_ranges *ranges, uint64_t address);

static inline int gv_ranges_own(const struct gv_ranges *ranges, uint64_t address)
{
    return address - ranges->base < ranges->bytes;
}

#endif
