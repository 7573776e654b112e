/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory of this process into plain host memory and back (suspend.c), for the checkpoint service. No call may be in
 * progress and no work in flight.
 */
#ifndef GPUVIRT_SOFTGPU_SUSPEND_H
#define GPUVIRT_SOFTGPU_SUSPEND_H

#include "driver.h"

/* NOT_SUPPORTED when the process has something that cannot be checkpointed; one line says what. */
CUresult gv_suspend_check(void);
/* Afterwards the process has no descriptor, no mapping and no charge of device memory. On failure `*undone` tells whether
 * everything is as before. */
CUresult gv_suspend(bool *undone);
/* Back to the same addresses. `pairs` (old and new UUID) may move devices. */
CUresult gv_resume(const uint8_t pairs[][2][16], uint32_t pair_count, bool *undone);

#endif
