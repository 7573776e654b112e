/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint_state.h"

static const struct {
    CUprocessState from, to;
} moves[] = {
    [GV_LOCK] = {CU_PROCESS_STATE_RUNNING, CU_PROCESS_STATE_LOCKED},
    [GV_CHECKPOINT] = {CU_PROCESS_STATE_LOCKED, CU_PROCESS_STATE_CHECKPOINTED},
    [GV_RESTORE] = {CU_PROCESS_STATE_CHECKPOINTED, CU_PROCESS_STATE_LOCKED},
    [GV_UNLOCK] = {CU_PROCESS_STATE_LOCKED, CU_PROCESS_STATE_RUNNING},
};

CUresult gv_checkpoint_allowed(CUprocessState state, enum gv_checkpoint_operation operation)
{
    if (operation < GV_LOCK || operation > GV_UNLOCK)
        return CUDA_ERROR_INVALID_VALUE;
    if (state == moves[operation].from)
        return CUDA_SUCCESS;
    /* After a restore has failed, real drivers answer every further one so (NVIDIA/cuda-checkpoint#44). */
    if (state == CU_PROCESS_STATE_FAILED && operation == GV_RESTORE)
        return CUDA_ERROR_OPERATING_SYSTEM;
    return CUDA_ERROR_ILLEGAL_STATE;
}

CUprocessState gv_checkpoint_next(CUprocessState state, enum gv_checkpoint_operation operation, CUresult outcome,
                                  bool undone)
{
    if (outcome == CUDA_SUCCESS)
        return moves[operation].to;
    return undone ? state : CU_PROCESS_STATE_FAILED;
}
