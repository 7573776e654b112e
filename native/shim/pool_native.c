/* SPDX-License-Identifier: Apache-2.0 */
#include "pool_native.h"

#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>

#include "memory.h"
#include "real_driver.h"

/* Never freed, but used again: others may be asking about it. */
struct native {
    CUmemoryPool pool; /* NULL: destroyed */
    int is_charged;    /* takes memory of the GPU, and was made here */
    int is_orphan;     /* destroyed while some of it was in use */
    struct gv_driver_heap heap;
    struct native *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct native
    *natives; /* under lock; new ones are put in front; read without it to learn whether there are any */

void gv_pool_natives_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    natives = NULL;
}

static struct native *find(CUmemoryPool pool)
{
    if (pool == NULL || __atomic_load_n(&natives, __ATOMIC_ACQUIRE) == NULL)
        return NULL;
    pthread_mutex_lock(&lock);
    struct native *native = natives;
    while (native != NULL && native->pool != pool)
        native = native->next;
    pthread_mutex_unlock(&lock);
    return native;
}

int gv_pool_is_native(CUmemoryPool pool) { return find(pool) != NULL; }

int gv_pool_stays_native(const CUmemPoolProps *properties)
{
    return properties->handleTypes != CU_MEM_HANDLE_TYPE_NONE ||
           properties->location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
           properties->allocType != CU_MEM_ALLOCATION_TYPE_PINNED ||
           (gv_memory.bytes != 0 && properties->location.id != gv_memory.device);
}

static CUresult reserved(const struct gv_driver_heap *heap, cuuint64_t *bytes)
{
    const struct native *const native = (const struct native *)((const char *)heap - offsetof(struct native, heap));
    if (native->pool == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    return REAL(cuMemPoolGetAttribute)(native->pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, bytes);
}

int gv_pool_add_native(CUmemoryPool pool, const CUmemPoolProps *properties)
{
    struct native *fresh = calloc(1, sizeof *fresh);
    pthread_mutex_lock(&lock);
    struct native *native = natives;
    while (native != NULL && (native->pool != NULL || native->is_orphan))
        native = native->next;
    if (native == NULL && (native = fresh) != NULL) {
        fresh = NULL;
        native->next = natives;
        __atomic_store_n(&natives, native, __ATOMIC_RELEASE);
    }
    if (native != NULL) {
        const int managed = properties != NULL && properties->allocType == CU_MEM_ALLOCATION_TYPE_MANAGED;
        native->is_charged =
            properties != NULL && (managed || (properties->location.type == CU_MEM_LOCATION_TYPE_DEVICE &&
                                               properties->location.id == gv_memory.device));
        native->heap.kind = managed ? GV_FIXED_MANAGED : GV_FIXED_POOL;
        native->heap.reserved = reserved;
        native->pool = pool;
    }
    pthread_mutex_unlock(&lock);
    free(fresh);
    return native == NULL ? -1 : 0;
}

/* Bytes that the pool may have to take from the device for an allocation. */
static uint64_t growth(CUmemoryPool pool, uint64_t bytes)
{
    cuuint64_t kept = 0, used = 0;
    if (REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT, &kept) != CUDA_SUCCESS ||
        REAL(cuMemPoolGetAttribute)(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &used) != CUDA_SUCCESS)
        kept = used = 0;
    return kept - used >= bytes ? 0 : gv_driver_chunks(bytes);
}

CUresult gv_pool_native_begin(CUmemoryPool pool, uint64_t bytes, int again, uint64_t *taken)
{
    struct native *const native = find(pool);
    if (native == NULL || !native->is_charged || *taken != 0)
        return CUDA_SUCCESS;
    const uint64_t wanted = again ? gv_driver_chunks(bytes) : growth(pool, bytes);
    CUresult result = wanted == 0 ? CUDA_SUCCESS : gv_fixed_charge(native->heap.kind, wanted);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && __atomic_load_n(&native->heap.charged, __ATOMIC_RELAXED) != 0) {
        REAL(cuMemPoolTrimTo)(pool, 0); /* what it only keeps is not worth a refusal */
        gv_driver_heap_settle(&native->heap, 0);
        result = gv_fixed_charge(native->heap.kind, wanted);
    }
    *taken = result == CUDA_SUCCESS ? wanted : 0;
    return result;
}

void gv_pool_native_end(CUmemoryPool pool, uint64_t taken)
{
    struct native *const native = find(pool);
    if (native != NULL && native->is_charged)
        gv_driver_heap_settle(&native->heap, taken);
}

void gv_pool_natives_look(void)
{
    struct native *native = __atomic_load_n(&natives, __ATOMIC_ACQUIRE);
    for (; native != NULL; native = native->next) /* they are never freed */
        gv_driver_heap_look(&native->heap);
}

/* The piece of a heap that the driver has given up. */
static void end_charge(struct gv_driver_heap *heap)
{
    const uint64_t bytes = __atomic_exchange_n(&heap->charged, 0, __ATOMIC_ACQ_REL);
    if (bytes != 0)
        gv_fixed_discharge(heap->kind, bytes);
}

void gv_pool_native_destroyed(CUmemoryPool pool, uint64_t used)
{
    struct native *const native = find(pool);
    if (native == NULL)
        return;
    pthread_mutex_lock(&lock);
    native->pool = NULL;
    native->is_orphan = used != 0 && native->is_charged;
    pthread_mutex_unlock(&lock);
    if (!native->is_orphan)
        end_charge(&native->heap);
}

void gv_pool_natives_context_ended(void)
{
    gv_pool_natives_look();
    for (;;) {
        pthread_mutex_lock(&lock);
        struct native *native = natives;
        while (native != NULL && !native->is_orphan)
            native = native->next;
        pthread_mutex_unlock(&lock);
        if (native == NULL)
            return;
        end_charge(&native->heap);
        native->is_orphan = 0;
    }
}
