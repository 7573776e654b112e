/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies pieces between device memory and the arena. Control thread; the pieces are `moving`, so nobody else touches them.
 */
#ifndef GPUVIRT_SHIM_SWAP_H
#define GPUVIRT_SHIM_SWAP_H

#include <stdint.h>

#include "memory.h"

/* The content that the arena holds of a piece is no longer wanted. Any thread; under gv_memory.lock, unless nobody else knows
 * the piece. */
void gv_swap_forget(struct gv_piece *piece);

struct gv_swap_counts {
    uint64_t copied, zero, clean, duplicate; /* bytes */
    uint64_t hash_ns, copy_ns;
};
/* Adds them to what a transaction has moved. */
static inline void gv_move_count(struct gv_move *move, const struct gv_swap_counts *counts)
{
    move->bytes_moved += counts->copied;
    move->zero_bytes += counts->zero;
    move->clean_bytes += counts->clean;
    move->duplicate_bytes += counts->duplicate;
    move->hash_ns += counts->hash_ns;
    move->copy_ns += counts->copy_ns;
}

/*
 * Hands what the arena holds of these (mapped, accessible) pieces to the copy engine, as one group; several may be under way.
 * The doorbell rings when a group is in. From the first group to gv_swap_finish_in one context is held.
 */
CUresult gv_swap_submit_in(struct gv_piece *const *pieces, uint64_t count, struct gv_swap_counts *counts);
uint32_t gv_swap_under_way(void); /* groups that are not in yet */
int gv_swap_holds_context(void);
/* Waits for all groups. After an error none of their pieces can be relied on. */
CUresult gv_swap_finish_in(struct gv_swap_counts *counts);

/*
 * Saves the pieces, in order. Host memory for all is reserved before anything is copied; `release` is called for each piece
 * whose content is safe, while later ones still copy. *done: how many were released; the others are as they were.
 */
CUresult gv_swap_copy_out(struct gv_piece *const *pieces, uint64_t count,
                          void (*release)(struct gv_piece *piece, void *context), void *context,
                          struct gv_swap_counts *counts, uint64_t *done);
void gv_swap_reset(void); /* in the child of a fork */

#endif
