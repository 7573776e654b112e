/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory behind the extents: create, map, unmap, keep for reuse. An extent is `moving` while somebody calls the driver
 * for it, and not `mapped` from the first moment on, so that whoever takes it into use meanwhile finds it absent.
 */
#include <stdlib.h>

#include "capture.h"
#include "fixed.h"
#include "gate.h"
#include "memory.h"
#include "real_driver.h"
#include "sharing.h"
#include "page_records.h"

/* --- physical handles ----------------------------------------------------------------------------------------------------- */

static CUresult take_handle(CUmemGenericAllocationHandle *handle, uint64_t bytes)
{
    pthread_mutex_lock(&gv_memory.lock);
    const int cached = gv_memory.cache_count != 0;
    if (cached) {
        *handle = gv_memory.cache[--gv_memory.cache_count];
        gv_memory.cached_bytes -= bytes;
    } else {
        gv_memory.held_bytes += bytes;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (cached)
        return CUDA_SUCCESS;
    /* Of a kind that can be exported: whether another process will open it is known only when it is too late. */
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .requestedHandleTypes = gv_memory.shareable
                                                                        ? CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
                                                                        : CU_MEM_HANDLE_TYPE_NONE,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device}};
    const CUresult result = REAL(cuMemCreate)(handle, bytes, &properties, 0);
    if (result != CUDA_SUCCESS) {
        pthread_mutex_lock(&gv_memory.lock);
        gv_memory.held_bytes -= bytes;
        pthread_mutex_unlock(&gv_memory.lock);
    }
    return result;
}

/* The handle has no address any more: keep it for reuse, or give the memory back to the device. */
static void put_handle(CUmemGenericAllocationHandle handle, uint64_t bytes, int keep)
{
    pthread_mutex_lock(&gv_memory.lock);
    /* Kept memory is resident: an eviction that is under way, or has just been, must not find it there again. */
    keep = keep && gv_memory_resident() <= gv_memory.allowance;
    if (keep && gv_memory.cache_count == gv_memory.cache_room) {
        const uint64_t room = gv_memory.cache_room == 0 ? 64 : gv_memory.cache_room * 2;
        CUmemGenericAllocationHandle *grown = realloc(gv_memory.cache, room * sizeof *grown);
        if (grown != NULL) {
            gv_memory.cache = grown;
            gv_memory.cache_room = room;
        }
    }
    const int kept = keep && gv_memory.cache_count < gv_memory.cache_room;
    if (kept) {
        gv_memory.cache[gv_memory.cache_count++] = handle;
        gv_memory.cached_bytes += bytes;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (kept)
        return;
    REAL(cuMemRelease)(handle);
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.held_bytes -= bytes;
    pthread_mutex_unlock(&gv_memory.lock);
}

uint64_t gv_extents_release_cached(uint64_t bytes_wanted)
{
    uint64_t released = 0;
    while (released < bytes_wanted) {
        pthread_mutex_lock(&gv_memory.lock);
        const int any = gv_memory.cache_count != 0;
        CUmemGenericAllocationHandle handle = 0;
        if (any) {
            handle = gv_memory.cache[--gv_memory.cache_count];
            gv_memory.cached_bytes -= gv_memory_granule();
        }
        pthread_mutex_unlock(&gv_memory.lock);
        if (!any)
            break;
        put_handle(handle, gv_memory_granule(), 0);
        released += gv_memory_granule();
    }
    return released;
}

uint64_t gv_extents_cached_for(__attribute__((unused)) struct gv_piece *const *extents, uint64_t count)
{
    const uint64_t served = count < gv_memory.cache_count ? count : gv_memory.cache_count;
    return served * gv_memory_granule();
}

/* --- out of use ----------------------------------------------------------------------------------------------------------- */

/* Takes the next extent of [*next, last] that is out of use and still has memory, or a place, or is kept; marks it moving. */
static int next_unused(uint64_t *next, uint64_t last, uint64_t *index, struct gv_piece *was)
{
    pthread_mutex_lock(&gv_memory.lock);
    int found = 0;
    for (; *next <= last && !found; (*next)++) {
        struct gv_piece *const extent = &gv_memory.extents[*next];
        if (extent->live != 0 || extent->moving)
            continue;
        gv_pages_forget(extent);
        if (!extent->mapped && !extent->kept)
            continue;
        *index = *next;
        *was = *extent;
        gv_memory.kept_bytes -= extent->kept ? gv_piece_bytes(extent) : 0;
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

void gv_extents_release_unused(uint64_t first, uint64_t last)
{
    uint64_t index;
    struct gv_piece was;
    const CUstreamCaptureMode mode =
        gv_capture_relax(); /* in a thread of the program, who knows what captures beside it */
    while (next_unused(&first, last, &index, &was)) {
        if (was.mapped) /* what another process may have mapped is never used for anything else */
            gv_extent_drop(&gv_memory.extents[index], !was.kept);
        stop_moving(index);
        if (was.kept) {
            gv_fixed_uncount(GV_FIXED_EXPORTED, gv_piece_bytes(&gv_memory.extents[index]));
            gv_sharing_withdraw(index, 1);
        }
    }
    gv_capture_restore(mode);
    gv_gate_notify(); /* somebody may have taken one into use meanwhile */
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
