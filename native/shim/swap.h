/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies extents between device memory and the arena. Control thread; the extents are `moving`, so nobody else touches them.
 */
#ifndef GPUVIRT_SHIM_SWAP_H
#define GPUVIRT_SHIM_SWAP_H

#include <stdint.h>

#include "cuda_api.h"

/* Copies what the arena holds of these (mapped, accessible) extents to the device; returns when all is there. */
CUresult gv_swap_copy_in(const uint64_t *indexes, uint64_t count, uint64_t *bytes);

/*
 * Saves the extents, in order. Host memory for all is reserved before anything is copied; `release` is called for each extent
 * whose content is safe, while later ones still copy. *done: how many were released; the others are as they were.
 */
CUresult gv_swap_copy_out(const uint64_t *indexes, uint64_t count, void (*release)(uint64_t index), uint64_t *done);

#endif
