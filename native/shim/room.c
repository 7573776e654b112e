/* SPDX-License-Identifier: Apache-2.0 */
#include "room.h"

#include "gate.h"
#include "memory.h"
#include "pool.h"
#include "session.h"

enum { WAIT_STEP_NS = 100 * 1000 * 1000, TRIES = 3 };
#define PATIENCE_NS (10ull * 1000 * 1000 * 1000) /* for one try to find memory that the driver said it had not */

static uint32_t changes;  /* futex of those who wait: counts gv_room_changed */
static uint32_t restores; /* RESTOREs that were carried out; written by the control thread */
static uint64_t missing;  /* under gv_memory.lock: what the driver refused and the daemon does not know yet */

void gv_room_forget(void) { missing = 0; }

void gv_room_changed(void)
{
    __atomic_add_fetch(&changes, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &changes, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

void gv_room_answered(int done)
{
    __atomic_add_fetch(&restores, done != 0, __ATOMIC_RELEASE);
    gv_room_changed();
}

int gv_room_wanted(void)
{
    pthread_mutex_lock(&gv_memory.lock);
    const int wanted = gv_memory.fixed_wanted != 0 || gv_memory_resident() > gv_memory.allowance;
    pthread_mutex_unlock(&gv_memory.lock);
    return wanted;
}

uint64_t gv_room_missing(void)
{
    pthread_mutex_lock(&gv_memory.lock);
    const uint64_t bytes = missing;
    missing = 0;
    pthread_mutex_unlock(&gv_memory.lock);
    return bytes;
}

/* Under the lock. */
static int charge(uint64_t bytes)
{
    const uint64_t quota = gv_memory_quota(), charged = gv_memory_charged();
    if (charged > quota || bytes > quota - charged)
        return 0;
    gv_memory.fixed_wanted += bytes;
    return 1;
}

/* Under the lock: what is wanted becomes resident, if the allowance has room for it or `anyway`. */
static int settle(uint64_t bytes, int anyway)
{
    const uint64_t resident = gv_memory_resident();
    const int fits = !gv_memory.restoring && resident <= gv_memory.allowance && bytes <= gv_memory.allowance - resident;
    if (!fits && !anyway)
        return 0;
    gv_memory.fixed_wanted -= bytes;
    gv_memory.fixed_bytes += bytes;
    return 1;
}

static void sleep_until_changed(uint32_t seen)
{
    const struct timespec limit = {0, WAIT_STEP_NS};
    syscall(SYS_futex, &changes, FUTEX_WAIT_PRIVATE, seen, &limit, NULL, 0);
}

/*
 * Waits until bytes that are wanted fit. `after`: not before another RESTORE than this was carried out (NULL: at once if they
 * fit). `until`: 0, or the time to give up. Either way the bytes are no longer wanted but resident afterwards.
 */
static CUresult wait_for_room(uint64_t bytes, const uint32_t *after, uint64_t until)
{
    for (;;) {
        const uint32_t seen = __atomic_load_n(&changes, __ATOMIC_ACQUIRE);
        const int early = after != NULL && __atomic_load_n(&restores, __ATOMIC_ACQUIRE) == *after;
        const CUresult lost = gv_gate_lost_context();
        const int late = until != 0 && gv_now_ns() > until;
        pthread_mutex_lock(&gv_memory.lock);
        const int cached = gv_memory.cached_bytes + gv_memory.unused_bytes != 0;
        const int settled = !early && settle(bytes, 0);
        if (!settled && (late || lost != CUDA_SUCCESS))
            settle(bytes, 1); /* the caller gives it back */
        pthread_mutex_unlock(&gv_memory.lock);
        if (settled)
            return CUDA_SUCCESS;
        if (lost != CUDA_SUCCESS)
            return lost;
        if (late)
            return CUDA_ERROR_OUT_OF_MEMORY;
        if (!early && cached && gv_extents_release_cached(bytes) != 0)
            continue; /* our own free memory goes first */
        gv_session_poke(GV_POKE_WANT);
        sleep_until_changed(seen);
    }
}

CUresult gv_room_take(uint64_t bytes)
{
    CUresult result = gv_session_attach_current();
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&gv_memory.lock);
    int charged = charge(bytes);
    const int settled = charged && settle(bytes, 0);
    const uint64_t in_all = gv_memory_charged() + bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    if (settled)
        return CUDA_SUCCESS;
    /* Memory that was freed may wait for its stream, and the daemon may not have heard of it yet. */
    if (!charged && (gv_pool_reclaim(1) | gv_memory_ask(in_all))) {
        pthread_mutex_lock(&gv_memory.lock);
        charged = charge(bytes);
        pthread_mutex_unlock(&gv_memory.lock);
    }
    if (!charged) {
        gv_memory_refused(bytes);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    result = wait_for_room(bytes, NULL, 0);
    if (result != CUDA_SUCCESS)
        gv_room_give(bytes);
    return result;
}

void gv_room_give(uint64_t bytes)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.fixed_bytes -= bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_room_changed();
}

int gv_room_again(uint64_t bytes, int *tries)
{
    if (bytes == 0 || ++*tries > TRIES)
        return 0;
    if (gv_extents_release_cached(bytes) != 0)
        return 1; /* that was physical memory */
    const uint32_t after = __atomic_load_n(&restores, __ATOMIC_ACQUIRE);
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.fixed_bytes -= bytes;
    gv_memory.fixed_wanted += bytes;
    missing += bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    return wait_for_room(bytes, &after, gv_now_ns() + PATIENCE_NS) == CUDA_SUCCESS;
}
