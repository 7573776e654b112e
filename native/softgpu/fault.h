/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults of kernels and copies become results instead of signals that kill the process.
 *
 *     struct gv_fault_frame frame;
 *     if (GV_CATCH_FAULT(&frame, low, high) == 0) {
 *         ... touch device memory ...
 *         gv_fault_leave(&frame);
 *     } else {
 *         ... frame.signal, frame.address ...        (already left)
 *     }
 *
 * Only faults at an address in [low, high) are caught (two ranges: see `also_*`); others go to the handler that the program
 * had installed. No lock may be taken and no memory allocated inside.
 */
#ifndef GPUVIRT_SOFTGPU_FAULT_H
#define GPUVIRT_SOFTGPU_FAULT_H

#include <setjmp.h>

#include "driver.h"

struct gv_fault_frame {
    sigjmp_buf jump;
    struct gv_fault_frame *outer;
    uintptr_t low, high;           /* faults that are ours */
    uintptr_t also_low, also_high; /* a second range */
    int signal;
    void *address;
};

void gv_fault_enter(struct gv_fault_frame *frame);
void gv_fault_leave(struct gv_fault_frame *frame);
#define GV_CATCH_FAULT(frame, low_address, high_address)                                                               \
    ((frame)->low = (low_address), (frame)->high = (high_address), (frame)->also_low = (frame)->also_high = 0,         \
     gv_fault_enter(frame), sigsetjmp((frame)->jump, 0))

/* Installs the handler, or puts it back on top when somebody replaced it. */
void gv_fault_install(void);
/* What a fault means to the context. */
CUresult gv_fault_error(int signal);

#endif
