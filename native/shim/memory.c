/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of what the program was given. Which addresses there are is said by window.c; physical memory is the business of
 * extents.c.
 */
#include "memory.h"

#include <string.h>

#include "gate.h"
#include "session.h"
#include "sharing.h"

enum { TAKE_TRIES = 3, REFUSED_AGAIN_NS = 20 * 1000 * 1000 };
#define SMALL_LIMIT (1ull << 20) /* requests below share extents in units of 512 bytes */

#define FIRST_SERIAL (1ull << 62) /* the driver numbers its own memory from below: no number is used twice */

struct gv_memory_state gv_memory = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .settled = PTHREAD_COND_INITIALIZER, .serial = FIRST_SERIAL};

void gv_memory_forget(void)
{
    gv_extents_forget();
    memset(&gv_memory, 0, sizeof gv_memory);
    pthread_mutex_init(&gv_memory.lock, NULL);
    pthread_cond_init(&gv_memory.settled, NULL);
    gv_memory.serial = FIRST_SERIAL;
}

uint64_t gv_memory_charged(void)
{
    return gv_memory.live_bytes + gv_memory.block_bytes + gv_memory.fixed_bytes + gv_memory.fixed_wanted;
}

uint64_t gv_memory_resident(void) { return gv_memory.held_bytes + gv_memory.held_block_bytes + gv_memory.fixed_bytes; }

static uint64_t whole(uint64_t bytes) { return bytes / gv_memory_granule() * gv_memory_granule(); }

/* Charged with so much more; an allocation may ask for any number. */
static uint64_t in_all(uint64_t bytes)
{
    const uint64_t charged = gv_memory_charged();
    return bytes > UINT64_MAX - charged ? UINT64_MAX : charged + bytes;
}

static int shares_quota(void) { return gv_load32(&gv_gate.lease->clients) > 1; }

/* Alone: the job's quota. Else what the daemon has granted to this process of it: only the daemon knows what all have. */
uint64_t gv_memory_quota(void)
{
    const uint64_t quota = gv_load64(&gv_gate.lease->quota_bytes);
    /* What was granted is exact: blocks of the program's own are not whole extents. */
    return shares_quota() && gv_memory.granted < whole(quota) ? gv_memory.granted : whole(quota);
}

uint64_t gv_memory_left(void)
{
    const struct gv_lease *const lease = gv_gate.lease;
    const uint64_t quota = whole(gv_load64(&lease->quota_bytes));
    uint64_t charged = gv_memory_charged();
    if (shares_quota()) {
        const uint64_t all = gv_load64(&lease->charged_bytes), own = gv_memory.reported;
        charged += all > own ? all - own : 0; /* the others, as they last reported */
    }
    return quota > charged ? quota - charged : 0;
}

int gv_memory_ask(uint64_t charged) { return shares_quota() && gv_sharing_charge(charged, 0, 1); }

void gv_memory_refused(uint64_t bytes)
{
    static uint64_t last_bytes, last_ns; /* a program that tries the same again and again need not wait each time */
    const uint64_t now = gv_now_ns(), before = __atomic_exchange_n(&last_ns, now, __ATOMIC_RELAXED);
    if (__atomic_exchange_n(&last_bytes, bytes, __ATOMIC_RELAXED) == bytes && now - before < REFUSED_AGAIN_NS)
        return;
    gv_sharing_charge(in_all(bytes), bytes, 0);
}

void gv_memory_granted(uint64_t charged)
{
    pthread_mutex_lock(&gv_memory.lock);
    if (gv_memory.granted < charged)
        gv_memory.granted = charged;
    pthread_mutex_unlock(&gv_memory.lock);
}

static struct gv_ranges *region_of(uint64_t address)
{
    if (gv_ranges_own(&gv_memory.small, address))
        return &gv_memory.small;
    return gv_ranges_own(&gv_memory.middle, address) ? &gv_memory.middle : &gv_memory.large;
}

static void extents_of(const struct gv_range *range, uint64_t *first, uint64_t *last)
{
    *first = gv_extent_at(range->address);
    *last = gv_extent_at(range->address + range->bytes - 1);
}

/* Under the lock: counts a range into its extents. Extents that come into use without memory are absent. */
static void occupy(const struct gv_range *range)
{
    uint64_t first, last, absent = 0;
    extents_of(range, &first, &last);
    for (uint64_t i = first; i <= last; i++) {
        struct gv_piece *extent = &gv_memory.extents[i];
        if (extent->live++ == 0) {
            gv_memory.live_bytes += gv_piece_bytes(extent);
            absent += !extent->mapped;
            gv_extent_note_unused(extent, 0);
        }
    }
    if (last >= gv_memory.extents_touched)
        gv_memory.extents_touched = last + 1;
    if (absent != 0)
        __atomic_fetch_add(&gv_gate.obstacles, absent, __ATOMIC_ACQ_REL);
}

/* Bytes of extents that a range would bring into use. */
static uint64_t new_bytes(const struct gv_range *range)
{
    uint64_t first, last, fresh = 0;
    extents_of(range, &first, &last);
    for (uint64_t i = first; i <= last; i++)
        fresh += gv_memory.extents[i].live == 0 ? gv_piece_bytes(&gv_memory.extents[i]) : 0;
    return fresh;
}

/* *charged: what would be charged in all. *alone: nobody else shared the quota when it was looked at. */
static CUresult take(struct gv_ranges *region, uint64_t bytes, void *context, void *pool, CUdeviceptr *address,
                     uint64_t *charged, int *alone)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_range *const range = gv_ranges_take(region, bytes);
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    *charged = in_all(bytes);
    *alone = !shares_quota();
    if (range != NULL) {
        *charged = gv_memory_charged() + new_bytes(range);
        if (*charged <= gv_memory_quota()) {
            range->asked_bytes = bytes;
            range->serial = ++gv_memory.serial;
            range->context = context;
            range->pool = pool;
            range->sync_memops = 0;
            occupy(range);
            *address = range->address;
            result = CUDA_SUCCESS;
        } else {
            gv_ranges_give(region, range);
        }
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (result == CUDA_SUCCESS)
        gv_extents_publish();
    return result;
}

/*
 * Another process of the job came while this one charged as if it were alone. The daemon first says so in the lease page, then
 * reads what is charged in the client page; we write that, then look whether somebody has come: one of us notices.
 */
static int came_meanwhile(int alone)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return alone && shares_quota();
}

static CUresult take_or_ask(struct gv_ranges *region, uint64_t bytes, void *context, void *pool, CUdeviceptr *address,
                            uint64_t *charged, int *alone)
{
    CUresult result = take(region, bytes, context, pool, address, charged, alone);
    for (int tries = 0; tries < TAKE_TRIES && result == CUDA_ERROR_OUT_OF_MEMORY && gv_memory_ask(*charged); tries++)
        result = take(region, bytes, context, pool, address, charged, alone); /* another thread may have been quicker */
    return result;
}

CUresult gv_memory_take(uint64_t bytes, void *context, void *pool, CUdeviceptr *address)
{
    if (bytes == 0)
        return CUDA_ERROR_INVALID_VALUE;
    uint64_t charged;
    int alone;
    CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
    if (bytes >= gv_memory.large_limit)
        result = take_or_ask(&gv_memory.large, bytes, context, pool, address, &charged, &alone);
    if (result != CUDA_SUCCESS) /* also what is large, if the quota has no room for whole coarse extents */
        result = take_or_ask(bytes < SMALL_LIMIT ? &gv_memory.small : &gv_memory.middle, bytes, context, pool, address,
                             &charged, &alone);
    if (result == CUDA_SUCCESS && came_meanwhile(alone) && !gv_memory_ask(charged)) {
        struct gv_range *const range = gv_memory_claim(*address);
        if (range != NULL)
            gv_memory_give(range);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

/* Under the lock. Returns 1 when some extent went out of use that is kept, or has a place. */
static int vacate(struct gv_range *range, uint64_t *first, uint64_t *last)
{
    uint64_t absent = 0;
    int unused = 0;
    extents_of(range, first, last);
    for (uint64_t i = *first; i <= *last; i++) {
        struct gv_piece *extent = &gv_memory.extents[i];
        if (--extent->live == 0) {
            gv_memory.live_bytes -= gv_piece_bytes(extent);
            absent += !extent->mapped;
            extent->saved = 0;
            unused |= extent->kept || extent->pages != NULL;
            gv_extent_note_unused(extent, extent->mapped && !extent->kept);
        }
    }
    if (absent != 0)
        __atomic_fetch_sub(&gv_gate.obstacles, absent, __ATOMIC_ACQ_REL);
    gv_ranges_give(region_of(range->address), range);
    return unused;
}

void gv_memory_give(struct gv_range *range)
{
    uint64_t first, last;
    pthread_mutex_lock(&gv_memory.lock);
    const int unused = vacate(range, &first, &last);
    pthread_mutex_unlock(&gv_memory.lock);
    if (unused)
        gv_extents_vacated(first, last);
    gv_extents_publish();
}

struct gv_range *gv_memory_claim(CUdeviceptr address)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_ranges *const region = region_of(address);
    struct gv_range *const range = gv_ranges_at(region, address);
    if (range != NULL)
        gv_ranges_hide(region, range);
    pthread_mutex_unlock(&gv_memory.lock);
    return range;
}

int gv_memory_set_sync_memops(CUdeviceptr address, int wanted)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_range *const range = gv_ranges_around(region_of(address), address);
    if (range != NULL)
        range->sync_memops = (int16_t)wanted;
    if (range != NULL && wanted)
        __atomic_store_n(&gv_memory.any_sync_memops, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&gv_memory.lock);
    return range != NULL;
}

int gv_memory_find(CUdeviceptr address, int interior, struct gv_range *copy)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_ranges *const region = region_of(address);
    const struct gv_range *const range = interior ? gv_ranges_around(region, address) : gv_ranges_at(region, address);
    if (range != NULL)
        *copy = *range;
    pthread_mutex_unlock(&gv_memory.lock);
    return range != NULL;
}

void gv_memory_give_context(void *context)
{
    struct gv_ranges *const regions[] = {&gv_memory.small, &gv_memory.middle, &gv_memory.large};
    if (gv_memory.bytes == 0)
        return;
    pthread_mutex_lock(&gv_memory.lock);
    for (int r = 0; r < 3; r++) {
        uint64_t first, last;
        for (struct gv_range *range = regions[r]->first; range != NULL; range = range->upper) {
            const int ours = range->in_use && range->context == context && range->shown;
            if (!ours)
                continue; /* free, another context's, or claimed by a free that is under way */
            struct gv_range *const before = range->lower != NULL && !range->lower->in_use ? range->lower : range;
            vacate(range, &first, &last);
            range = before; /* giving it back may have joined it with its neighbours */
        }
    }
    pthread_mutex_unlock(&gv_memory.lock);
    gv_extents_release_unused(0, gv_memory.extents_touched == 0 ? 0 : gv_memory.extents_touched - 1);
    gv_extents_publish();
}

void gv_memory_unclaim(struct gv_range *range)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_ranges_show(region_of(range->address), range);
    pthread_mutex_unlock(&gv_memory.lock);
}

void gv_memory_readmit(struct gv_range *range, void *context, void *pool)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_ranges *const region = region_of(range->address);
    range->serial = ++gv_memory.serial;
    range->context = context;
    range->pool = pool;
    range->sync_memops = 0;
    gv_ranges_show(region, range);
    pthread_mutex_unlock(&gv_memory.lock);
}
