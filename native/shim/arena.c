/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backing.h"
#include "failpoints.h"
#include "log.h"
#include "real_driver.h"

/* What this process has of a slot. */
struct mine {
    uint32_t references;
    uint32_t next; /* in the list of those that were dropped: slot + LISTED, or END; 0: not in it */
};
enum { END = 1, LISTED = 2 };

static struct {
    pthread_mutex_t lock; /* of `mine`, `dropped` and `held`; the rest belongs to the control thread */
    int descriptor;
    uint8_t *address;
    struct gv_slots slots;
    struct mine *mine;   /* by slot; references rise in the control thread only */
    uint32_t dropped;    /* slots that have lost their last reference here, and are still ours in the table */
    uint64_t held;       /* slots with references */
    uint8_t *registered; /* by segment */
    uint8_t *idle;       /* by segment: work of a sweep */
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER, .descriptor = -1, .dropped = END};

/* --- the file ------------------------------------------------------------------------------------------------------------- */

static void let_go(void)
{
    if (arena.address != NULL)
        munmap(arena.address, arena.slots.layout.file_bytes);
    if (arena.descriptor >= 0)
        close(arena.descriptor);
    free(arena.mine);
    free(arena.registered);
    free(arena.idle);
    arena.address = NULL;
    arena.descriptor = -1;
    arena.mine = NULL;
    arena.registered = arena.idle = NULL;
}

static int map(uint64_t bytes, uint32_t owner)
{
    struct stat file;
    uint32_t nonce = 0;
    if (gv_failpoint(GV_FAIL_ARENA_MAP))
        return ENOMEM;
    if (fstat(arena.descriptor, &file) != 0 || (uint64_t)file.st_size != bytes)
        return EPROTO; /* the header may not be there to be looked at */
    void *const address = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, arena.descriptor, 0);
    if (address == MAP_FAILED)
        return errno;
    madvise(address, bytes, MADV_DONTDUMP); /* a tenant's device memory belongs into no core file */
    madvise(address, bytes, MADV_DONTFORK);
    arena.slots.layout.file_bytes = bytes;
    arena.address = address;
    if (getrandom(&nonce, sizeof nonce, GRND_NONBLOCK) != (ssize_t)sizeof nonce)
        nonce = (uint32_t)getpid();
    const int error = gv_slots_open(&arena.slots, address, bytes, owner, nonce | 1);
    if (error != 0)
        return error;
    const struct gv_store_layout *const layout = &arena.slots.layout;
    arena.mine = calloc(layout->slot_count, sizeof *arena.mine);
    arena.registered = calloc(layout->segment_count, sizeof *arena.registered);
    arena.idle = calloc(layout->segment_count, sizeof *arena.idle);
    if (arena.mine == NULL || arena.registered == NULL || arena.idle == NULL)
        return ENOMEM;
    const int locked = gv_slots_lock(&arena.slots);
    if (locked == 0) {
        gv_slots_begin(&arena.slots);
        gv_slots_unlock(&arena.slots);
    }
    return locked;
}

int gv_arena_attach(int descriptor, uint64_t bytes, uint32_t owner)
{
    if (arena.address != NULL) {
        close(descriptor);
        return 0;
    }
    arena.descriptor = descriptor;
    const int error = map(bytes, owner);
    if (error != 0)
        let_go();
    return error;
}

int gv_arena_descriptor(uint32_t *owner)
{
    *owner = arena.slots.owner;
    return arena.address == NULL ? -1 : arena.descriptor;
}

const uint8_t *gv_arena_key(void) { return arena.address == NULL ? NULL : arena.slots.store->key; }

int gv_arena_verify(void)
{
    return arena.address != NULL &&
           (__atomic_load_n(&arena.slots.store->flags, __ATOMIC_RELAXED) & GV_STORE_VERIFY) != 0;
}

/* --- references of this process ------------------------------------------------------------------------------------------- */

/* One more. Control thread. */
static void hold(gv_slot slot)
{
    pthread_mutex_lock(&arena.lock);
    arena.held += arena.mine[slot].references++ == 0;
    pthread_mutex_unlock(&arena.lock);
}

void gv_arena_release(gv_slot slot)
{
    if (slot < 0 || arena.mine == NULL)
        return;
    pthread_mutex_lock(&arena.lock);
    struct mine *const mine = &arena.mine[slot];
    if (mine->references != 0 && --mine->references == 0) {
        arena.held--;
        if (mine->next == 0) { /* else it is in the list from before */
            mine->next = arena.dropped;
            arena.dropped = (uint32_t)slot + LISTED;
        }
    }
    pthread_mutex_unlock(&arena.lock);
}

uint64_t gv_arena_held(void)
{
    pthread_mutex_lock(&arena.lock);
    const uint64_t held = arena.held;
    pthread_mutex_unlock(&arena.lock);
    return held * GV_MEMORY_PAGE;
}

/* Under the shared lock: gives the table what was dropped since the last time. */
static void tell_dropped(void)
{
    pthread_mutex_lock(&arena.lock);
    while (arena.dropped != END) {
        const gv_slot slot = (gv_slot)(arena.dropped - LISTED);
        arena.dropped = arena.mine[slot].next;
        arena.mine[slot].next = 0;
        if (arena.mine[slot].references == 0)
            gv_slots_release(&arena.slots, slot);
    }
    pthread_mutex_unlock(&arena.lock);
}

/* Takes the shared lock, with everything in the table that is known here. 0, or an errno: then there is no arena. */
static int enter(void)
{
    if (arena.address == NULL)
        return ENOENT;
    const int error = gv_slots_lock(&arena.slots);
    if (error != 0)
        return error;
    gv_slots_void_dead(&arena.slots);
    tell_dropped();
    return 0;
}

static void leave(void) { gv_slots_unlock(&arena.slots); }

/* --- host memory ---------------------------------------------------------------------------------------------------------- */

static uint8_t *segment_address(uint32_t index)
{
    return arena.address + arena.slots.layout.data_at + index * arena.slots.layout.segment_bytes;
}

/* The segment is marked as pinned by this process already: its memory stays. */
static void pin(uint32_t index)
{
    if (arena.registered[index] || !arena.slots.pins)
        return;
    const CUresult result = gv_failpoint(GV_FAIL_ARENA_PIN)
                                ? CUDA_ERROR_OUT_OF_MEMORY
                                : REAL(cuMemHostRegister_v2)(segment_address(index), arena.slots.layout.segment_bytes,
                                                             CU_MEMHOSTREGISTER_PORTABLE);
    if (result == CUDA_SUCCESS) {
        arena.registered[index] = 1;
        return;
    }
    arena.slots.pins = 0; /* copies still work from pageable memory, only slower */
    gv_debug("cannot pin the arena (CUDA error %d): swapping through pageable memory; raise the memlock limit",
             (int)result);
    if (enter() == 0) {
        for (uint32_t i = 0; i < arena.slots.layout.segment_count; i++)
            if (!arena.registered[i])
                gv_slots_unpinned(&arena.slots, i);
        leave();
    }
}

static void punch(uint32_t index)
{
    const struct gv_store_layout *const layout = &arena.slots.layout;
    fallocate(arena.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
              (off_t)(layout->data_at + index * layout->segment_bytes), (off_t)layout->segment_bytes);
}

/* Host memory for some more segments: the daemon gives it, since it keeps the budget. */
static CUresult back(uint32_t wanted)
{
    while (wanted != 0) {
        uint32_t segment = 0, count = 0;
        if (enter() != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        count = gv_slots_begin_backing(&arena.slots, wanted, &segment);
        leave();
        if (count == 0) {
            gv_debug("the arena of this job is full (%u segments)", arena.slots.layout.segment_count);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        CUresult result = CUDA_ERROR_OUT_OF_MEMORY;
        if (!gv_failpoint(GV_FAIL_ARENA_BACK))
            result = gv_backing_ask(segment, count);
        for (uint32_t i = segment; i < segment + count && result != CUDA_SUCCESS; i++)
            punch(i); /* whatever there was given of it */
        if (enter() != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        gv_slots_end_backing(&arena.slots, segment, count, result == CUDA_SUCCESS);
        leave();
        if (result != CUDA_SUCCESS)
            return result;
        wanted -= count;
    }
    return CUDA_SUCCESS;
}

CUresult gv_arena_take(uint32_t count, gv_slot *slots)
{
    const uint32_t per_segment = arena.slots.layout.segment_slots;
    for (;;) {
        if (enter() != 0)
            return CUDA_ERROR_OUT_OF_MEMORY;
        const uint32_t missing = gv_slots_take(&arena.slots, count, slots);
        leave();
        if (missing == 0)
            break;
        const CUresult result = back((missing + per_segment - 1) / per_segment);
        if (result != CUDA_SUCCESS)
            return result;
    }
    for (uint32_t i = 0; i < count; i++) {
        hold(slots[i]);
        pin((uint32_t)slots[i] / per_segment);
    }
    return CUDA_SUCCESS;
}

void *gv_arena_address(gv_slot slot, uint32_t *run)
{
    const struct gv_store_layout *const layout = &arena.slots.layout;
    pin((uint32_t)slot / layout->segment_slots); /* one that was found, not taken */
    *run = layout->segment_slots - (uint32_t)slot % layout->segment_slots;
    return arena.address + layout->data_at + (uint64_t)slot * GV_MEMORY_PAGE;
}

/* Under the lock: segments that nobody refers to, into `idle`; returns how many segments were looked at. */
static uint32_t find_idle(void)
{
    const struct gv_store_layout *const layout = &arena.slots.layout;
    uint32_t touched = arena.slots.store->touched;
    touched = touched < layout->segment_count ? touched : layout->segment_count;
    for (uint32_t i = 0; i < touched; i++) {
        const struct gv_segment *const segment = &arena.slots.segments[i];
        arena.idle[i] = segment->used == 0 && segment->state != GV_SEGMENT_EMPTY;
    }
    return touched;
}

void gv_arena_sweep(void)
{
    if (enter() != 0)
        return;
    const uint32_t count = find_idle();
    leave();
    for (uint32_t index = 0; index < count; index++) {
        if (!arena.idle[index])
            continue;
        const CUresult result =
            arena.registered[index] ? REAL(cuMemHostUnregister)(segment_address(index)) : CUDA_SUCCESS;
        /* Not registered: the context that it was pinned in is gone, and the pin with it. */
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
            return; /* no working context any more: it all goes with the process */
        arena.registered[index] = 0;
        if (enter() != 0)
            return;
        /* Somebody may have taken slots of it meanwhile: only the state, read under the lock, says whether it goes. */
        gv_slots_unpinned(&arena.slots, index);
        const int goes = gv_slots_begin_going(&arena.slots, index);
        leave();
        if (!goes)
            continue;
        punch(index);
        if (enter() != 0)
            return;
        gv_slots_gone(&arena.slots, index);
        leave();
    }
}

/* --- content -------------------------------------------------------------------------------------------------------------- */

void gv_arena_publish(gv_slot slot, const uint64_t hash[2])
{
    if (enter() != 0)
        return;
    gv_slots_publish(&arena.slots, slot, hash);
    leave();
}

int gv_arena_reclaim(gv_slot slot)
{
    pthread_mutex_lock(&arena.lock);
    const int several = arena.mine[slot].references > 1;
    pthread_mutex_unlock(&arena.lock);
    if (several) {
        gv_arena_release(slot);
        return 0;
    }
    if (enter() != 0)
        return 1; /* nobody can find it any more */
    const int alone = gv_slots_reclaim(&arena.slots, slot);
    leave();
    if (!alone)
        gv_arena_release(slot); /* here; it is not ours in the table any more */
    return alone;
}

gv_slot gv_arena_find(const uint64_t hash[2], int *foreign)
{
    *foreign = 0;
    if (enter() != 0)
        return -1;
    const gv_slot slot = gv_slots_find(&arena.slots, hash, foreign);
    leave();
    if (slot >= 0)
        hold(slot);
    return slot;
}

void gv_arena_forget(void)
{
    /* The mapping was not inherited (MADV_DONTFORK), the descriptor was. Memory of ours is left: this is a child of a fork. */
    if (arena.descriptor >= 0)
        close(arena.descriptor);
    memset(&arena, 0, sizeof arena);
    pthread_mutex_init(&arena.lock, NULL);
    arena.descriptor = -1;
    arena.dropped = END;
    gv_backing_forget();
}
