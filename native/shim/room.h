/* SPDX-License-Identifier: Apache-2.0
 *
 * Room in device memory for what does not move (fixed.h). An extent can be absent for a while, fixed memory cannot: the driver
 * is asked for it at once. So whoever wants some waits here until the daemon's allowance has room for it, as launches wait at
 * the gate: the process says WANT, the daemon evicts others in its turn and answers with RESTORE.
 *
 * Whoever calls holds no lock and is not between gv_gate_enter and gv_gate_leave.
 */
#ifndef GPUVIRT_SHIM_ROOM_H
#define GPUVIRT_SHIM_ROOM_H

#include <stdint.h>

#include "cuda_api.h"

/* Charges bytes and waits for room. CUDA_ERROR_OUT_OF_MEMORY beyond the quota, or the error of a context that is lost. */
CUresult gv_room_take(uint64_t bytes);
void gv_room_give(uint64_t bytes);

/*
 * The driver had no memory for bytes that were taken: strangers use the device, or somebody's report was late. 1: try again,
 * there may be room now. 0: it has been tried often enough. `tries` begins with 0.
 */
int gv_room_again(uint64_t bytes, int *tries);

/* --- control thread --- */

int gv_room_wanted(void);        /* does somebody wait for room? */
uint64_t gv_room_missing(void);  /* bytes that the driver refused since the last question */
void gv_room_answered(int done); /* a RESTORE was carried out, or not */
void gv_room_changed(void); /* the allowance grew, or something was given back: whoever waits looks again. Any thread */
void gv_room_forget(void);  /* in the child of a fork */

#endif
