/* SPDX-License-Identifier: Apache-2.0
 *
 * What both directions of swapping share (swap.h).
 */
#ifndef GPUVIRT_SHIM_SWAP_PARTS_H
#define GPUVIRT_SHIM_SWAP_PARTS_H

#include "page_hash.h"
#include "swap.h"

/* Where the copy engine reaches the piece; what had to be mapped for that is unmapped by gv_swap_close. */
CUresult gv_swap_open(struct gv_piece *piece, CUdeviceptr *address);
void gv_swap_close(struct gv_piece *piece);

/* How many of these pages lie one behind the other from the first on, in the arena and in one pinned piece; *host: where. */
struct gv_place {
    CUdeviceptr address;
    int32_t slot; /* gv_slot */
};
uint64_t gv_swap_run(const struct gv_place *places, uint64_t count, void **host);

/* The key of this job's hashes, if the kernel is loaded in the current context; else NULL: there are no hashes. */
const struct gv_hash_key *gv_swap_hash_key(void);

/* Errors, and the host memory in use, to the client page. */
void gv_swap_publish(const struct gv_swap_counts *counts);

void gv_swap_in_reset(void);
void gv_swap_out_reset(void);

#endif
