/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory behind the extents: create, map, unmap, keep for reuse; and the two transactions of the control thread,
 * restore and evict. An extent is `moving` while somebody calls the driver for it, and not `mapped` from the first moment on,
 * so that whoever takes it into use meanwhile finds it absent.
 */
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "log.h"
#include "memory.h"
#include "real_driver.h"
#include "session.h"
#include "swap.h"

void gv_extents_report(struct gv_memory_report *report)
{
    pthread_mutex_lock(&gv_memory.lock);
    report->charged = gv_memory_charged();
    report->resident = gv_memory_resident();
    report->fixed = gv_memory.fixed_bytes;
    pthread_mutex_unlock(&gv_memory.lock);
}

void gv_extents_publish(void)
{
    if (gv_gate.obstacles & GV_UNATTACHED)
        return;
    struct gv_memory_report report;
    gv_extents_report(&report);
    gv_store64(&gv_client_page()->charged_bytes, report.charged);
    gv_store64(&gv_client_page()->resident_bytes, report.resident);
    gv_store64(&gv_client_page()->native_bytes, report.fixed);
    const uint64_t fixed_change = report.fixed > gv_memory.reported_fixed ? report.fixed - gv_memory.reported_fixed
                                                                          : gv_memory.reported_fixed - report.fixed;
    if ((report.charged != gv_memory.reported && gv_load32(&gv_gate.lease->clients) > 1) ||
        fixed_change >= gv_memory.extent_bytes)
        gv_session_poke(GV_POKE_MEMORY);
}

/* --- physical handles ----------------------------------------------------------------------------------------------------- */

static CUresult take_handle(CUmemGenericAllocationHandle *handle)
{
    pthread_mutex_lock(&gv_memory.lock);
    const int cached = gv_memory.cache_count != 0;
    if (cached)
        *handle = gv_memory.cache[--gv_memory.cache_count];
    gv_memory.held_extents++;
    pthread_mutex_unlock(&gv_memory.lock);
    if (cached)
        return CUDA_SUCCESS;
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device}};
    const CUresult result = REAL(cuMemCreate)(handle, gv_memory.extent_bytes, &properties, 0);
    if (result != CUDA_SUCCESS) {
        pthread_mutex_lock(&gv_memory.lock);
        gv_memory.held_extents--;
        pthread_mutex_unlock(&gv_memory.lock);
    }
    return result;
}

/* The handle has no address any more: keep it for reuse, or give the memory back to the device. */
static void put_handle(CUmemGenericAllocationHandle handle, int keep)
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
        gv_memory.held_extents--;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (kept)
        return;
    REAL(cuMemRelease)(handle);
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.held_extents--;
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
            gv_memory.held_extents++;
        }
        pthread_mutex_unlock(&gv_memory.lock);
        if (!any)
            break;
        put_handle(handle, 0);
        released += gv_memory.extent_bytes;
    }
    return released;
}

/* --- out of use ----------------------------------------------------------------------------------------------------------- */

/* Takes the next extent of [*next, last] that is out of use and still has memory or a slot; marks it moving. */
static int next_unused(uint64_t *next, uint64_t last, uint64_t *index)
{
    pthread_mutex_lock(&gv_memory.lock);
    int found = 0;
    for (; *next <= last && !found; (*next)++) {
        struct gv_extent *const extent = &gv_memory.extents[*next];
        if (extent->live != 0 || extent->moving)
            continue;
        if (extent->slot != 0) {
            gv_arena_drop(extent->slot - 1);
            extent->slot = 0;
            extent->saved = 0;
        }
        if (!extent->mapped)
            continue;
        *index = *next;
        extent->mapped = 0;
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
    const CUstreamCaptureMode mode =
        gv_capture_relax(); /* in a thread of the program, who knows what captures beside it */
    while (next_unused(&first, last, &index)) {
        REAL(cuMemUnmap)(gv_extent_address(index), gv_memory.extent_bytes);
        put_handle(gv_memory.extents[index].handle, 1);
        stop_moving(index);
    }
    gv_capture_restore(mode);
    gv_gate_notify(); /* somebody may have taken one into use meanwhile */
}

/* --- restore -------------------------------------------------------------------------------------------------------------- */

struct list {
    uint64_t *indexes;
    uint64_t count;
};

enum which { ABSENT_ONES, MAPPED_ONES };

/* Marks up to `limit` extents moving: absent ones from below, or mapped ones in use from above. */
static struct list collect(enum which which, uint64_t limit)
{
    struct list list = {NULL, 0};
    const uint64_t touched = __atomic_load_n(&gv_memory.extents_touched, __ATOMIC_ACQUIRE);
    list.indexes = malloc((touched + 1) * sizeof *list.indexes);
    if (list.indexes == NULL)
        return list;
    uint64_t absent = 0;
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < touched && list.count < limit; i++) {
        const uint64_t index = which == ABSENT_ONES ? i : touched - 1 - i;
        struct gv_extent *const extent = &gv_memory.extents[index];
        if (extent->moving || extent->live == 0 || extent->mapped != (which == MAPPED_ONES))
            continue;
        extent->moving = 1;
        absent += extent->mapped;
        extent->mapped = 0;
        list.indexes[list.count++] = index;
    }
    /* Still under the lock: who frees one of them now takes it off the count, which must not go below zero. */
    if (absent != 0)
        __atomic_fetch_add(&gv_gate.obstacles, absent, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&gv_memory.lock);
    return list;
}

/* The extents may be touched from now on. Those that went out of use meanwhile are unmapped again. */
static void settle_mapped(const struct list *list)
{
    uint64_t present = 0, unused = 0;
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < list->count; i++) {
        struct gv_extent *const extent = &gv_memory.extents[list->indexes[i]];
        extent->mapped = 1;
        extent->moving = 0;
        extent->saved = 0; /* the slot is kept for the next time, but the program may now write */
        present += extent->live != 0;
        unused += extent->live == 0;
    }
    if (present != 0)
        __atomic_fetch_sub(&gv_gate.obstacles, present, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&gv_memory.lock);
    if (unused != 0)
        gv_extents_release_unused(0, gv_memory.extents_touched - 1);
}

static void settle_absent(const struct list *list)
{
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < list->count; i++)
        gv_memory.extents[list->indexes[i]].moving = 0;
    pthread_mutex_unlock(&gv_memory.lock);
}

static CUresult map_extent(uint64_t index)
{
    CUmemGenericAllocationHandle handle;
    CUresult result = take_handle(&handle);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemMap)(gv_extent_address(index), gv_memory.extent_bytes, 0, handle, 0);
    if (result != CUDA_SUCCESS) {
        put_handle(handle, 1);
        return result;
    }
    gv_memory.extents[index].handle = handle; /* ours alone while moving */
    return CUDA_SUCCESS;
}

static void unmap_extent(uint64_t index, int keep)
{
    REAL(cuMemUnmap)(gv_extent_address(index), gv_memory.extent_bytes);
    put_handle(gv_memory.extents[index].handle, keep);
}

/* One call per run of neighbours: its cost hardly depends on the size. The list is sorted upwards. */
static CUresult open_access(const struct list *list)
{
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    for (uint64_t i = 0; i < list->count;) {
        uint64_t end = i + 1;
        while (end < list->count && list->indexes[end] == list->indexes[end - 1] + 1)
            end++;
        const CUresult result =
            REAL(cuMemSetAccess)(gv_extent_address(list->indexes[i]), (end - i) * gv_memory.extent_bytes, &access, 1);
        if (result != CUDA_SUCCESS)
            return result;
        i = end;
    }
    return CUDA_SUCCESS;
}

/* The end of a restore: the allowance counts from now on, unless it came to nothing. */
static void end_restore(const struct gv_move *move, uint64_t allowance)
{
    pthread_mutex_lock(&gv_memory.lock);
    if (move->status == CUDA_SUCCESS)
        gv_memory.allowance = allowance;
    gv_memory.restoring = 0;
    pthread_mutex_unlock(&gv_memory.lock);
}

struct gv_move gv_extents_restore(uint64_t allowance)
{
    struct gv_move move = {CUDA_SUCCESS, 0, 0};
    const struct list list = collect(ABSENT_ONES, UINT64_MAX);
    if (list.indexes == NULL)
        return (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, 0};
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.restoring = 1; /* what follows is counted now and taken later */
    const uint64_t fresh = list.count > gv_memory.cache_count ? list.count - gv_memory.cache_count : 0;
    const uint64_t after = gv_memory_resident() + fresh * gv_memory.extent_bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    if (after > allowance) {
        move = (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, after - allowance};
        settle_absent(&list);
        end_restore(&move, allowance);
        free(list.indexes);
        return move;
    }
    uint64_t mapped = 0;
    while (mapped < list.count && (move.status = map_extent(list.indexes[mapped])) == CUDA_SUCCESS)
        mapped++;
    if (move.status == CUDA_SUCCESS)
        move.status = open_access(&list);
    if (move.status == CUDA_SUCCESS)
        move.status = gv_swap_copy_in(list.indexes, list.count, &move.bytes_moved);
    if (move.status == CUDA_SUCCESS) {
        settle_mapped(&list);
    } else {
        /* Roll back: the arena still holds everything, `saved` was not touched. */
        if (move.status == CUDA_ERROR_OUT_OF_MEMORY)
            move.bytes_short = (list.count - mapped) * gv_memory.extent_bytes;
        while (mapped-- > 0)
            unmap_extent(list.indexes[mapped], 0);
        settle_absent(&list);
    }
    end_restore(&move, allowance);
    free(list.indexes);
    return move;
}

/* --- evict ---------------------------------------------------------------------------------------------------------------- */

static void release_one(uint64_t index) { unmap_extent(index, 0); }

struct gv_move gv_extents_evict(uint64_t target)
{
    struct gv_move move = {CUDA_SUCCESS, 0, 0};
    pthread_mutex_lock(&gv_memory.lock);
    if (target < gv_memory.fixed_bytes)
        target = gv_memory.fixed_bytes; /* the answer says what stayed */
    gv_memory.allowance = target;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_extents_release_unused(0, gv_memory.extents_touched == 0 ? 0 : gv_memory.extents_touched - 1);
    pthread_mutex_lock(&gv_memory.lock);
    uint64_t resident = gv_memory_resident();
    pthread_mutex_unlock(&gv_memory.lock);
    if (resident > target)
        resident -= gv_extents_release_cached(resident - target);
    if (resident <= target)
        return move;
    const uint64_t wanted = (resident - target + gv_memory.extent_bytes - 1) / gv_memory.extent_bytes;
    const struct list list = collect(MAPPED_ONES, wanted);
    if (list.indexes == NULL)
        return (struct gv_move){CUDA_ERROR_OUT_OF_MEMORY, 0, 0};
    uint64_t out = 0;
    move.status = gv_swap_copy_out(list.indexes, list.count, release_one, &out);
    move.bytes_moved = out * gv_memory.extent_bytes;
    const struct list gone = {list.indexes, out}, kept = {list.indexes + out, list.count - out};
    settle_absent(&gone);
    if (kept.count != 0)
        settle_mapped(&kept);
    free(list.indexes);
    return move;
}
