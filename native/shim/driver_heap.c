/* SPDX-License-Identifier: Apache-2.0 */
#include "driver_heap.h"

#include <pthread.h>

#include "capture.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all heaps: held for a few instructions */

void gv_driver_heap_forget(void) { pthread_mutex_init(&lock, NULL); }

void gv_driver_heap_settle(struct gv_driver_heap *heap, uint64_t taken)
{
    cuuint64_t reserved = 0;
    pthread_mutex_lock(&lock);
    const uint64_t look = ++heap->looks;
    pthread_mutex_unlock(&lock);
    const CUstreamCaptureMode mode = gv_capture_relax();
    const CUresult result = heap->reserved(heap, &reserved);
    gv_capture_restore(mode);
    pthread_mutex_lock(&lock);
    const uint64_t before = heap->charged;
    const int counts =
        result == CUDA_SUCCESS && look > heap->latest; /* a later question may have been answered first */
    const uint64_t after = counts ? reserved : before;
    if (counts)
        heap->latest = look;
    const int first = before == 0 && after != 0;
    const int others = first && taken == 0; /* a call under way has charged it, and is about to look as well */
    if (!others)
        heap->charged = after;
    pthread_mutex_unlock(&lock);
    if (others)
        return;
    if (first) {
        gv_fixed_resize(heap->kind, taken, after);
        return;
    }
    if (taken != 0)
        gv_fixed_discharge(heap->kind, taken);
    if (before != 0 && after == 0)
        gv_fixed_discharge(heap->kind, before);
    else if (before != after)
        gv_fixed_resize(heap->kind, before, after);
}
