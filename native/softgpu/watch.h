/* SPDX-License-Identifier: Apache-2.0
 *
 * For tests: somebody who is asked before the device gets a piece of work, and again before it runs it, whether that may be now.
 * While nobody watches, one load and one predictable branch. What only orders (events, host functions) is no work.
 *
 *     int (*may)(int stage) = ...;
 *     void (*watch)(int (*)(int)) = dlsym(driver, "gvSoftWatch");
 *     watch(may);
 */
#ifndef GPUVIRT_SOFTGPU_WATCH_H
#define GPUVIRT_SOFTGPU_WATCH_H

#include <stdatomic.h>

#include "driver.h"

enum gv_watch_stage {
    GV_WATCH_GIVEN, /* in the thread that calls the driver */
    GV_WATCH_RUN,   /* in the stream's thread, or in the caller's where that does the work itself */
};

typedef int (*gv_watcher_function)(int stage);
extern _Atomic(gv_watcher_function) gv_watcher;

/* CUDA_ERROR_ILLEGAL_STATE: the watcher says no. */
static inline CUresult gv_watch(enum gv_watch_stage stage)
{
    const gv_watcher_function may = atomic_load_explicit(&gv_watcher, memory_order_relaxed);
    return __builtin_expect(may == NULL, 1) || may(stage) ? CUDA_SUCCESS : CUDA_ERROR_ILLEGAL_STATE;
}

/* No entry point of the driver API: programs do not find it unless they look for it. */
GV_EXPORT void gvSoftWatch(gv_watcher_function may);

#endif
