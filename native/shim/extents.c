/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory behind the extents: create, map, unmap, keep for reuse. An extent is `moving` while somebody calls the driver
 * for it, and not `mapped` from the first moment on, so that whoever takes it into use meanwhile finds it absent.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "fixed.h"
#include "gate.h"
#include "memory.h"
#include "page_records.h"
#include "real_driver.h"
#include "sharing.h"

/* --- physical handles ----------------------------------------------------------------------------------------------------- */

/* Those without an address, by size of extent; under gv_memory.lock. */
static struct cache {
    CUmemGenericAllocationHandle *handles;
    uint64_t count, room;
} caches[2];

static struct cache *cache_of(uint64_t bytes) { return &caches[bytes == gv_memory.fine_bytes ? 0 : 1]; }

void gv_extents_forget(void) { memset(caches, 0, sizeof caches); /* the parent's arrays leak: no free in the child */ }

/* Under the lock. */
static int take_cached(struct cache *cache, uint64_t bytes, CUmemGenericAllocationHandle *handle)
{
    if (cache->count == 0)
        return 0;
    *handle = cache->handles[--cache->count];
    gv_memory.cached_bytes -= bytes;
    return 1;
}

static void count_held(uint64_t bytes, int more)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.held_bytes = more ? gv_memory.held_bytes + bytes : gv_memory.held_bytes - bytes;
    pthread_mutex_unlock(&gv_memory.lock);
}

static CUresult take_handle(CUmemGenericAllocationHandle *handle, uint64_t bytes)
{
    pthread_mutex_lock(&gv_memory.lock);
    const int cached = take_cached(cache_of(bytes), bytes, handle);
    pthread_mutex_unlock(&gv_memory.lock);
    if (cached)
        return CUDA_SUCCESS;
    count_held(bytes, 1);
    /* Of a kind that can be exported: whether another process will open it is known only when it is too late. */
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .requestedHandleTypes = gv_memory.shareable
                                                                        ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
                                                                        : CU_MEM_HANDLE_TYPE_NONE,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device}};
    CUresult result = REAL(cuMemCreate)(handle, bytes, &properties, 0);
    /* Contexts and strangers take memory too, that nobody promised: what we have in reserve goes first. */
    if (result == CUDA_ERROR_OUT_OF_MEMORY && gv_extents_release_cached(bytes) != 0)
        result = REAL(cuMemCreate)(handle, bytes, &properties, 0);
    if (result != CUDA_SUCCESS)
        count_held(bytes, 0);
    return result;
}

/* Under the lock: 1 if there is a place for one more. */
static int make_room(struct cache *cache)
{
    if (cache->count < cache->room)
        return 1;
    const uint64_t room = cache->room == 0 ? 64 : cache->room * 2;
    CUmemGenericAllocationHandle *const grown = realloc(cache->handles, room * sizeof *grown);
    if (grown == NULL)
        return 0;
    cache->handles = grown;
    cache->room = room;
    return 1;
}

/* The handle has no address any more: keep it for reuse, or give the memory back to the device. */
static void put_handle(CUmemGenericAllocationHandle handle, uint64_t bytes, int keep)
{
    struct cache *const cache = cache_of(bytes);
    pthread_mutex_lock(&gv_memory.lock);
    /* Kept memory is resident: an eviction that is under way, or has just been, must not find it there again. */
    keep = keep && gv_memory_resident() <= gv_memory.allowance && make_room(cache);
    if (keep) {
        cache->handles[cache->count++] = handle;
        gv_memory.cached_bytes += bytes;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (keep)
        return;
    REAL(cuMemRelease)(handle);
    count_held(bytes, 0);
}

uint64_t gv_extents_cached_for(struct gv_piece *const *extents, uint64_t count)
{
    uint64_t served[2] = {0, 0}, bytes = 0;
    for (uint64_t i = 0; i < count; i++) {
        const struct cache *const cache = cache_of(gv_piece_bytes(extents[i]));
        if (served[cache - caches]++ < cache->count)
            bytes += gv_piece_bytes(extents[i]);
    }
    return bytes;
}

/* --- out of use ----------------------------------------------------------------------------------------------------------- */

void gv_extent_note_unused(struct gv_piece *extent, int unused)
{
    if (extent->unused == unused)
        return;
    const uint64_t before = gv_memory.unused_bytes, bytes = gv_piece_bytes(extent), index = gv_extent_index(extent);
    extent->unused = (uint8_t)unused;
    gv_memory.unused_bytes = unused ? before + bytes : before - bytes;
    if (gv_memory.unused_bytes == 0)
        __atomic_fetch_and(&gv_gate.obstacles, ~GV_HAS_UNUSED, __ATOMIC_ACQ_REL);
    if (!unused)
        return;
    if (before == 0)
        __atomic_fetch_or(&gv_gate.obstacles, GV_HAS_UNUSED, __ATOMIC_ACQ_REL);
    if (before == 0 || index < gv_memory.unused_first)
        gv_memory.unused_first = index;
    if (before == 0 || index > gv_memory.unused_last)
        gv_memory.unused_last = index;
}

enum release {
    KEPT_ONLY, /* what others may have mapped, and what is in the arena */
    FOR_REUSE, /* all, handles may be cached */
    TO_DRIVER, /* all, and no handle is */
};

/* Takes the next extent of [*next, last] that is out of use and still has memory, or a place, or is kept; marks it moving. */
static int next_unused(uint64_t *next, uint64_t last, enum release how, uint64_t *index, struct gv_piece *was)
{
    pthread_mutex_lock(&gv_memory.lock);
    int found = 0;
    for (; *next <= last && !found; (*next)++) {
        struct gv_piece *const extent = &gv_memory.extents[*next];
        if (extent->live != 0 || extent->moving)
            continue;
        gv_pages_forget(extent);
        if (!extent->kept && (!extent->mapped || how == KEPT_ONLY))
            continue;
        *index = *next;
        *was = *extent;
        gv_memory.kept_bytes -= extent->kept ? gv_piece_bytes(extent) : 0;
        gv_extent_note_unused(extent, 0);
        extent->mapped = 0;
        extent->kept = 0;
        extent->moving = 1;
        found = 1;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    return found;
}

static void stop_moving(uint64_t index)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.extents[index].moving = 0;
    pthread_mutex_unlock(&gv_memory.lock);
}

/* Returns the bytes that were unmapped. */
static uint64_t release(uint64_t first, uint64_t last, enum release how)
{
    uint64_t index, bytes = 0;
    struct gv_piece was;
    const CUstreamCaptureMode mode =
        gv_capture_relax(); /* in a thread of the program, who knows what captures beside it */
    while (next_unused(&first, last, how, &index, &was)) {
        struct gv_piece *const extent = &gv_memory.extents[index];
        if (was.mapped) { /* what another process may have mapped is never used for anything else */
            gv_extent_drop(extent, how == FOR_REUSE && !was.kept);
            bytes += gv_piece_bytes(extent);
        }
        stop_moving(index);
        if (was.kept) {
            gv_fixed_uncount(GV_FIXED_EXPORTED, gv_piece_bytes(extent));
            gv_sharing_withdraw(index, 1);
        }
    }
    gv_capture_restore(mode);
    gv_gate_notify(); /* somebody may have taken one into use meanwhile */
    return bytes;
}

void gv_extents_release_unused(uint64_t first, uint64_t last) { release(first, last, FOR_REUSE); }

void gv_extents_vacated(uint64_t first, uint64_t last) { release(first, last, KEPT_ONLY); }

static uint64_t release_all_unused(enum release how)
{
    pthread_mutex_lock(&gv_memory.lock);
    const uint64_t first = gv_memory.unused_first, last = gv_memory.unused_last;
    const int any = gv_memory.unused_bytes != 0;
    pthread_mutex_unlock(&gv_memory.lock);
    return any ? release(first, last, how) : 0;
}

void gv_extents_release_all_unused(void)
{
    const int saved = errno; /* in a call that gives work to the GPU */
    release_all_unused(FOR_REUSE);
    errno = saved;
}

uint64_t gv_extents_release_cached(uint64_t bytes_wanted)
{
    uint64_t released = 0;
    for (int index = 1; index >= 0; index--) { /* coarse ones first: fewer calls */
        const uint64_t bytes = index == 0 ? gv_memory.fine_bytes : gv_memory.coarse_bytes;
        while (released < bytes_wanted) {
            CUmemGenericAllocationHandle handle;
            pthread_mutex_lock(&gv_memory.lock);
            const int any = take_cached(&caches[index], bytes, &handle);
            pthread_mutex_unlock(&gv_memory.lock);
            if (!any)
                break;
            put_handle(handle, bytes, 0);
            released += bytes;
        }
    }
    return released < bytes_wanted ? released + release_all_unused(TO_DRIVER) : released;
}

/* --- in and out of device memory ------------------------------------------------------------------------------------------ */

CUresult gv_extent_bring(struct gv_piece *extent)
{
    const uint64_t bytes = gv_piece_bytes(extent);
    CUmemGenericAllocationHandle handle;
    CUresult result = take_handle(&handle, bytes);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemMap)(gv_piece_address(extent), bytes, 0, handle, 0);
    if (result != CUDA_SUCCESS) {
        put_handle(handle, bytes, 1);
        return result;
    }
    extent->handle = handle; /* ours alone while moving */
    return CUDA_SUCCESS;
}

void gv_extent_drop(struct gv_piece *extent, int reuse)
{
    REAL(cuMemUnmap)(gv_piece_address(extent), gv_piece_bytes(extent));
    put_handle(extent->handle, gv_piece_bytes(extent), reuse);
}

/* One call per run of neighbours: its cost hardly depends on the size. */
CUresult gv_extents_open(struct gv_piece *const *extents, uint64_t count)
{
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    for (uint64_t i = 0; i < count;) {
        uint64_t end = i + 1, bytes = gv_piece_bytes(extents[i]);
        while (end < count && extents[end] == extents[end - 1] + 1)
            bytes += gv_piece_bytes(extents[end++]);
        const CUresult result = REAL(cuMemSetAccess)(gv_piece_address(extents[i]), bytes, &access, 1);
        if (result != CUDA_SUCCESS)
            return result;
        i = end;
    }
    return CUDA_SUCCESS;
}
