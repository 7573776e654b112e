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

/* Copies what the arena holds of these (mapped, accessible) pieces to the device; returns when all is there. */
CUresult gv_swap_copy_in(struct gv_piece *const *pieces, uint64_t count, uint64_t *bytes);

/*
 * Saves the pieces, in order. Host memory for all is reserved before anything is copied; `release` is called for each piece
 * whose content is safe, while later ones still copy. *done: how many were released; the others are as they were.
 */
CUresult gv_swap_copy_out(struct gv_piece *const *pieces, uint64_t count, void (*release)(struct gv_piece *piece),
                          uint64_t *done);

#endif
