/* SPDX-License-Identifier: Apache-2.0
 *
 * malloc and free of kernels: device memory of the context, CU_LIMIT_MALLOC_HEAP_SIZE of it, taken when a kernel first asks.
 * NULL when it is used up, or when the device has not that much left. What was not freed stays until the context ends.
 *
 * Runs on the workers, inside their fault frames: it touches tables of the host only, never the memory that it hands out.
 */
#include "launch.h"
#include "memory.h"

#include <stdlib.h>

enum { UNIT = 16 };

/* Under gv_memory_lock. The heap is one piece: reserved as a whole by taking all of it and giving it back. */
static struct gv_heap *heap_of(struct gv_context *context)
{
    if (context->kernel_heap != NULL)
        return context->kernel_heap;
    struct gv_heap *heap = calloc(1, sizeof *heap);
    const uint64_t bytes = gv_round_up(context->limits[CU_LIMIT_MALLOC_HEAP_SIZE], GV_GRANULARITY);
    struct gv_segment *all;
    if (heap == NULL)
        return NULL;
    heap->device = context->device;
    heap->keep = true;
    heap->unit = UNIT;
    heap->limit = bytes;
    if (bytes == 0 || gv_heap_allocate(heap, bytes, NULL, &all) != CUDA_SUCCESS) {
        free(heap); /* the next kernel may have more luck */
        return NULL;
    }
    gv_heap_free(heap, all, NULL, 0);
    context->kernel_heap = heap;
    return heap;
}

void *gv_kernel_malloc(void *data, uint64_t bytes)
{
    struct gv_context *context = data;
    struct gv_segment *segment = NULL;
    void *memory = NULL;
    if (context == NULL || bytes == 0)
        return NULL;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_heap *heap = heap_of(context);
    if (heap != NULL && gv_heap_allocate(heap, bytes, NULL, &segment) == CUDA_SUCCESS) {
        struct gv_region *region = gv_region_add(segment->base, bytes, GV_REGION_KERNEL, context->device, context);
        if (region == NULL) {
            gv_heap_free(heap, segment, NULL, 0);
        } else {
            region->segment = segment;
            region->heap = heap;
            memory = (void *)segment->base;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return memory;
}

void gv_kernel_free(void *data, void *memory)
{
    if (data == NULL || memory == NULL)
        return;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find((uint64_t)memory);
    const bool known = region != NULL && region->base == (uint64_t)memory && region->kind == GV_REGION_KERNEL;
    if (known) {
        gv_heap_free(region->heap, region->segment, NULL, 0);
        gv_region_remove(region);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (!known)
        gv_log_detail("a kernel freed %p, which it had not from malloc", memory);
}

void gv_kernel_heap_close(struct gv_context *context)
{
    if (context->kernel_heap == NULL)
        return;
    gv_heap_trim(context->kernel_heap, 0);
    free(context->kernel_heap);
    context->kernel_heap = NULL;
}
