/* SPDX-License-Identifier: Apache-2.0
 *
 * Leaving the device and coming back. Every piece of physical memory is copied to plain memory of the process; what was mapped
 * of it becomes an inaccessible reservation at the same address, so that nothing else gets there. On the way back it gets a new
 * memfd, mapped where the old one was.
 *
 * The board is charged first on the way back: another process may have taken the memory meanwhile. As with real drivers that
 * is fatal.
 */
#include "suspend.h"
#include "driver_faults.h"
#include "event.h"
#include "memory.h"
#include "parking.h"
#include "stale.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { PART = 1 << 20, CHUNK = 64 << 10 };

static struct gv_board_saved saved; /* while checkpointed */

static bool is_managed(struct gv_region *region, void *found)
{
    *(bool *)found = *(bool *)found || gv_is_managed_kind(region->kind);
    return true;
}

static bool is_private(struct gv_physical *physical, void *unused)
{
    (void)unused;
    return physical->inode == 0;
}

CUresult gv_suspend_check(void)
{
    bool managed = false;
    pthread_mutex_lock(&gv_memory_lock);
    gv_region_each(is_managed, &managed);
    const bool shared = !gv_physical_each(is_private, NULL);
    pthread_mutex_unlock(&gv_memory_lock);
    const bool events = gv_event_slots_used();
    if (events)
        gv_log_detail("checkpoint refused: the process has events of several processes");
    if (managed)
        gv_log_detail("checkpoint refused: the process has managed memory");
    if (shared)
        gv_log_detail("checkpoint refused: the process has exported or imported memory");
    return managed || shared || events ? CUDA_ERROR_NOT_SUPPORTED : CUDA_SUCCESS;
}

static bool any_lost(const uint8_t place[GV_BOARD_DEVICES], const struct gv_board_account *accounts)
{
    bool lost = false;
    for (int d = 0; d < gv_driver.device_count; d++) {
        const bool in_use = accounts != NULL ? accounts[d].private_bytes != 0 || accounts[d].contexts != 0
                                             : saved.bytes[d] != 0 || saved.contexts[d] != 0;
        lost = lost || (in_use && __atomic_load_n(&gv_driver.board->devices[place[d]].faults.lost, __ATOMIC_ACQUIRE));
    }
    return lost;
}

/* A device that was reset while the process was away is as good as any. */
static bool renew(struct gv_context *context, void *unused)
{
    (void)unused;
    context->losses = gv_device_losses(context->device);
    return true;
}

struct work {
    CUresult result;
    const uint8_t *place; /* on the way back */
};

static bool reserve_copy(struct gv_physical *physical, void *data)
{
    if (physical->device == GV_HOST) /* of pools and handles of host memory: not on the device */
        return true;
    void *room =
        mmap(NULL, physical->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        ((struct work *)data)->result = CUDA_ERROR_OUT_OF_MEMORY;
        return false;
    }
    physical->saved = room;
    return true;
}

static bool drop_copy(struct gv_physical *physical, void *unused)
{
    (void)unused;
    if (physical->saved != NULL)
        munmap(physical->saved, physical->bytes);
    physical->saved = NULL;
    return true;
}

static CUresult pace(const char *place, int device, uint64_t bytes)
{
    return gv_armed() & GV_ARMED_RULES ? gv_inject_copy(place, device, bytes, NULL) : CUDA_SUCCESS;
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
    return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

/* Memory that was never written is not copied: it would cost the process that much. */
static void copy_written(uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += CHUNK) {
        const size_t part = bytes - at < CHUNK ? bytes - at : CHUNK;
        if (!is_zero(from + at, part))
            memcpy(to + at, from + at, part);
    }
}

static bool save(struct gv_physical *physical, void *data)
{
    struct work *work = data;
    if (physical->saved == NULL)
        return true;
    gv_stale_clear(physical);
    const uint8_t *from = NULL;
    if (physical->fd >= 0) {
        from = mmap(NULL, physical->bytes, PROT_READ, MAP_SHARED, physical->fd, 0);
        if (from == MAP_FAILED) {
            work->result = CUDA_ERROR_OUT_OF_MEMORY;
            return false;
        }
    } else {
        from = (const uint8_t *)physical->views->address; /* a heap's block: mapped once, in full */
    }
    for (uint64_t at = 0; at < physical->bytes && work->result == CUDA_SUCCESS; at += PART) {
        const uint64_t part = physical->bytes - at < PART ? physical->bytes - at : PART;
        work->result = pace("checkpoint.save", physical->device, part);
        copy_written((uint8_t *)physical->saved + at, from + at, part);
    }
    if (physical->fd >= 0)
        munmap((void *)from, physical->bytes);
    return work->result == CUDA_SUCCESS;
}

static bool let_go(struct gv_physical *physical, void *data)
{
    struct work *work = data;
    if (physical->saved == NULL)
        return true;
    for (const struct gv_view *view = physical->views; view != NULL; view = view->next)
        if (mmap((void *)view->address, view->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
                 -1, 0) == MAP_FAILED)
            work->result = CUDA_ERROR_OPERATING_SYSTEM;
    gv_park_leave(physical);
    physical->keeps_fd = physical->fd >= 0;
    if (physical->fd >= 0)
        close(physical->fd);
    physical->fd = -1;
    return work->result == CUDA_SUCCESS;
}

CUresult gv_suspend(bool *undone)
{
    struct work work = {CUDA_SUCCESS, NULL};
    *undone = true;
    GV_TRY(gv_suspend_check());
    gv_fail_lost_contexts();
    uint8_t stay[GV_BOARD_DEVICES];
    for (int d = 0; d < GV_BOARD_DEVICES; d++)
        stay[d] = (uint8_t)d;
    if (any_lost(stay, gv_driver.board->processes[gv_driver.record].accounts))
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    GV_TRY(pace("checkpoint.save", -1, 0));
    pthread_mutex_lock(&gv_memory_lock);
    if (!gv_physical_each(reserve_copy, &work) || !gv_physical_each(save, &work)) {
        gv_physical_each(drop_copy, NULL);
    } else {
        *undone = false;
        gv_spares_drop(UINT64_MAX);
        if (gv_physical_each(let_go, &work))
            gv_board_take_away(gv_driver.board, gv_driver.record, &saved);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return work.result;
}

static bool put_back(struct gv_physical *physical, void *data)
{
    struct work *work = data;
    if (physical->saved == NULL)
        return true;
    const int fd = gv_physical_descriptor(physical->device, physical->bytes);
    uint8_t *to = fd < 0 ? MAP_FAILED : mmap(NULL, physical->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (to == MAP_FAILED) {
        work->result = CUDA_ERROR_OPERATING_SYSTEM;
        if (fd >= 0)
            close(fd);
        return false;
    }
    for (uint64_t at = 0; at < physical->bytes && work->result == CUDA_SUCCESS; at += PART) {
        const uint64_t part = physical->bytes - at < PART ? physical->bytes - at : PART;
        work->result = pace("checkpoint.restore", physical->device, part);
        copy_written(to + at, (const uint8_t *)physical->saved + at, part);
    }
    munmap(to, physical->bytes);
    for (const struct gv_view *view = physical->views; view != NULL && work->result == CUDA_SUCCESS;
         view = view->next) {
        if (mmap((void *)view->address, view->bytes, view->protection, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
            work->result = CUDA_ERROR_OPERATING_SYSTEM;
        else if (madvise((void *)view->address, view->bytes, MADV_DONTFORK) == 0)
            madvise((void *)view->address, view->bytes, MADV_DONTDUMP);
    }
    if (physical->keeps_fd)
        physical->fd = fd;
    else
        close(fd);
    return work->result == CUDA_SUCCESS;
}

/* The device of the board with this UUID, or -1. */
static int device_of(const uint8_t uuid[16])
{
    for (uint32_t d = 0; d < gv_driver.board->device_count; d++)
        if (memcmp(gv_driver.board->devices[d].uuid, uuid, 16) == 0)
            return (int)d;
    return -1;
}

/* May memory of `old` go on on `new`? */
static bool same_chip(int old, int new)
{
    const struct gv_board_device *from = &gv_driver.board->devices[old], *to = &gv_driver.board->devices[new];
    return strcmp(from->model.profile.name, to->model.profile.name) == 0 && from->memory_bytes == to->memory_bytes;
}

/* moves[d]: where what was on device d of the board goes. Every device that is in use must be listed. */
static CUresult read_pairs(const uint8_t pairs[][2][16], uint32_t count, uint8_t moves[GV_BOARD_DEVICES])
{
    bool listed[GV_BOARD_DEVICES] = {0}, taken[GV_BOARD_DEVICES] = {0};
    for (int d = 0; d < GV_BOARD_DEVICES; d++)
        moves[d] = (uint8_t)d;
    for (uint32_t i = 0; i < count; i++) {
        const int old = device_of(pairs[i][0]), new = device_of(pairs[i][1]);
        if (old < 0 || new < 0 || listed[old] || taken[new] || !same_chip(old, new))
            return CUDA_ERROR_INVALID_VALUE;
        listed[old] = taken[new] = true;
        moves[old] = (uint8_t)new;
    }
    if (count == 0)
        return CUDA_SUCCESS;
    for (int d = 0; d < gv_driver.device_count; d++)
        if (!listed[d]) {
            if (saved.bytes[d] != 0 || saved.contexts[d] != 0)
                return CUDA_ERROR_INVALID_VALUE;
            int free = d; /* not in use: any place will do, its own if that is not taken */
            for (int other = 0; taken[free] && other < gv_driver.device_count; other++)
                free = other;
            moves[d] = (uint8_t)free;
            taken[free] = true;
        }
    return CUDA_SUCCESS;
}

CUresult gv_resume(const uint8_t pairs[][2][16], uint32_t pair_count, bool *undone)
{
    uint8_t moves[GV_BOARD_DEVICES];
    struct work work = {CUDA_SUCCESS, NULL};
    *undone = true;
    GV_TRY(read_pairs(pairs, pair_count, moves));
    if (any_lost(moves, NULL))
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    *undone = false;
    GV_TRY(pace("checkpoint.restore", -1, 0));
    if (!gv_board_give_back(gv_driver.board, gv_driver.record, &saved, moves))
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    for (int d = 0; d < gv_driver.device_count; d++)
        gv_driver.place[d] = moves[gv_driver.place[d]];
    gv_contexts_each(renew, NULL);
    if (gv_physical_each(put_back, &work))
        gv_physical_each(drop_copy, NULL);
    pthread_mutex_unlock(&gv_memory_lock);
    return work.result;
}
