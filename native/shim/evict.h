/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking out enough to come down to a target, a window at a time: what has left is told at once, for others wait for it. A failed
 * eviction leaves out what is out. Control thread only.
 */
#ifndef GPUVIRT_SHIM_EVICT_H
#define GPUVIRT_SHIM_EVICT_H

#include <stdint.h>

#include "memory.h"

/* Fixed memory stays, also above the target. `progress` is called after each window; if it says -1 the eviction ends there,
 * with CUDA_ERROR_NOT_READY. */
struct gv_move gv_evict(uint64_t target, int (*progress)(void));

#endif
