/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical device memory: a memfd and its charge on the board.
 */
#include "driver_faults.h"
#include "memory.h"
#include "parking.h"
#include "stale.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_PREFIX "gpuvirt-softgpu-"

pthread_mutex_t gv_memory_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gv_physical
    *shared_list; /* exported or imported, by inode: an import of our own memory is the same memory */

static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER; /* the list of all */
static struct gv_physical *all;

static void list(struct gv_physical *physical)
{
    pthread_mutex_lock(&all_lock);
    physical->next = all;
    physical->link = &all;
    if (all != NULL)
        all->link = &physical->next;
    all = physical;
    pthread_mutex_unlock(&all_lock);
}

static void unlist(struct gv_physical *physical)
{
    pthread_mutex_lock(&all_lock);
    *physical->link = physical->next;
    if (physical->next != NULL)
        physical->next->link = physical->link;
    pthread_mutex_unlock(&all_lock);
}

bool gv_physical_each(bool (*visit)(struct gv_physical *physical, void *data), void *data)
{
    bool go_on = true;
    pthread_mutex_lock(&all_lock);
    for (struct gv_physical *physical = all; physical != NULL && go_on; physical = physical->next)
        go_on = physical->device == GV_HOST || visit(physical, data);
    pthread_mutex_unlock(&all_lock);
    return go_on;
}

bool gv_view_add(struct gv_physical *physical, uint64_t address, uint64_t bytes, int protection)
{
    struct gv_view *view = malloc(sizeof *view);
    if (view == NULL)
        return false;
    *view = (struct gv_view){.address = address, .bytes = bytes, .protection = protection, .next = physical->views};
    physical->views = view;
    return true;
}

void gv_view_protect(struct gv_physical *physical, uint64_t address, int protection)
{
    for (struct gv_view *view = physical->views; view != NULL; view = view->next)
        if (view->address == address)
            view->protection = protection;
}

void gv_view_remove(struct gv_physical *physical, uint64_t address)
{
    for (struct gv_view **link = &physical->views; *link != NULL; link = &(*link)->next)
        if ((*link)->address == address) {
            struct gv_view *view = *link;
            *link = view->next;
            free(view);
            return;
        }
}

/* One descriptor per handle: the usual soft limit of 1024 is too low for a large device in 2 MiB handles. */
static bool raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max)
        return false;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

int gv_physical_descriptor(int device, uint64_t bytes)
{
    char name[48];
    snprintf(name, sizeof name, NAME_PREFIX "%d", device == GV_HOST ? GV_HOST : (int)gv_place(device));
    int fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 && errno == EMFILE && raise_descriptor_limit())
        fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0) {
        gv_log_error("cannot create device memory of %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
        return -1;
    }
    if (ftruncate(fd, (off_t)bytes) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* Managed memory gives way. */
static bool charge(int device, uint64_t bytes)
{
    return gv_board_charge(gv_driver.board, gv_place(device), bytes) ||
           (gv_managed_make_room(device, bytes) && gv_board_charge(gv_driver.board, gv_place(device), bytes));
}

CUresult gv_physical_create(int device, uint64_t bytes, bool again, struct gv_physical **physical)
{
    if (device != GV_HOST && gv_device_lost(device))
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    struct gv_physical *made = calloc(1, sizeof *made);
    if (made == NULL || (device != GV_HOST && !charge(device, bytes))) {
        free(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->device = device;
    made->bytes = bytes;
    if (device == GV_HOST || !gv_spare_take(made, again))
        made->fd = gv_physical_descriptor(device, bytes);
    if (made->fd < 0) {
        if (device != GV_HOST)
            gv_board_uncharge(gv_driver.board, gv_place(device), bytes);
        free(made);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    made->references = 1;
    list(made);
    *physical = made;
    return CUDA_SUCCESS;
}

void gv_physical_release(struct gv_physical *physical)
{
    if (--physical->references > 0)
        return;
    if (physical->inode != 0) {
        if (physical->device != GV_HOST)
            gv_board_drop(gv_driver.board, physical->inode);
        for (struct gv_physical **link = &shared_list; *link != NULL; link = &(*link)->next_shared)
            if (*link == physical) {
                *link = physical->next_shared;
                break;
            }
    } else if (physical->device != GV_HOST) {
        gv_board_uncharge(gv_driver.board, gv_place(physical->device), physical->bytes);
    }
    unlist(physical);
    while (physical->views != NULL)
        gv_view_remove(physical, physical->views->address);
    gv_stale_drop(physical);
    if (!gv_spare_keep(physical))
        gv_park_leave(physical);
    if (physical->fd >= 0)
        close(physical->fd);
    free(physical);
}

CUresult gv_physical_share(struct gv_physical *physical)
{
    struct stat status;
    gv_stale_clear(physical);
    if (physical->inode == 0) {
        if (fstat(physical->fd, &status) != 0 ||
            (physical->device != GV_HOST &&
             !gv_board_share(gv_driver.board, gv_place(physical->device), status.st_ino, physical->bytes)))
            return CUDA_ERROR_OPERATING_SYSTEM;
        physical->inode = status.st_ino;
        physical->next_shared = shared_list;
        shared_list = physical;
    }
    return CUDA_SUCCESS;
}

CUresult gv_physical_export(struct gv_physical *physical, int *fd)
{
    GV_TRY(gv_physical_share(physical));
    *fd = fcntl(physical->fd, F_DUPFD_CLOEXEC, 0);
    return *fd < 0 ? CUDA_ERROR_OPERATING_SYSTEM : CUDA_SUCCESS;
}

/* The number of the device on the board is in the name of the memfd: "/memfd:gpuvirt-softgpu-0 (deleted)"; -1 is GV_HOST. */
static bool device_of_descriptor(int fd, int *found)
{
    char path[64], target[128];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    int device;
    if (length <= 0)
        return false;
    target[length] = '\0';
    if (sscanf(target, "/memfd:" NAME_PREFIX "%d", &device) != 1)
        return false;
    *found = device == GV_HOST ? GV_HOST : gv_device_at((uint32_t)device);
    return device == GV_HOST || *found >= 0;
}

CUresult gv_physical_import(int fd, struct gv_physical **physical)
{
    struct stat status;
    int device;
    if (!device_of_descriptor(fd, &device) || fstat(fd, &status) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (struct gv_physical *known = shared_list; known != NULL; known = known->next_shared)
        if (known->inode == status.st_ino) {
            known->references++;
            *physical = known;
            return CUDA_SUCCESS;
        }
    struct gv_physical *made = calloc(1, sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (made->fd < 0) {
        free(made);
        return CUDA_ERROR_OPERATING_SYSTEM;
    }
    if (device != GV_HOST &&
        !gv_board_hold(gv_driver.board, gv_place(device), status.st_ino, (uint64_t)status.st_size)) {
        close(made->fd);
        free(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->device = device;
    made->bytes = (uint64_t)status.st_size;
    made->inode = status.st_ino;
    made->references = 1;
    made->next_shared = shared_list;
    shared_list = made;
    list(made);
    *physical = made;
    return CUDA_SUCCESS;
}
