/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults on request inside the driver: at the entry seam, in kernels and copies, and devices that are lost.
 */
#include "inject.h"
#include "context.h"
#include "driver_faults.h"
#include "engine.h"

#include <stdio.h>
#include <time.h>

bool gv_device_lost(int device)
{
    return __atomic_load_n(&gv_board_device(device)->faults.lost, __ATOMIC_ACQUIRE) != 0;
}

uint32_t gv_device_losses(int device)
{
    return __atomic_load_n(&gv_board_device(device)->faults.losses, __ATOMIC_ACQUIRE);
}

/* A context dies with its device, and stays dead when the device comes back. */
static bool fail_lost(struct gv_context *context, void *unused)
{
    (void)unused;
    if (context->losses != gv_device_losses(context->device))
        gv_context_fail(context, CUDA_ERROR_DEVICE_UNAVAILABLE);
    return true;
}

void gv_fail_lost_contexts(void) { gv_contexts_each(fail_lost, NULL); }

CUresult gv_inject_call(const char *function)
{
    if (gv_armed() & GV_ARMED_LOST)
        gv_fail_lost_contexts();
    if (!(gv_armed() & GV_ARMED_RULES))
        return CUDA_SUCCESS;
    const struct gv_context *context = gv_thread_context();
    const struct gv_verdict verdict = gv_fault_apply(gv_driver.board, function, context == NULL ? -1 : context->device);
    if (verdict.hang != 0)
        gv_fault_hang(gv_driver.board, verdict.hang);
    return (CUresult)verdict.error;
}

CUresult gv_inject_kernel(const char *name, int device, const struct gv_context *context)
{
    char what[160];
    snprintf(what, sizeof what, "kernel.%s", name);
    const struct gv_verdict verdict = gv_fault_apply(gv_driver.board, what, device);
    /* It goes on for ever, but gives others their slices, as a kernel that spins does. */
    while (gv_fault_holds(gv_driver.board, verdict.hang) && !gv_device_lost(device)) {
        const struct timespec a_while = {0, 1000000};
        nanosleep(&a_while, NULL);
        if (gv_engine_slice_over(device))
            gv_engine_yield(device, context);
    }
    return gv_device_lost(device) ? CUDA_ERROR_DEVICE_UNAVAILABLE : (CUresult)verdict.error;
}

CUresult gv_inject_copy(const char *place, int device, uint64_t bytes, bool *corrupt)
{
    const struct gv_verdict verdict = gv_fault_apply(gv_driver.board, place, device);
    if (verdict.rate != 0) {
        const uint64_t ns = (uint64_t)((double)bytes * 1e9 / (double)verdict.rate);
        const struct timespec duration = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
        nanosleep(&duration, NULL);
    }
    while (gv_fault_holds(gv_driver.board, verdict.hang) && !gv_device_lost(device)) {
        const struct timespec a_while = {0, 1000000};
        nanosleep(&a_while, NULL);
    }
    if (corrupt != NULL)
        *corrupt = verdict.corrupt;
    return gv_device_lost(device) ? CUDA_ERROR_DEVICE_UNAVAILABLE : (CUresult)verdict.error;
}
