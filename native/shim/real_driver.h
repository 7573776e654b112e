/* SPDX-License-Identifier: Apache-2.0
 *
 * The real (or soft) driver behind the shim: one table with the address of every documented function. Each slot starts at a
 * stub which opens the driver and goes on, so nothing happens in a process before its first CUDA call.
 */
#ifndef GPUVIRT_SHIM_REAL_DRIVER_H
#define GPUVIRT_SHIM_REAL_DRIVER_H

#include "cuda_api.h"
#include "header_version.h"

enum gv_symbol_index {
#define GV_SYMBOL(index, symbol) GV_INDEX_##symbol = index,
#include "entry_points.inc"
#undef GV_SYMBOL
};

extern void *gv_real[GV_SYMBOL_COUNT]; /* shim_forwarders.S; filled once by gv_open_driver, constant afterwards */

/* The real function of an ABI symbol, with its type. */
#define REAL(symbol) ((__typeof__(&symbol))gv_real[GV_INDEX_##symbol])

/*
 * Opens the driver if that was not done yet. Any thread, any time, also from within the driver's own initialisation: its
 * threads (`caller`: where the call came from) do not wait for it.
 */
void gv_open_driver(const void *caller);

#endif
