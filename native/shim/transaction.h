/* SPDX-License-Identifier: Apache-2.0
 *
 * What the two transactions of the control thread (restore.h, evict.h) are made of: batches of pieces, extents and blocks alike.
 * A piece in a batch is `moving`: it is the control thread's until it is settled.
 */
#ifndef GPUVIRT_SHIM_TRANSACTION_H
#define GPUVIRT_SHIM_TRANSACTION_H

#include <stdint.h>

#include "memory.h"

struct gv_batch {
    struct gv_piece **pieces; /* extents first, upwards; then blocks. Freed by gv_batch_free */
    uint64_t count, extents;
    uint64_t bytes;
};

/* How much is created and mapped, or told as gone, at a time: a power of two, about 1/32 of the device. */
uint64_t gv_window_bytes(void);

/*
 * Absent pieces, of about a window, with which no more than `most` bytes are resident. 0, or -1 without host memory. An empty
 * batch: *waiting says whether pieces are absent that do not fit.
 */
int gv_batch_absent(struct gv_batch *batch, uint64_t most, int *waiting);
/* Mapped pieces of at least `wanted` bytes, if there are so many that may move. 0, or -1 without host memory. */
int gv_batch_mapped(struct gv_batch *batch, uint64_t wanted);
void gv_batch_free(struct gv_batch *batch);

/* Physical memory for all of them, mapped and accessible; after an error, for none. */
CUresult gv_batch_bring(const struct gv_batch *batch);
/* Takes the physical memory of a piece away. */
void gv_piece_drop(struct gv_piece *piece);

/* The pieces may be touched from now on. Extents that went out of use meanwhile are unmapped again. */
void gv_settle_mapped(struct gv_piece *const *pieces, uint64_t count);
void gv_settle_absent(struct gv_piece *const *pieces, uint64_t count);

/* Bytes of all pieces that are in use and not resident; what will be resident with them. 0, or -1 without host memory. */
int gv_absent_bytes(uint64_t *bytes, uint64_t *after);

#endif
