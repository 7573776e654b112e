/* SPDX-License-Identifier: Apache-2.0
 *
 * The compute engine of a device: one process at a time, in turns. Threads of the process that has it run kernels together.
 */
#ifndef GPUVIRT_SOFTGPU_ENGINE_H
#define GPUVIRT_SOFTGPU_ENGINE_H

#include "driver.h"

/* Before running blocks: waits for this process's turn. */
void gv_engine_enter(int device);
void gv_engine_leave(int device);
/* Between two blocks: true when another process waits and our slice is over; then call gv_engine_yield. */
bool gv_engine_slice_over(int device);
/* Hands the engine over when all threads of this process have stopped, and waits for the next turn. */
void gv_engine_yield(int device);

#endif
