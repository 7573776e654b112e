/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "arena.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "failpoints.h"
#include "log.h"
#include "ranges.h"
#include "real_driver.h"

#define UNIT_MAX (2ull << 20)

struct segment {
    uint64_t used; /* bytes of places in it; under arena.lock */
    uint8_t backed, pinned;
};

static struct {
    pthread_mutex_t lock; /* of `places` and of segments[].used; the rest belongs to the control thread */
    int descriptor;
    uint8_t *address;
    uint64_t segment_bytes, segment_count, unit;
    uint64_t touched; /* the highest segment ever backed + 1 */
    struct segment *segments;
    struct gv_ranges places; /* addresses are offsets in the file */
    int pin_failed;
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER, .descriptor = -1};

int gv_arena_attach(int descriptor, uint64_t bytes, uint64_t segment_bytes)
{
    if (arena.address != NULL) {
        close(descriptor);
        return 0;
    }
    const uint64_t count = bytes / segment_bytes, whole = count * segment_bytes;
    const uint64_t unit = segment_bytes < UNIT_MAX ? segment_bytes : UNIT_MAX;
    void *address = count == 0 || gv_failpoint(GV_FAIL_ARENA_MAP)
                        ? MAP_FAILED
                        : mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, descriptor, 0);
    struct segment *segments = calloc(count + 1, sizeof *segments);
    int error = count == 0 ? EINVAL : address == MAP_FAILED ? errno : segments == NULL ? ENOMEM : 0;
    if (error == 0)
        error = gv_ranges_init(&arena.places, 0, whole, unit);
    if (error != 0) {
        if (address != MAP_FAILED)
            munmap(address, whole);
        free(segments);
        close(descriptor);
        return error;
    }
    madvise(address, whole, MADV_DONTDUMP); /* a tenant's device memory belongs into no core file */
    madvise(address, whole, MADV_DONTFORK);
    arena.descriptor = descriptor;
    arena.address = address;
    arena.segment_bytes = segment_bytes;
    arena.segment_count = count;
    arena.segments = segments;
    arena.unit = unit;
    return 0;
}

void *gv_arena_address(int32_t place, uint64_t offset, uint64_t *run)
{
    const uint64_t at = (uint64_t)place * arena.unit + offset;
    *run = arena.segment_bytes - at % arena.segment_bytes;
    return arena.address + at;
}

/* Under the lock: adds to (or takes from) what is used of the segments that [at, at + bytes) lies in. */
static void count_used(uint64_t at, uint64_t bytes, int more)
{
    while (bytes != 0) {
        struct segment *const segment = &arena.segments[at / arena.segment_bytes];
        uint64_t part = arena.segment_bytes - at % arena.segment_bytes;
        part = part < bytes ? part : bytes;
        segment->used = more ? segment->used + part : segment->used - part;
        at += part;
        bytes -= part;
    }
}

static void pin(uint64_t index)
{
    struct segment *const segment = &arena.segments[index];
    if (segment->pinned || arena.pin_failed)
        return;
    const CUresult result = gv_failpoint(GV_FAIL_ARENA_PIN)
                                ? CUDA_ERROR_OUT_OF_MEMORY
                                : REAL(cuMemHostRegister_v2)(arena.address + index * arena.segment_bytes,
                                                             arena.segment_bytes, CU_MEMHOSTREGISTER_PORTABLE);
    if (result == CUDA_SUCCESS) {
        segment->pinned = 1;
        return;
    }
    arena.pin_failed = 1; /* copies still work from pageable memory, only slower */
    gv_debug("cannot pin the arena (CUDA error %d): swapping through pageable memory; raise the memlock limit",
             (int)result);
}

/* Host memory for a segment. Without this a full tmpfs would be a SIGBUS in the middle of a copy. */
static int back(uint64_t index)
{
    struct segment *const segment = &arena.segments[index];
    if (!segment->backed && gv_failpoint(GV_FAIL_ARENA_BACK))
        return -1;
    if (!segment->backed &&
        fallocate(arena.descriptor, 0, (off_t)(index * arena.segment_bytes), (off_t)arena.segment_bytes) != 0) {
        gv_debug("no host memory for a segment of the arena: %s", strerror(errno));
        return -1;
    }
    segment->backed = 1;
    if (index >= arena.touched)
        arena.touched = index + 1;
    pin(index);
    return 0;
}

int32_t gv_arena_reserve(uint64_t bytes)
{
    if (arena.address == NULL)
        return -1;
    uint64_t at = 0, length = 0;
    pthread_mutex_lock(&arena.lock);
    const struct gv_range *const range = gv_ranges_take(&arena.places, bytes);
    if (range != NULL) {
        at = range->address;
        length = range->bytes;
        count_used(at, length, 1); /* before the lock is left: a sweep must not find it unused */
    }
    pthread_mutex_unlock(&arena.lock);
    if (length == 0)
        return -1;
    const int32_t place = (int32_t)(at / arena.unit);
    for (uint64_t index = at / arena.segment_bytes; index <= (at + length - 1) / arena.segment_bytes; index++) {
        if (back(index) != 0) {
            gv_arena_drop(place);
            return -1;
        }
    }
    return place;
}

void gv_arena_drop(int32_t place)
{
    pthread_mutex_lock(&arena.lock);
    struct gv_range *const range = gv_ranges_at(&arena.places, (uint64_t)place * arena.unit);
    if (range != NULL) {
        count_used(range->address, range->bytes, 0);
        gv_ranges_give(&arena.places, range);
    }
    pthread_mutex_unlock(&arena.lock);
}

void gv_arena_sweep(void)
{
    for (uint64_t index = 0; index < arena.touched; index++) {
        struct segment *const segment = &arena.segments[index];
        pthread_mutex_lock(&arena.lock);
        const int unused = segment->used == 0;
        pthread_mutex_unlock(&arena.lock);
        if (!unused || !segment->backed)
            continue;
        uint8_t *const address = arena.address + index * arena.segment_bytes;
        const CUresult result = segment->pinned ? REAL(cuMemHostUnregister)(address) : CUDA_SUCCESS;
        /* Not registered: the context that it was pinned in is gone, and the pin with it. */
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED)
            return; /* no working context any more: it all goes with the process */
        segment->pinned = 0;
        segment->backed = 0;
        fallocate(arena.descriptor, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(index * arena.segment_bytes),
                  (off_t)arena.segment_bytes);
    }
}

void gv_arena_forget(void)
{
    /* The mapping was not inherited (MADV_DONTFORK), the descriptor was. */
    if (arena.descriptor >= 0)
        close(arena.descriptor);
    memset(&arena, 0, sizeof arena);
    pthread_mutex_init(&arena.lock, NULL);
    arena.descriptor = -1;
}
