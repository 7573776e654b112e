/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory nodes. An allocation has its address for ever, and memory under it from the launch (or upload) on. Addresses of a
 * graph lie in chunks of 2 MiB or more; a chunk gets physical memory as a whole and keeps it for the next launch, until the
 * program trims, or another graph finds none and this one is neither running nor holding anything.
 */
#include "graph_exec.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { UNIT = 512, DEVICES = GV_BOARD_DEVICES };

struct chunk {
    CUdeviceptr base;
    uint64_t bytes, taken;
    int device;
    uint64_t graph_id;
    uint32_t references;          /* of allocations */
    uint32_t outstanding;         /* allocations made by a launch and not yet freed */
    struct gv_physical *physical; /* NULL: nothing under the addresses */
    struct gv_gauge *busy[2];     /* in use until both are there: the last launch, the last free */
    uint64_t busy_until[2];
    bool wanted; /* by the launch that looks for memory */
    struct chunk *next;
};

struct gv_graph_allocation {
    struct chunk *chunk;
    CUdeviceptr address;
    uint64_t bytes;
    uint64_t graph_id;
    uint32_t references; /* of nodes' work, and one while outstanding */
    bool freed_by_owner; /* has a free node in its own graph */
    bool freed_by_other;
    bool outstanding;
    CUmemPoolProps properties;
    CUmemAccessDesc *access;
    size_t access_count;
};

/* All under gv_memory_lock. */
static struct chunk *chunks;
static uint64_t used_high[DEVICES], reserved_high[DEVICES];

static bool is_idle(const struct chunk *chunk)
{
    for (int i = 0; i < 2; i++)
        if (chunk->busy[i] != NULL && !gv_gauge_reached(chunk->busy[i], chunk->busy_until[i]))
            return false;
    return chunk->outstanding == 0;
}

/* The addresses stay ours. */
static void take_away(struct chunk *chunk)
{
    mmap((void *)chunk->base, chunk->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    gv_physical_release(chunk->physical);
    chunk->physical = NULL;
}

static uint64_t sum(int device, bool used)
{
    uint64_t bytes = 0;
    for (const struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next)
        if (chunk->device == device && chunk->physical != NULL)
            bytes += used ? chunk->taken : chunk->bytes;
    return bytes;
}

static CUresult give(struct chunk *chunk)
{
    if (chunk->physical != NULL)
        return CUDA_SUCCESS;
    CUresult result = gv_physical_create(chunk->device, chunk->bytes, false, &chunk->physical);
    for (struct chunk *other = chunks; other != NULL && result == CUDA_ERROR_OUT_OF_MEMORY; other = other->next)
        if (other->device == chunk->device && other->physical != NULL && !other->wanted && is_idle(other)) {
            take_away(other);
            result = gv_physical_create(chunk->device, chunk->bytes, false, &chunk->physical);
        }
    if (result != CUDA_SUCCESS)
        return result;
    void *at =
        mmap((void *)chunk->base, chunk->bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, chunk->physical->fd, 0);
    if (at == MAP_FAILED || !gv_view_add(chunk->physical, chunk->base, chunk->bytes, PROT_READ | PROT_WRITE)) {
        take_away(chunk);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    madvise(at, chunk->bytes, MADV_DONTFORK);
    close(chunk->physical->fd); /* nobody exports it */
    chunk->physical->fd = -1;
    const uint64_t used = sum(chunk->device, true), reserved = sum(chunk->device, false);
    used_high[chunk->device] = used > used_high[chunk->device] ? used : used_high[chunk->device];
    reserved_high[chunk->device] = reserved > reserved_high[chunk->device] ? reserved : reserved_high[chunk->device];
    return CUDA_SUCCESS;
}

static struct chunk *new_chunk(uint64_t graph_id, int device, uint64_t bytes)
{
    struct chunk *chunk = calloc(1, sizeof *chunk);
    if (chunk == NULL)
        return NULL;
    chunk->bytes = gv_round_up(bytes, GV_GRANULARITY);
    void *at = mmap(NULL, chunk->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
        free(chunk);
        return NULL;
    }
    madvise(at, chunk->bytes, MADV_DONTFORK);
    chunk->base = (CUdeviceptr)at;
    chunk->device = device;
    chunk->graph_id = graph_id;
    chunk->next = chunks;
    chunks = chunk;
    return chunk;
}

static void release_chunk(struct chunk *chunk)
{
    if (--chunk->references > 0)
        return;
    for (struct chunk **link = &chunks; *link != NULL; link = &(*link)->next)
        if (*link == chunk) {
            *link = chunk->next;
            break;
        }
    if (chunk->physical != NULL)
        gv_physical_release(chunk->physical);
    munmap((void *)chunk->base, chunk->bytes);
    free(chunk);
}

static void release_allocation(struct gv_graph_allocation *allocation)
{
    if (--allocation->references > 0)
        return;
    struct gv_region *region = gv_region_find(allocation->address);
    if (region != NULL)
        gv_region_remove(region);
    release_chunk(allocation->chunk);
    free(allocation->access);
    free(allocation);
}

/* The work of both kinds of nodes is done when the graph is given to a stream; in the graph they only take their place. */
struct memory_operation {
    struct gv_operation operation;
    struct gv_graph_allocation *allocation;
};

static CUresult run_memory(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)operation, (void)stream;
    return CUDA_SUCCESS;
}

static void drop_memory(struct gv_operation *operation)
{
    pthread_mutex_lock(&gv_memory_lock);
    release_allocation(((struct memory_operation *)operation)->allocation);
    pthread_mutex_unlock(&gv_memory_lock);
}

static void describe_allocation(struct gv_operation *operation, CUgraphNodeParams *params)
{
    const struct gv_graph_allocation *allocation = ((struct memory_operation *)operation)->allocation;
    params->alloc.poolProps = allocation->properties;
    params->alloc.accessDescs = allocation->access;
    params->alloc.accessDescCount = allocation->access_count;
    params->alloc.bytesize = allocation->bytes;
    params->alloc.dptr = allocation->address;
}

static void describe_free(struct gv_operation *operation, CUgraphNodeParams *params)
{
    params->free.dptr = ((struct memory_operation *)operation)->allocation->address;
}

static const struct gv_operation_kind allocate_kind = {
    .node = CU_GRAPH_NODE_TYPE_MEM_ALLOC, .run = run_memory, .drop = drop_memory, .describe = describe_allocation};
static const struct gv_operation_kind free_kind = {
    .node = CU_GRAPH_NODE_TYPE_MEM_FREE, .run = run_memory, .drop = drop_memory, .describe = describe_free};

static CUresult new_work(const struct gv_operation_kind *kind, struct gv_graph_allocation *allocation,
                         struct gv_operation **work)
{
    struct memory_operation *made = calloc(1, sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->operation.kind = kind;
    made->allocation = allocation;
    allocation->references++;
    gv_operation_made(&made->operation, gv_thread_context());
    *work = &made->operation;
    return CUDA_SUCCESS;
}

static CUresult check_properties(const CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    if (params->poolProps.allocType != CU_MEM_ALLOCATION_TYPE_PINNED || params->bytesize == 0 ||
        (params->accessDescs == NULL && params->accessDescCount > 0))
        return CUDA_ERROR_INVALID_VALUE;
    if (params->poolProps.handleTypes != CU_MEM_HANDLE_TYPE_NONE) /* "graph allocations cannot be exported" */
        return CUDA_ERROR_INVALID_VALUE;
    if (params->poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
        return CUDA_ERROR_NOT_SUPPORTED;
    GV_TRY(gv_check_device(params->poolProps.location.id));
    for (size_t i = 0; i < params->accessDescCount; i++)
        if (params->accessDescs[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            gv_check_device(params->accessDescs[i].location.id) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* Under the lock: with its address, in the graph's last chunk if there is room. */
static struct gv_graph_allocation *new_allocation(const struct gv_graph *graph, int device, uint64_t bytes)
{
    const uint64_t size = gv_round_up(bytes, UNIT);
    struct chunk *chunk = chunks;
    if (size < bytes || size > (1ull << 46))
        return NULL;
    while (chunk != NULL && !(chunk->graph_id == graph->id && chunk->device == device && chunk->physical == NULL &&
                              chunk->bytes - chunk->taken >= size))
        chunk = chunk->next;
    if (chunk == NULL)
        chunk = new_chunk(graph->id, device, size);
    struct gv_graph_allocation *allocation = chunk != NULL ? calloc(1, sizeof *allocation) : NULL;
    if (chunk != NULL)
        chunk->references++;
    if (allocation != NULL) {
        allocation->chunk = chunk;
        allocation->address = chunk->base + chunk->taken;
        allocation->bytes = bytes;
        allocation->graph_id = graph->id;
        struct gv_region *region = gv_region_add(allocation->address, bytes, GV_REGION_POOL, device, NULL);
        if (region != NULL) {
            region->allocation = allocation;
            chunk->taken += size;
            return allocation;
        }
        free(allocation);
    }
    if (chunk != NULL)
        release_chunk(chunk);
    return NULL;
}

CUresult gv_graph_allocate(struct gv_graph *graph, CUDA_MEM_ALLOC_NODE_PARAMS *params, struct gv_operation **work)
{
    GV_TRY(check_properties(params));
    if (graph->owner != NULL) /* "cannot have additional memory allocation or free nodes added" */
        return CUDA_ERROR_INVALID_VALUE;
    CUmemAccessDesc *access = calloc(params->accessDescCount + 1, sizeof *access);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_graph_allocation *allocation =
        access != NULL ? new_allocation(graph, params->poolProps.location.id, params->bytesize) : NULL;
    if (allocation != NULL) {
        allocation->properties = params->poolProps;
        allocation->access = access;
        allocation->access_count = params->accessDescCount;
        if (params->accessDescCount > 0)
            memcpy(access, params->accessDescs, params->accessDescCount * sizeof *access);
        allocation->references = 1;
        result = new_work(&allocate_kind, allocation, work);
        params->dptr = allocation->address;
        release_allocation(allocation);
    } else {
        free(access);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

CUresult gv_graph_deallocate(struct gv_graph *graph, CUdeviceptr address, struct gv_operation **work)
{
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_find(address);
    struct gv_graph_allocation *allocation = region != NULL ? region->allocation : NULL;
    if (allocation != NULL && allocation->address == address && !allocation->freed_by_owner && graph->owner == NULL) {
        const bool own = allocation->graph_id == graph->id;
        if (!(own && allocation->freed_by_other))
            result = new_work(&free_kind, allocation, work);
        if (result == CUDA_SUCCESS) {
            allocation->freed_by_owner = own;
            allocation->freed_by_other |= !own;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return result;
}

bool gv_graph_memory_freeable(const struct gv_graph_allocation *allocation) { return allocation->outstanding; }

static void set_outstanding(struct gv_graph_allocation *allocation, bool outstanding)
{
    if (allocation->outstanding == outstanding)
        return;
    allocation->outstanding = outstanding;
    allocation->chunk->outstanding += outstanding ? 1 : -1u;
    if (outstanding)
        allocation->references++;
    else
        release_allocation(allocation);
}

void gv_graph_memory_free(struct gv_graph_allocation *allocation, struct gv_gauge *gauge, uint64_t busy_until)
{
    allocation->chunk->busy[1] = gauge;
    allocation->chunk->busy_until[1] = busy_until;
    set_outstanding(allocation, false);
}

struct gv_graph_allocation *gv_graph_allocation_of(const struct gv_operation *work)
{
    return ((const struct memory_operation *)work)->allocation;
}

CUresult gv_graph_allocation_give(struct gv_graph_allocation *allocation) { return give(allocation->chunk); }
void gv_graph_allocation_want(struct gv_graph_allocation *allocation, bool wanted)
{
    allocation->chunk->wanted = wanted;
}
void gv_graph_allocation_busy(struct gv_graph_allocation *allocation, struct gv_gauge *gauge, uint64_t until)
{
    allocation->chunk->busy[0] = gauge;
    allocation->chunk->busy_until[0] = until;
}
bool gv_graph_allocation_stays(const struct gv_graph_allocation *allocation) { return !allocation->freed_by_owner; }
void gv_graph_allocation_set(struct gv_graph_allocation *allocation, bool outstanding)
{
    set_outstanding(allocation, outstanding);
}

uint64_t gv_graph_memory_sum(int device, bool used) { return sum(device, used); }

uint64_t *gv_graph_memory_high(int device, bool used) { return used ? &used_high[device] : &reserved_high[device]; }

void gv_graph_memory_trim(int device)
{
    for (struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next)
        if (chunk->device == device && chunk->physical != NULL && is_idle(chunk))
            take_away(chunk);
}
