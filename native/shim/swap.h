/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies pieces between device memory and the arena, page by page as far as need be. Control thread; the pieces are `moving`, so
 * nobody else touches them.
 */
#ifndef GPUVIRT_SHIM_SWAP_H
#define GPUVIRT_SHIM_SWAP_H

#include <stdint.h>

#include "memory.h"

struct gv_swap_counts {
    uint64_t copied, zero, clean, duplicate; /* bytes: over the link; and that did not have to be */
    uint64_t hash_ns, copy_ns;               /* waited for hashes; the whole */
    uint64_t hash_errors, verify_errors;     /* pages */
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

/* Before anything is swapped: loads what swapping needs into a context, so that no switch waits for it. */
void gv_swap_prepare(void);

/* The host memory in use, to the client page: what is freed gives up pages of the arena between two swaps too. */
void gv_swap_publish_held(void);

/*
 * swap_in.c. Hands what the records of these (mapped, accessible) pieces say to the copy engine, as one group; several may be
 * under way. The doorbell rings when a group is in. From the first group to gv_swap_finish_in one context is held.
 */
CUresult gv_swap_submit_in(struct gv_piece *const *pieces, uint64_t count, struct gv_swap_counts *counts);
uint32_t gv_swap_under_way(void); /* groups that are not in yet */
int gv_swap_holds_context(void);
/* Waits for all groups; with `verify` in force, hashes what came. After an error none of their pieces can be relied on. */
CUresult gv_swap_finish_in(struct gv_swap_counts *counts);

/*
 * swap_out.c. Saves the pieces, in order: hashes, decides, copies what must be, a window at a time, hashing ahead of copying.
 * Host memory for a window is reserved before it is copied; `release` is called for each piece whose content is safe, while
 * later ones still hash and copy. *done: how many were released; the others are as they were.
 */
CUresult gv_swap_copy_out(struct gv_piece *const *pieces, uint64_t count,
                          void (*release)(struct gv_piece *piece, void *context), void *context,
                          struct gv_swap_counts *counts, uint64_t *done);
void gv_swap_reset(void); /* in the child of a fork */

#endif
