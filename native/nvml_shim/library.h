/* SPDX-License-Identifier: Apache-2.0
 *
 * The real NVML: opened by absolute path at the first call of any function, never by a constructor and never with a lock of
 * ours held during a call of it (it may hang in the kernel).
 */
#ifndef GPUVIRT_NVML_SHIM_LIBRARY_H
#define GPUVIRT_NVML_SHIM_LIBRARY_H

#include <nvml.h>

#include "nvml_entry_count.h"

#define GV_EXPORT __attribute__((visibility("default")))

enum {
#define GV_SYMBOL(number, symbol) GV_INDEX_##symbol = number,
#include "nvml_entry_points.inc"
#undef GV_SYMBOL
};

/* One slot a function, filled when the library is opened; the generated forwarders jump through it. */
extern void *gv_real[GV_SYMBOL_COUNT] __attribute__((visibility("hidden")));

/* The real function, with its type: GV_NVML(nvmlDeviceGetUUID)(device, ...). */
#define GV_NVML(symbol) ((__typeof__(&symbol))__atomic_load_n(&gv_real[GV_INDEX_##symbol], __ATOMIC_ACQUIRE))

/* In the child of a fork (usage.c). */
void gv_usage_forget(void);

#endif
