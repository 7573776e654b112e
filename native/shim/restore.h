/* SPDX-License-Identifier: Apache-2.0
 *
 * Bringing in all that is absent, by credit: the daemon says how much may be resident when it is done, and how much by now. A
 * window at a time is created, mapped and handed to the copy engine, and the next one is made while that copies. Between two
 * windows the control thread looks at its messages; while copies or credit are waited for it sleeps in its poll.
 *
 * What a failed restore has brought in stays: it is told, and moves no second time. Control thread only.
 */
#ifndef GPUVIRT_SHIM_RESTORE_H
#define GPUVIRT_SHIM_RESTORE_H

#include <stdint.h>

#include "memory.h"

enum gv_restore_state {
    GV_RESTORE_NONE,         /* nothing is under way */
    GV_RESTORE_AGAIN,        /* more can be done at once */
    GV_RESTORE_WAITS,        /* for copies (the doorbell rings at the end of each window), or for credit */
    GV_RESTORE_NEEDS_CREDIT, /* waits for credit from now on: all that it allowed is in. Told once for each credit */
    GV_RESTORE_ENDED,        /* *move says how; told once */
};

/* One that is under way already gets these figures. */
void gv_restore_begin(uint64_t allowance, uint64_t credit);
/* More may be resident, or it shall end: with CUDA_ERROR_NOT_READY. */
void gv_restore_credit(uint64_t credit, int cancelled);
/* The next window, if there is one. */
enum gv_restore_state gv_restore_go_on(struct gv_move *move);
int gv_restore_under_way(void);

/* All that fits into the allowance, at once. Not while one is under way. */
struct gv_move gv_restore_now(uint64_t allowance);

/* Ends one that is under way at the window where it is: nobody waits for its answer any more. */
void gv_restore_stop(void);
void gv_restore_forget(void); /* in the child of a fork */

#endif
