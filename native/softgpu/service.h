/* SPDX-License-Identifier: Apache-2.0 */
#ifndef GPUVIRT_SOFTGPU_SERVICE_H
#define GPUVIRT_SOFTGPU_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

/* Starts the thread that answers checkpoint requests; once, by cuInit. */
bool gv_service_start(void);

/* Who somebody is: pid and the low half of the start time, so that a recycled pid is another one. 0: does not exist. */
uint64_t gv_identity(uint32_t pid);
static inline uint32_t gv_identity_pid(uint64_t identity) { return (uint32_t)(identity >> 32); }

#endif
