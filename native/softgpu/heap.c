/* SPDX-License-Identifier: Apache-2.0
 *
 * Heaps: first fit over the free segments of blocks of physical memory. A freed segment that work in a stream may still use
 * is *pending*: work of the same stream may have it at once (it comes later in that stream), others when the stream is there.
 */
#include "memory.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

enum { USUAL_UNIT = 512 }; /* the driver promises 256 */

static uint64_t round_size(const struct gv_heap *heap, uint64_t bytes)
{
    return gv_round_up(bytes, heap->unit != 0 ? heap->unit : USUAL_UNIT);
}

struct gv_heap_block {
    struct gv_physical *physical;
    CUdeviceptr base;
    uint64_t bytes;
    struct gv_segment *first;
    struct gv_heap_block *next;
};

static void list_free(struct gv_heap *heap, struct gv_segment *segment)
{
    segment->previous_free = NULL;
    segment->next_free = heap->free;
    if (heap->free != NULL)
        heap->free->previous_free = segment;
    heap->free = segment;
}

static void unlist_free(struct gv_heap *heap, struct gv_segment *segment)
{
    if (segment->previous_free != NULL)
        segment->previous_free->next_free = segment->next_free;
    else
        heap->free = segment->next_free;
    if (segment->next_free != NULL)
        segment->next_free->previous_free = segment->previous_free;
}

/* Joins `segment` with its right neighbour, which is listed as free. */
static void join(struct gv_heap *heap, struct gv_segment *segment)
{
    struct gv_segment *right = segment->next;
    unlist_free(heap, right);
    segment->bytes += right->bytes;
    segment->next = right->next;
    if (right->next != NULL)
        right->next->previous = segment;
    free(right);
}

static void coalesce(struct gv_heap *heap, struct gv_segment *segment)
{
    if (segment->next != NULL && segment->next->state == GV_FREE)
        join(heap, segment);
    if (segment->previous != NULL && segment->previous->state == GV_FREE)
        join(heap, segment->previous);
}

static bool has_passed(const struct gv_heap *heap, const struct gv_segment *segment)
{
    return gv_gauge_reached(segment->busy_gauge, segment->busy_until) &&
           (!heap->patient || atomic_load(&segment->busy_gauge->seen) >= segment->busy_until);
}

/* Pending segments whose stream has passed become free. */
static void settle(struct gv_heap *heap)
{
    for (struct gv_segment *segment = heap->free, *next; segment != NULL; segment = next) {
        next = segment->next_free;
        if (segment->state == GV_PENDING && has_passed(heap, segment)) {
            segment->state = GV_FREE;
            coalesce(heap, segment);
            next = heap->free; /* the list changed; each round has one pending segment less */
        }
    }
}

static struct gv_segment *split(struct gv_heap *heap, struct gv_segment *segment, uint64_t bytes)
{
    if (segment->bytes > bytes) {
        struct gv_segment *rest = calloc(1, sizeof *rest);
        if (rest == NULL)
            return NULL;
        rest->base = segment->base + bytes;
        rest->bytes = segment->bytes - bytes;
        rest->state = segment->state;
        rest->busy_gauge = segment->busy_gauge;
        rest->busy_until = segment->busy_until;
        rest->block = segment->block;
        rest->previous = segment;
        rest->next = segment->next;
        if (rest->next != NULL)
            rest->next->previous = rest;
        segment->next = rest;
        segment->bytes = bytes;
        list_free(heap, rest);
    }
    unlist_free(heap, segment);
    segment->state = GV_USED;
    return segment;
}

static bool usable(const struct gv_segment *segment, const struct gv_heap_user *user)
{
    if (segment->state == GV_FREE)
        return true;
    return user != NULL && (segment->busy_gauge == user->gauge ||
                            (user->is_after != NULL && user->is_after(user, segment->busy_gauge, segment->busy_until)));
}

static struct gv_segment *find(struct gv_heap *heap, uint64_t bytes, const struct gv_heap_user *user)
{
    for (struct gv_segment *segment = heap->free; segment != NULL; segment = segment->next_free)
        if (segment->bytes >= bytes && usable(segment, user))
            return segment;
    return NULL;
}

static CUresult add_block(struct gv_heap *heap, uint64_t bytes)
{
    struct gv_heap_block *block = calloc(1, sizeof *block);
    struct gv_segment *segment = calloc(1, sizeof *segment);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (block != NULL && segment != NULL && (heap->limit == 0 || heap->reserved + bytes <= heap->limit))
        result = gv_physical_create(heap->device, bytes, false, &block->physical);
    if (result == CUDA_SUCCESS) {
        void *address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, block->physical->fd, 0);
        if (address == MAP_FAILED || !gv_view_add(block->physical, (uint64_t)address, bytes, PROT_READ | PROT_WRITE)) {
            if (address != MAP_FAILED)
                munmap(address, bytes);
            gv_physical_release(block->physical);
            result = CUDA_ERROR_OUT_OF_MEMORY;
        } else {
            madvise(address, bytes, MADV_DONTFORK); /* a forked child has no device memory, as with a real driver */
            if (!heap->shareable) {                 /* nobody exports it: spare the descriptor */
                close(block->physical->fd);
                block->physical->fd = -1;
            }
            block->base = (CUdeviceptr)address;
        }
    }
    if (result != CUDA_SUCCESS) {
        free(block);
        free(segment);
        return result;
    }
    block->bytes = bytes;
    block->first = segment;
    block->next = heap->blocks;
    heap->blocks = block;
    segment->base = block->base;
    segment->bytes = bytes;
    segment->block = block;
    list_free(heap, segment);
    heap->reserved += bytes;
    if (heap->reserved > heap->reserved_high)
        heap->reserved_high = heap->reserved;
    return CUDA_SUCCESS;
}

static bool is_empty(const struct gv_heap_block *block)
{
    return block->first->state == GV_FREE && block->first->next == NULL;
}

static void remove_block(struct gv_heap *heap, struct gv_heap_block *block)
{
    for (struct gv_heap_block **link = &heap->blocks; *link != NULL; link = &(*link)->next)
        if (*link == block) {
            *link = block->next;
            break;
        }
    unlist_free(heap, block->first);
    heap->reserved -= block->bytes;
    munmap((void *)block->base, block->bytes);
    gv_physical_release(block->physical);
    free(block->first);
    free(block);
}

CUresult gv_heap_allocate(struct gv_heap *heap, uint64_t bytes, const struct gv_heap_user *user,
                          struct gv_segment **segment)
{
    const uint64_t size = round_size(heap, bytes);
    if (size < bytes || size > (1ull << 46))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct gv_segment *found = find(heap, size, user);
    if (found == NULL) {
        settle(heap);
        found = find(heap, size, user);
    }
    if (found == NULL) {
        CUresult result = add_block(heap, gv_round_up(size, GV_GRANULARITY));
        if (result == CUDA_ERROR_OUT_OF_MEMORY && heap->keep) {
            gv_heap_trim(heap, 0); /* blocks too small for this request are kept for nothing */
            result = add_block(heap, gv_round_up(size, GV_GRANULARITY));
        }
        if (result != CUDA_SUCCESS)
            return result;
        found = heap->free; /* the new block */
    }
    found = split(heap, found, size);
    if (found == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    heap->used += size;
    if (heap->used > heap->used_high)
        heap->used_high = heap->used;
    *segment = found;
    return CUDA_SUCCESS;
}

struct gv_segment *gv_heap_take_pending(struct gv_heap *heap, uint64_t bytes)
{
    const uint64_t size = round_size(heap, bytes);
    for (struct gv_segment *segment = heap->free; segment != NULL; segment = segment->next_free)
        if (segment->bytes >= size && segment->state == GV_PENDING) {
            segment = split(heap, segment, size);
            if (segment != NULL) {
                heap->used += size;
                if (heap->used > heap->used_high)
                    heap->used_high = heap->used;
            }
            return segment;
        }
    return NULL;
}

void gv_heap_free(struct gv_heap *heap, struct gv_segment *segment, struct gv_gauge *gauge, uint64_t busy_until)
{
    heap->used -= segment->bytes;
    list_free(heap, segment);
    segment->busy_gauge = gauge;
    segment->busy_until = busy_until;
    if (gauge != NULL && !has_passed(heap, segment)) {
        segment->state = GV_PENDING;
        return;
    }
    struct gv_heap_block *block = segment->block;
    segment->state = GV_FREE;
    coalesce(heap, segment);
    if (!heap->keep && is_empty(block))
        remove_block(heap, block);
}

void gv_heap_trim(struct gv_heap *heap, uint64_t keep_bytes)
{
    settle(heap);
    for (struct gv_heap_block *block = heap->blocks, *next; block != NULL && heap->reserved > keep_bytes;
         block = next) {
        next = block->next;
        if (is_empty(block))
            remove_block(heap, block);
    }
}

struct gv_physical *gv_heap_backing(const struct gv_segment *segment, uint64_t *offset)
{
    *offset = segment->base - segment->block->base;
    return segment->block->physical;
}

bool gv_heap_pending(struct gv_heap *heap, struct gv_gauge **gauge, uint64_t *until)
{
    for (struct gv_segment *segment = heap->free; segment != NULL; segment = segment->next_free)
        if (segment->state == GV_PENDING) {
            *gauge = segment->busy_gauge;
            *until = segment->busy_until;
            return true;
        }
    return false;
}
