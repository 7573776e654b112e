/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "log.h"
#include "real_driver.h"

enum slot_state { SLOT_FREE = 0, SLOT_USED = 1, SLOT_STALE = 2 };

static struct {
    int descriptor;
    uint8_t *address;
    uint64_t slot_bytes;
    int32_t count, touched; /* slots in all; highest slot ever used + 1 */
    uint8_t *states;        /* enum slot_state; STALE is written by any thread, the rest by the control thread */
    uint8_t *pinned;
    int pin_failed;
} arena = {.descriptor = -1};

int gv_arena_attach(int descriptor, uint64_t bytes, uint64_t slot_bytes)
{
    if (arena.address != NULL) {
        close(descriptor);
        return 0;
    }
    const uint64_t count = bytes / slot_bytes;
    void *address =
        count == 0 ? MAP_FAILED
                   : mmap(NULL, count * slot_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    uint8_t *states = calloc(count * 2 + 1, 1);
    if (address == MAP_FAILED || states == NULL) {
        const int error = count == 0 ? EINVAL : errno;
        free(states);
        close(descriptor);
        return error;
    }
    madvise(address, count * slot_bytes, MADV_DONTDUMP); /* a tenant's device memory belongs into no core file */
    madvise(address, count * slot_bytes, MADV_DONTFORK);
    arena.descriptor = descriptor;
    arena.address = address;
    arena.slot_bytes = slot_bytes;
    arena.count = (int32_t)count;
    arena.states = states;
    arena.pinned = states + count;
    return 0;
}

void *gv_arena_address(int32_t slot) { return arena.address + (uint64_t)slot * arena.slot_bytes; }

static int32_t find_slot(enum slot_state wanted)
{
    for (int32_t slot = 0; slot < arena.touched; slot++)
        if (__atomic_load_n(&arena.states[slot], __ATOMIC_ACQUIRE) == wanted)
            return slot;
    return -1;
}

static void pin(int32_t slot)
{
    if (arena.pinned[slot] || arena.pin_failed)
        return;
    const CUresult result =
        REAL(cuMemHostRegister_v2)(gv_arena_address(slot), arena.slot_bytes, CU_MEMHOSTREGISTER_PORTABLE);
    if (result == CUDA_SUCCESS) {
        arena.pinned[slot] = 1;
        return;
    }
    arena.pin_failed = 1; /* copies still work from pageable memory, only slower */
    gv_debug("cannot pin the arena (CUDA error %d): swapping through pageable memory; raise the memlock limit",
             (int)result);
}

int32_t gv_arena_reserve(void)
{
    int32_t slot = find_slot(SLOT_STALE); /* still backed and pinned */
    if (slot < 0)
        slot = find_slot(SLOT_FREE);
    if (slot < 0) {
        if (arena.touched >= arena.count)
            return -1;
        slot = arena.touched++;
    }
    /* Without this a full tmpfs would be a SIGBUS in the middle of a copy. */
    if (fallocate(arena.descriptor, 0, (off_t)((uint64_t)slot * arena.slot_bytes), (off_t)arena.slot_bytes) != 0) {
        gv_debug("no host memory for a slot of the arena: %s", strerror(errno));
        return -1;
    }
    arena.states[slot] = SLOT_USED;
    pin(slot);
    return slot;
}

void gv_arena_drop(int32_t slot) { __atomic_store_n(&arena.states[slot], SLOT_STALE, __ATOMIC_RELEASE); }

void gv_arena_sweep(void)
{
    for (int32_t slot; (slot = find_slot(SLOT_STALE)) >= 0;) {
        const CUresult result = arena.pinned[slot] ? REAL(cuMemHostUnregister)(gv_arena_address(slot)) : CUDA_SUCCESS;
        /* Not registered: the context that it was pinned in is gone, and the pin with it. */
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
            return; /* no working context any more: it all goes with the process */
        arena.pinned[slot] = 0;
        fallocate(arena.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)((uint64_t)slot * arena.slot_bytes), (off_t)arena.slot_bytes);
        arena.states[slot] = SLOT_FREE;
    }
}

void gv_arena_forget(void)
{
    /* The mapping was not inherited (MADV_DONTFORK), the descriptor was. */
    if (arena.descriptor >= 0)
        close(arena.descriptor);
    memset(&arena, 0, sizeof arena);
    arena.descriptor = -1;
}
