/* SPDX-License-Identifier: Apache-2.0
 *
 * What is known of each page of a piece. The records stay when a piece comes back to the device: a page whose hash is still
 * that of its slot then leaves again without a copy.
 */
#ifndef GPUVIRT_SHIM_PAGE_RECORDS_H
#define GPUVIRT_SHIM_PAGE_RECORDS_H

#include "arena.h"
#include "memory.h"

enum gv_page_state {
    GV_PAGE_UNKNOWN = 0, /* on the device alone; a slot, if it has one, holds nothing of use */
    GV_PAGE_ZERO = 1,    /* no bit was set when it last left; no slot */
    GV_PAGE_HELD = 2,    /* the slot holds its content as of when it last left, or was copied ahead of that */
};

/* The control thread's, but for gv_pages_forget. Of a piece that is `saved` none is UNKNOWN. */
struct gv_page {
    uint64_t hash[2]; /* of what the slot holds, if `hashed` */
    gv_slot slot;     /* with one reference for this page; -1 = none */
    uint8_t state;    /* enum gv_page_state */
    uint8_t hashed;
    uint8_t reserved[2];
};

static inline uint64_t gv_piece_pages(const struct gv_piece *piece) { return gv_piece_bytes(piece) / GV_MEMORY_PAGE; }

/* The records of a piece, made at the first call; NULL without host memory. Control thread; the piece is `moving`. */
struct gv_page *gv_pages_of(struct gv_piece *piece);

/* What the arena holds of a piece is no longer wanted. Any thread; under gv_memory.lock, unless nobody else knows the piece. */
void gv_pages_forget(struct gv_piece *piece);

/* Gives up slots of pages that are on the device too, which may leave again without a copy thanks to them: at most `most`.
 * Returns how many. Control thread, without the lock. */
uint64_t gv_pages_give_back(uint64_t most);

#endif
