/* SPDX-License-Identifier: Apache-2.0
 *
 * Prefetch and discard of managed memory, in stream order; cuStreamAttachMemAsync.
 */
#include "managed.h"

#include <stdlib.h>
#include <sys/mman.h>

struct step {
    struct gv_managed_range range;
    bool discard, prefetch;
    CUmemLocation to;
};

struct steps_operation {
    struct gv_operation operation;
    size_t count;
    struct step steps[];
};

/* Pages that lie in the range as a whole read as zeros afterwards: one of the values that "indeterminate" allows. */
static void discard(const struct gv_managed_range *range)
{
    pthread_mutex_lock(&gv_memory_lock); /* nobody frees it, and another gets the address, in between */
    const struct gv_region *region = gv_region_find(range->first);
    if (region != NULL && gv_is_managed_kind(region->kind) && range->end - region->base <= region->bytes)
        madvise((void *)range->first, range->end - range->first,
                region->kind == GV_REGION_POOL_MANAGED ? MADV_REMOVE : MADV_DONTNEED);
    pthread_mutex_unlock(&gv_memory_lock);
}

static CUresult run_steps(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    const struct steps_operation *self = (const struct steps_operation *)operation;
    for (size_t i = 0; i < self->count; i++) {
        const struct step *step = &self->steps[i];
        if (step->discard)
            discard(&step->range);
        if (step->prefetch)
            gv_managed_move(&step->range, step->to.type == CU_MEM_LOCATION_TYPE_DEVICE ? step->to.id : GV_HOST);
    }
    return CUDA_SUCCESS;
}

static const struct gv_operation_kind steps_kind = {.node = GV_NO_NODE, .work = true, .run = run_steps};

static void note_prefetch(struct gv_advice *advice, void *data) { advice->prefetched = *(const CUmemLocation *)data; }

/* Takes the operation over. */
static CUresult submit(struct gv_stream *stream, struct steps_operation *operation)
{
    for (size_t i = 0; i < operation->count; i++)
        if (operation->steps[i].prefetch) /* documented: the last location asked for, not where it is */
            gv_managed_each(&operation->steps[i].range, true, note_prefetch, &operation->steps[i].to);
    operation->operation.kind = &steps_kind;
    return gv_stream_submit(stream, &operation->operation);
}

static CUresult prefetch(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned flags, CUstream hStream)
{
    struct gv_stream *stream;
    struct step step = {.prefetch = true};
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_managed_location(location, &step.to));
    GV_TRY(gv_managed_check(devPtr, count, &step.range));
    struct steps_operation *operation = malloc(sizeof *operation + sizeof step);
    if (operation == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    operation->count = 1;
    operation->steps[0] = step;
    return submit(stream, operation);
}

GV_EXPORT CUresult cuMemPrefetchAsync_v2(CUdeviceptr devPtr, size_t count, CUmemLocation location, unsigned int flags,
                                         CUstream hStream)
{
    GV_ENTER();
    return prefetch(devPtr, count, location, flags, hStream);
}

GV_EXPORT CUresult cuMemPrefetchAsync(CUdeviceptr devPtr, size_t count, CUdevice dstDevice, CUstream hStream)
{
    GV_ENTER();
    const CUmemLocation location = {
        .type = dstDevice == CU_DEVICE_CPU ? CU_MEM_LOCATION_TYPE_HOST : CU_MEM_LOCATION_TYPE_DEVICE, .id = dstDevice};
    return prefetch(devPtr, count, location, 0, hStream);
}

struct batch {
    const CUdeviceptr *pointers;
    const size_t *sizes;
    size_t count;
    const CUmemLocation *locations; /* NULL: no prefetch */
    const size_t *first;            /* operation that an entry of `locations` applies to */
    size_t location_count;
    bool discard;
};

static CUresult check_locations(const struct batch *b)
{
    if (b->locations == NULL || b->first == NULL || b->location_count == 0 || b->location_count > b->count ||
        b->first[0] != 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t k = 0; k < b->location_count; k++)
        if (b->first[k] >= b->count || (k > 0 && b->first[k] <= b->first[k - 1]))
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult fill(const struct batch *b, bool with_prefetch, struct step *steps)
{
    for (size_t i = 0, k = 0; i < b->count; i++) {
        steps[i] = (struct step){.discard = b->discard, .prefetch = with_prefetch};
        GV_TRY(gv_managed_check(b->pointers[i], b->sizes[i], &steps[i].range));
        while (with_prefetch && k + 1 < b->location_count && b->first[k + 1] <= i)
            k++;
        if (with_prefetch)
            GV_TRY(gv_managed_location(b->locations[k], &steps[i].to));
        if (b->discard && !with_prefetch) { /* whole pages only: what is beside the range keeps its content */
            steps[i].range.first = gv_round_up(b->pointers[i], GV_SMALLEST_PAGE);
            steps[i].range.end = (b->pointers[i] + b->sizes[i]) & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
            steps[i].discard = steps[i].range.first < steps[i].range.end;
        }
    }
    return CUDA_SUCCESS;
}

static CUresult run_batch(const struct batch *b, bool with_prefetch, unsigned long long flags, CUstream hStream)
{
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (stream->flags & GV_STREAM_LEGACY || flags != 0 || b->count == 0 || b->pointers == NULL || b->sizes == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (with_prefetch)
        GV_TRY(check_locations(b));
    if (b->count > SIZE_MAX / 2 / sizeof(struct step))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct steps_operation *operation = malloc(sizeof *operation + b->count * sizeof *operation->steps);
    if (operation == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    operation->count = b->count;
    const CUresult result = fill(b, with_prefetch, operation->steps);
    if (result != CUDA_SUCCESS) {
        free(operation);
        return result;
    }
    return submit(stream, operation);
}

GV_EXPORT CUresult cuMemPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, CUmemLocation *prefetchLocs,
                                           size_t *prefetchLocIdxs, size_t numPrefetchLocs, unsigned long long flags,
                                           CUstream hStream)
{
    GV_ENTER();
    return run_batch(&(struct batch){dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, false}, true,
                     flags, hStream);
}

GV_EXPORT CUresult cuMemDiscardBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count, unsigned long long flags,
                                          CUstream hStream)
{
    GV_ENTER();
    return run_batch(&(struct batch){dptrs, sizes, count, NULL, NULL, 0, true}, false, flags, hStream);
}

/* The prefetch undoes the discard, so that zeros are as good as what was there; it is not thrown away. */
GV_EXPORT CUresult cuMemDiscardAndPrefetchBatchAsync(CUdeviceptr *dptrs, size_t *sizes, size_t count,
                                                     CUmemLocation *prefetchLocs, size_t *prefetchLocIdxs,
                                                     size_t numPrefetchLocs, unsigned long long flags, CUstream hStream)
{
    GV_ENTER();
    return run_batch(&(struct batch){dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, false}, true,
                     flags, hStream);
}

/* Checked, then nothing to do: managed memory is visible to all streams here, as with concurrent access on a real device. */
GV_EXPORT CUresult cuStreamAttachMemAsync(CUstream hStream, CUdeviceptr dptr, size_t length, unsigned int flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST && flags != CU_MEM_ATTACH_SINGLE)
        return CUDA_ERROR_INVALID_VALUE;
    if (flags == CU_MEM_ATTACH_SINGLE && stream->flags & GV_STREAM_LEGACY)
        return CUDA_ERROR_INVALID_VALUE; /* documented: not a stream of its own */
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(dptr);
    const bool whole = region != NULL && gv_is_managed_kind(region->kind) && region->base == dptr &&
                       (length == 0 || length == region->bytes);
    pthread_mutex_unlock(&gv_memory_lock);
    return whole ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
