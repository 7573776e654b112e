/* SPDX-License-Identifier: Apache-2.0 */
#include "pool.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "memory.h"
#include "real_driver.h"
#include "session.h"

enum { REUSE_DEPTH = 16, RECLAIM_DEPTH = 8 };

/*
 * What orders a free before an allocation: a stream. A handle alone does not say which: the default streams have the same in
 * every context, the per-thread ones in every thread. And a destroyed stream's handle may come again: gv_pool_stream_ends.
 */
struct order {
    CUstream stream;
    CUcontext context;
    uint64_t thread; /* of the per-thread default stream, else 0 */
};
#define NO_STREAM ((CUstream) - 1)

/* A range that was freed on a stream and waits for it. */
struct waiting {
    struct gv_range *range;
    struct order order; /* its context is the one that the event lives in */
    CUevent event;      /* NULL: waits until nothing captures, then for the context */
    struct waiting *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t put_down = PTHREAD_COND_INITIALIZER;
static struct waiting *oldest, **newest = &oldest; /* under lock */
static struct waiting *in_hand;                    /* taken out by threads that look at them now; under lock */

static struct order order_of(CUstream stream, CUcontext context)
{
    static uint64_t threads;
    static __thread uint64_t own_number;
    if (stream == CU_STREAM_PER_THREAD && own_number == 0)
        own_number = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    return (struct order){stream == CU_STREAM_LEGACY ? NULL : stream, context,
                          stream == CU_STREAM_PER_THREAD ? own_number : 0};
}

/*
 * What one pool says of itself; under lock. `reserved` follows the rules of the driver's pools (it grows with use, and falls to
 * the release threshold when memory is given back), so that programs which tune pools see what they expect. The memory itself
 * goes back to the job at once: reserving it would only be charged to nobody's use.
 */
struct usage {
    CUmemoryPool pool;
    uint64_t used, used_high, reserved, reserved_high;
    struct usage *next;
};
static struct usage *usages;

static struct usage *usage_of(CUmemoryPool pool)
{
    for (struct usage *usage = usages; usage != NULL; usage = usage->next)
        if (usage->pool == pool)
            return usage;
    struct usage *usage = calloc(1, sizeof *usage);
    if (usage != NULL) {
        usage->pool = pool;
        usage->next = usages;
        usages = usage;
    }
    return usage;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }
static uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }

static void count_taken(CUmemoryPool pool, uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL) {
        usage->used += bytes;
        usage->reserved = larger(usage->reserved, usage->used);
        usage->used_high = larger(usage->used_high, usage->used);
        usage->reserved_high = larger(usage->reserved_high, usage->reserved);
    }
    pthread_mutex_unlock(&lock);
}

static void count_given(CUmemoryPool pool, uint64_t bytes)
{
    if (pool == NULL)
        return;
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL) /* a pool may go before its memory does */
        usage->used = usage->used > bytes ? usage->used - bytes : 0;
    pthread_mutex_unlock(&lock);
}

/* The pool keeps at most `limit` bytes beyond what is in use. */
static void count_released(CUmemoryPool pool, uint64_t limit)
{
    pthread_mutex_lock(&lock);
    struct usage *const usage = usage_of(pool);
    if (usage != NULL)
        usage->reserved = larger(usage->used, smaller(usage->reserved, limit));
    pthread_mutex_unlock(&lock);
}

void gv_pool_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&put_down, NULL);
    in_hand = NULL;
    oldest = NULL;
    newest = &oldest;
    usages = NULL;
}

static void append(struct waiting *entry)
{
    pthread_mutex_lock(&lock);
    *newest = entry;
    newest = &entry->next;
    pthread_mutex_unlock(&lock);
}

/* Gives the range back when what was submitted to the stream so far has finished. */
static void free_later(struct gv_range *range, struct order order)
{
    const CUstream stream = order.stream;
    struct waiting *entry = calloc(1, sizeof *entry);
    CUresult result =
        entry == NULL ? CUDA_ERROR_OUT_OF_MEMORY : REAL(cuEventCreate)(&entry->event, CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result = REAL(cuEventRecord)(entry->event, stream);
    if (result != CUDA_SUCCESS) {
        /* No event, no order: wait for the stream itself (it has an error of its own if that fails too). */
        REAL(cuStreamSynchronize)(stream);
        gv_memory_give(range);
        if (entry != NULL && entry->event != NULL)
            REAL(cuEventDestroy_v2)(entry->event);
        free(entry);
        return;
    }
    entry->range = range;
    entry->order = order;
    append(entry);
}

int gv_pool_free_after_captures(struct gv_range *range)
{
    struct waiting *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return -1;
    gv_pool_given(range); /* now: once it is in the list another thread may end it */
    entry->range = range;
    entry->order = (struct order){NO_STREAM, range->context, 0}; /* never reused without waiting */
    append(entry);
    return 0;
}

void gv_pool_given(const struct gv_range *range) { count_given(range->pool, range->asked_bytes); }

/* Has what the entry waits for passed? With `wait`, waits for it; a capture that is under way is never waited for. */
static int passed(const struct waiting *entry, int wait)
{
    if (entry->event == NULL)
        return !gv_anything_captures() &&
               gv_contexts_finish(entry->order.context) != CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    /* Any other answer than "not yet" ends the wait: a lost context never finishes, a dead stream has finished. */
    if (wait)
        REAL(cuEventSynchronize)(entry->event);
    return wait || REAL(cuEventQuery)(entry->event) != CUDA_ERROR_NOT_READY;
}

/* Under the lock: takes an entry out of the list. */
static struct waiting *unlink_entry(struct waiting **link)
{
    struct waiting *const entry = *link;
    *link = entry->next;
    if (newest == &entry->next)
        newest = link;
    return entry;
}

/* The oldest entry, out of the list. With `wait`, when there is none, those in the hands of other threads count as given. */
static struct waiting *take_up(int wait, int *given)
{
    pthread_mutex_lock(&lock);
    while (wait && oldest == NULL && in_hand != NULL) {
        pthread_cond_wait(&put_down, &lock);
        ++*given;
    }
    struct waiting *const entry = oldest == NULL ? NULL : unlink_entry(&oldest);
    if (entry != NULL) {
        entry->next = in_hand;
        in_hand = entry;
    }
    pthread_mutex_unlock(&lock);
    return entry;
}

/* Into the list again, when it must go on waiting. */
static void put_back(struct waiting *entry, int go_on)
{
    pthread_mutex_lock(&lock);
    struct waiting **link = &in_hand;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    if (go_on) {
        entry->next = oldest;
        if (oldest == NULL)
            newest = &entry->next;
        oldest = entry;
    }
    pthread_cond_broadcast(&put_down);
    pthread_mutex_unlock(&lock);
}

static int reclaim(int wait)
{
    int given = 0;
    for (int tries = 0; wait || tries < RECLAIM_DEPTH; tries++) {
        struct waiting *const entry = take_up(wait, &given);
        if (entry == NULL)
            break;
        const int done = passed(entry, wait);
        if (done) {
            if (entry->event != NULL)
                REAL(cuEventDestroy_v2)(entry->event);
            gv_memory_give(entry->range);
        }
        put_back(entry, !done);
        if (!done)
            break;
        free(entry);
        given++;
    }
    return given;
}

int gv_pool_reclaim(int wait)
{
    if (__atomic_load_n(&oldest, __ATOMIC_RELAXED) == NULL && !wait)
        return 0;
    if (!gv_anything_captures())
        return reclaim(wait);
    /* Asking an event is forbidden to a program that captures, and would spoil its capture; not to us. */
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    REAL(cuThreadExchangeStreamCaptureMode)(&mode);
    const int given = reclaim(wait);
    REAL(cuThreadExchangeStreamCaptureMode)(&mode);
    return given;
}

void gv_pool_stream_ends(CUstream stream)
{
    pthread_mutex_lock(&lock);
    struct waiting *const lists[] = {oldest, in_hand};
    for (int i = 0; i < 2; i++)
        for (struct waiting *entry = lists[i]; entry != NULL; entry = entry->next)
            if (entry->order.stream == stream)
                entry->order.stream = NO_STREAM;
    pthread_mutex_unlock(&lock);
}

struct waiting *gv_pool_context_ends(CUcontext context)
{
    struct waiting *its = NULL;
    pthread_mutex_lock(&lock);
    while (in_hand != NULL) /* somebody may be asking an event of it */
        pthread_cond_wait(&put_down, &lock);
    for (struct waiting **link = &oldest; *link != NULL;) {
        if ((*link)->order.context == context) {
            struct waiting *const entry = unlink_entry(link);
            entry->next = its;
            its = entry;
        } else {
            link = &(*link)->next;
        }
    }
    pthread_mutex_unlock(&lock);
    return its;
}

void gv_pool_context_ended(struct waiting *its, int gone)
{
    while (its != NULL) {
        struct waiting *const entry = its;
        its = entry->next;
        entry->next = NULL;
        if (gone) { /* the event went with it, and so did all work */
            gv_memory_give(entry->range);
            free(entry);
        } else {
            append(entry);
        }
    }
}

static int same_order(struct order a, struct order b)
{
    return a.stream == b.stream && a.context == b.context && a.thread == b.thread;
}

/* A range of this size that was freed on this very stream: stream order makes it safe at once. */
static struct gv_range *reuse(uint64_t bytes, struct order order)
{
    struct waiting *found = NULL;
    pthread_mutex_lock(&lock);
    int depth = 0;
    for (struct waiting **link = &oldest; *link != NULL && depth < REUSE_DEPTH; link = &(*link)->next, depth++) {
        if (same_order((*link)->order, order) && (*link)->range->asked_bytes == bytes) {
            found = unlink_entry(link);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    if (found == NULL)
        return NULL;
    struct gv_range *const range = found->range;
    REAL(cuEventDestroy_v2)(found->event);
    free(found);
    return range;
}

/* --- pools that stay with the driver: shared with other processes, on the host, or not pinned memory of this device ------- */

static CUmemoryPool *natives; /* under lock */
static size_t native_count;

static int gv_pool_is_native(CUmemoryPool pool)
{
    int found = 0;
    if (__atomic_load_n(&native_count, __ATOMIC_ACQUIRE) == 0)
        return 0;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < native_count; i++)
        found |= natives[i] == pool;
    pthread_mutex_unlock(&lock);
    return found;
}

static CUresult allocate(CUdeviceptr *dptr, uint64_t bytes, CUmemoryPool pool, CUstream stream)
{
    if (dptr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUcontext context = NULL;
    CUresult result = gv_session_attach_current();
    if (result == CUDA_SUCCESS)
        result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS)
        result = gv_gate_lost_context();
    if (result != CUDA_SUCCESS)
        return result;
    if (pool == NULL) {
        CUdevice device = gv_memory.device;
        result = REAL(cuDeviceGetMemPool)(&pool, device);
        if (result != CUDA_SUCCESS)
            return result;
    }
    gv_pool_reclaim(0);
    struct gv_range *const again = reuse(bytes, order_of(stream, context));
    if (again != NULL) {
        gv_memory_readmit(again, context, pool);
        *dptr = again->address;
    } else {
        result = gv_memory_take(bytes, context, pool, dptr);
        if (result == CUDA_ERROR_OUT_OF_MEMORY && gv_pool_reclaim(1))
            result = gv_memory_take(bytes, context, pool, dptr);
    }
    if (result == CUDA_SUCCESS)
        count_taken(pool, bytes);
    return result;
}

static CUresult release(CUdeviceptr dptr, CUstream stream)
{
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS && context == NULL)
        result = CUDA_ERROR_INVALID_CONTEXT;
    if (result != CUDA_SUCCESS)
        return result;
    if (gv_stream_captures(stream)) /* a graph frees what a graph allocated */
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_range *const range = gv_memory_claim(dptr);
    if (range == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    gv_pool_given(range);
    free_later(range, order_of(stream, context));
    return CUDA_SUCCESS;
}

#define STREAM_ORDERED(suffix, default_stream)                                                                         \
    GV_EXPORT CUresult cuMemAllocAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUstream hStream)                   \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        if (gv_stream_captures(stream))                                                                                \
            return REAL(cuMemAllocAsync##suffix)(dptr, bytesize, hStream);                                             \
        return allocate(dptr, bytesize, NULL, stream);                                                                 \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemAllocFromPoolAsync##suffix(CUdeviceptr *dptr, size_t bytesize, CUmemoryPool pool,          \
                                                       CUstream hStream)                                               \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        if (gv_stream_captures(stream) || gv_pool_is_native(pool))                                                     \
            return REAL(cuMemAllocFromPoolAsync##suffix)(dptr, bytesize, pool, hStream);                               \
        return pool == NULL ? CUDA_ERROR_INVALID_VALUE : allocate(dptr, bytesize, pool, stream);                       \
    }                                                                                                                  \
    GV_EXPORT CUresult cuMemFreeAsync##suffix(CUdeviceptr dptr, CUstream hStream)                                      \
    {                                                                                                                  \
        if (!gv_memory_owns(dptr))                                                                                     \
            return REAL(cuMemFreeAsync##suffix)(dptr, hStream);                                                        \
        return release(dptr, hStream == NULL ? default_stream : hStream);                                              \
    }

STREAM_ORDERED(, NULL)
STREAM_ORDERED(_ptsz, CU_STREAM_PER_THREAD)

static void add_native(CUmemoryPool pool)
{
    pthread_mutex_lock(&lock);
    CUmemoryPool *grown = realloc(natives, (native_count + 1) * sizeof *natives);
    if (grown != NULL) {
        natives = grown;
        natives[native_count] = pool;
        __atomic_store_n(&native_count, native_count + 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
}

GV_EXPORT CUresult cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *poolProps)
{
    const CUresult result = REAL(cuMemPoolCreate)(pool, poolProps);
    if (result == CUDA_SUCCESS &&
        (poolProps->handleTypes != CU_MEM_HANDLE_TYPE_NONE || poolProps->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
         poolProps->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
         (gv_memory.bytes != 0 && poolProps->location.id != gv_memory.device)))
        add_native(*pool);
    return result;
}

GV_EXPORT CUresult cuMemPoolDestroy(CUmemoryPool pool)
{
    const CUresult result = REAL(cuMemPoolDestroy)(pool);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lock); /* the handle may come again for another pool */
    for (struct usage **link = &usages; *link != NULL; link = &(*link)->next) {
        if ((*link)->pool == pool) {
            struct usage *const old = *link;
            *link = old->next;
            free(old);
            break;
        }
    }
    for (size_t i = 0; i < native_count; i++)
        if (natives[i] == pool)
            natives[i] = NULL;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolImportFromShareableHandle(CUmemoryPool *pool_out, void *handle,
                                                      CUmemAllocationHandleType handleType, unsigned long long flags)
{
    const CUresult result = REAL(cuMemPoolImportFromShareableHandle)(pool_out, handle, handleType, flags);
    if (result == CUDA_SUCCESS)
        add_native(*pool_out);
    return result;
}

/* Figures of what was allocated from the pool are ours; thresholds and switches are the driver's. */
GV_EXPORT CUresult cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    const CUresult result = REAL(cuMemPoolGetAttribute)(pool, attr, value);
    if (result != CUDA_SUCCESS || value == NULL || gv_pool_is_native(pool))
        return result;
    cuuint64_t threshold = 0;
    gv_pool_reclaim(0);
    if (REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold) == CUDA_SUCCESS)
        count_released(pool, threshold);
    pthread_mutex_lock(&lock);
    const struct usage *const usage = usage_of(pool);
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_CURRENT)
        *(cuuint64_t *)value = usage->used;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        *(cuuint64_t *)value = usage->used_high;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT)
        *(cuuint64_t *)value = usage->reserved;
    else if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        *(cuuint64_t *)value = usage->reserved_high;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attr, void *value)
{
    const CUresult result = REAL(cuMemPoolSetAttribute)(pool, attr, value);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&lock); /* the high marks can only be set back, to what is there now */
    struct usage *const usage = usage_of(pool);
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_USED_MEM_HIGH)
        usage->used_high = usage->used;
    if (usage != NULL && attr == CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH)
        usage->reserved_high = usage->reserved;
    pthread_mutex_unlock(&lock);
    return result;
}

GV_EXPORT CUresult cuMemPoolTrimTo(CUmemoryPool pool, size_t minBytesToKeep)
{
    gv_pool_reclaim(0);
    count_released(pool, minBytesToKeep);
    return REAL(cuMemPoolTrimTo)(pool, minBytesToKeep);
}
