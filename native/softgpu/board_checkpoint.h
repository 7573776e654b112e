/* SPDX-License-Identifier: Apache-2.0
 *
 * How one process asks another to lock, checkpoint, restore and unlock itself. Each process that has called cuInit has a
 * service thread that answers (service.c); callers are in checkpoint.c. No signals are used.
 *
 *     stage     FREE -> CLAIMED -> POSTED -> TAKEN -> ANSWERED -> FREE
 *     by        caller   caller    service   service   caller
 *
 * One request at a time. `caller` says whose it is; one that has died is replaced by the next caller, and by the service
 * thread, which gives a lock up when nobody waits for it any more. What has been taken is finished: the process is never left
 * between two states.
 */
#ifndef GPUVIRT_SOFTGPU_BOARD_CHECKPOINT_H
#define GPUVIRT_SOFTGPU_BOARD_CHECKPOINT_H

#include <stdbool.h>
#include <stdint.h>

enum { GV_CHECKPOINT_PAIRS = 16 };

enum gv_checkpoint_stage { GV_STAGE_FREE, GV_STAGE_CLAIMED, GV_STAGE_POSTED, GV_STAGE_TAKEN, GV_STAGE_ANSWERED };

struct gv_board_checkpoint {
    uint32_t state;      /* (atomic) CUprocessState; written by the service thread */
    uint32_t stage;      /* (atomic) as above; a futex for both sides */
    uint64_t caller;     /* (atomic) gv_identity of whose request it is; 0: nobody's */
    uint32_t thread;     /* (atomic) id of the service thread; 0 until it runs */
    uint32_t operation;  /* the request, by the caller: enum gv_checkpoint_operation */
    uint32_t timeout_ms; /* of a lock; 0: for ever */
    uint32_t answer;     /* by the service thread: CUresult */
    uint32_t pair_count; /* of a restore */
    uint32_t reserved;
    uint8_t pairs[GV_CHECKPOINT_PAIRS][2][16]; /* UUIDs: old, new */
};

struct gv_board;

/* What a checkpoint takes off the board. */
struct gv_board_saved {
    uint64_t bytes[16];
    uint32_t contexts[16];
};
/* Everything that the process `record` is charged with goes; memory shared with others must not be among it. */
void gv_board_take_away(struct gv_board *board, int record, struct gv_board_saved *saved);
/* It comes back, device d's part to place[d]; all or nothing: false when it does not fit. */
bool gv_board_give_back(struct gv_board *board, int record, const struct gv_board_saved *saved, const uint8_t *place);

#endif
