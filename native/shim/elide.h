/* SPDX-License-Identifier: Apache-2.0
 *
 * Which pages need not be copied on their way out: decided by their hashes, and what the arena has. It knows the arena and
 * records of pages; no driver, no pieces. Control thread.
 */
#ifndef GPUVIRT_SHIM_ELIDE_H
#define GPUVIRT_SHIM_ELIDE_H

#include "page_hash.h"
#include "page_records.h"
#include "swap.h"

enum gv_fate {
    GV_FATE_COPY,      /* to the slot of its record */
    GV_FATE_ZERO,      /* no bit is set: no slot */
    GV_FATE_CLEAN,     /* its slot holds just this */
    GV_FATE_DUPLICATE, /* the arena has it from another page: its record has that slot now */
    GV_FATE_SAME,      /* as a page before it, which is being copied: takes its slot when that is published */
};

/* A page on its way out. */
struct gv_item {
    struct gv_page *page;
    CUdeviceptr address;
    uint64_t hash[2]; /* if `hashed` */
    uint8_t fate;     /* enum gv_fate */
    uint8_t hashed;
    uint8_t compared; /* another process has it too, which is to be believed only when the bytes are the same */
    uint8_t reserved[5];
};

/* For an eviction of `items`: 0, or -1 without host memory. Ended by gv_elide_end, also after an error. */
int gv_elide_begin(struct gv_item *items, uint64_t count);
void gv_elide_end(void);

/* Decides on items[first .. first + count). `hashes`: of just these; NULL: not known, all are copied. */
void gv_elide_decide(uint64_t first, uint64_t count, const struct gv_page_hash *hashes);

/* Slots for those that are copied; `order`: the items by address. CUDA_ERROR_OUT_OF_MEMORY: there are not enough; the records
 * are as right as before, for content that stays on the device. */
CUresult gv_elide_reserve(struct gv_item *const *order, uint64_t count);

/* What was to be copied is copied: the record describes the page from now on. In the order of the items.
 * CUDA_ERROR_NOT_FOUND: it must be copied after all (then as an item of its own, GV_FATE_COPY, after gv_elide_reserve). */
CUresult gv_elide_settle(struct gv_item *item, struct gv_swap_counts *counts);

void gv_elide_forget(void); /* in the child of a fork */

#endif
