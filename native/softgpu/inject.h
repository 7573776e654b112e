/* SPDX-License-Identifier: Apache-2.0
 *
 * Applying fault rules: what call.c, workers.c, copy.c, the checkpoint service and NVML ask when rules are armed.
 */
#ifndef GPUVIRT_SOFTGPU_INJECT_H
#define GPUVIRT_SOFTGPU_INJECT_H

#include "board.h"

/* What is left for the caller to do; delays have been waited for, kills done. */
struct gv_verdict {
    uint64_t error; /* 0: none */
    uint32_t hang;  /* id of a rule: wait with gv_fault_hang, or until gv_fault_holds is false */
    bool corrupt;
    uint64_t rate; /* bytes a second; 0: unlimited */
};
/* `what` is an entry point, or a place with a dot in it; `device` -1: of no device. Counts the call in the rules. */
struct gv_verdict gv_fault_apply(struct gv_board *board, const char *what, int device);
bool gv_fault_holds(const struct gv_board *board, uint32_t rule);
void gv_fault_hang(struct gv_board *board, uint32_t rule);

#endif
