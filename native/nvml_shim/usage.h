/* SPDX-License-Identifier: Apache-2.0
 *
 * What this job has on a GPU, asked of gpuvirtd over a connection of a moment (messages.h: QUERY). The asking process need not
 * have attached, and is no client by asking.
 *
 * The rule: answers are kept for 100 ms, so that a monitor that polls costs nothing. A daemon that does not answer costs one
 * wait of at most 250 ms a second; meanwhile its last answer counts, however old. A daemon that never answered, one that does
 * not know this job and one that does not serve this GPU leave the driver's own answer as it is.
 */
#ifndef GPUVIRT_NVML_SHIM_USAGE_H
#define GPUVIRT_NVML_SHIM_USAGE_H

#include "gpuvirt/messages.h"
#include "library.h"

/* 1 and *usage when the job's own figures are known; 0 when the driver's answer must stay (also outside a job). */
int gv_usage(nvmlDevice_t device, struct gv_usage *usage);

/* CLOCK_REALTIME in microseconds: NVML's time stamps. */
unsigned long long gv_wall_us(void);

#endif
