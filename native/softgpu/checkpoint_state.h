/* SPDX-License-Identifier: Apache-2.0
 *
 * The states of a process that is checkpointed. Pure.
 *
 *     RUNNING --lock--> LOCKED --checkpoint--> CHECKPOINTED --restore--> LOCKED --unlock--> RUNNING        FAILED: for ever
 */
#ifndef GPUVIRT_SOFTGPU_CHECKPOINT_STATE_H
#define GPUVIRT_SOFTGPU_CHECKPOINT_STATE_H

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>

#include <stdbool.h>

enum gv_checkpoint_operation { GV_LOCK = 1, GV_CHECKPOINT, GV_RESTORE, GV_UNLOCK };

/* SUCCESS when the operation may be tried in this state, else its answer. */
CUresult gv_checkpoint_allowed(CUprocessState state, enum gv_checkpoint_operation operation);
/* The state after an allowed operation that ended with `outcome`. `undone`: a failed one has left everything as it was. */
CUprocessState gv_checkpoint_next(CUprocessState state, enum gv_checkpoint_operation operation, CUresult outcome,
                                  bool undone);

#endif
