/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults on request inside the driver (inject.c). Ask only while something is armed (gv_armed).
 */
#ifndef GPUVIRT_SOFTGPU_DRIVER_FAULTS_H
#define GPUVIRT_SOFTGPU_DRIVER_FAULTS_H

#include "driver.h"

/* Off the bus now; how often so far. A context of before is dead. */
bool gv_device_lost(int device);
uint32_t gv_device_losses(int device);

/* Contexts of lost devices die. */
void gv_fail_lost_contexts(void);

/* At the entry seam. Not SUCCESS: the answer of the call. */
CUresult gv_inject_call(const char *function);
/* Before a kernel runs; the engine is ours. */
CUresult gv_inject_kernel(const char *name, int device, const struct gv_context *context);
/* For each part of a copy; `place` as in board_faults.h. */
CUresult gv_inject_copy(const char *place, int device, uint64_t bytes, bool *corrupt);

#endif
