/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles of 64 bytes between processes: see ipc.h.
 */
#include "ipc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct gv_board_process *own_process(void) { return &gv_driver.board->processes[gv_driver.record]; }

void gv_ipc_self(uint32_t *pid, uint64_t *start_time)
{
    *pid = own_process()->pid;
    *start_time = own_process()->start_time;
}

CUresult gv_ipc_name(struct gv_ipc_handle *handle, enum gv_ipc_what what, int fd)
{
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return CUDA_ERROR_MAP_FAILED;
    memset(handle, 0, sizeof *handle);
    handle->what = what;
    handle->pid = own_process()->pid;
    handle->start_time = own_process()->start_time;
    handle->inode = status.st_ino;
    handle->fd = fd;
    return CUDA_SUCCESS;
}

bool gv_ipc_is_own(const struct gv_ipc_handle *handle)
{
    return handle->pid == own_process()->pid && handle->start_time == own_process()->start_time;
}

bool gv_ipc_alive(uint32_t pid, uint64_t start_time)
{
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        const struct gv_board_process *process = &gv_driver.board->processes[record];
        if (__atomic_load_n(&process->pid, __ATOMIC_ACQUIRE) == pid && process->start_time == start_time)
            return gv_board_alive(gv_driver.board, record, NULL);
    }
    return false;
}

CUresult gv_ipc_open(const struct gv_ipc_handle *handle, enum gv_ipc_what what, int *fd)
{
    char path[64];
    struct stat status;
    if (handle->what != (uint32_t)what || !gv_ipc_alive(handle->pid, handle->start_time))
        return CUDA_ERROR_INVALID_HANDLE;
    snprintf(path, sizeof path, "/proc/%u/fd/%d", handle->pid, handle->fd);
    *fd = open(path, O_RDWR | O_CLOEXEC);
    if (*fd < 0) {
        const bool gone = errno == ENOENT;
        if (!gone)
            gv_log_error("cannot open memory of process %u (%s): %s", handle->pid, path, strerror(errno));
        return gone ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_MAP_FAILED;
    }
    /* Freed meanwhile, and the number belongs to another file. */
    if (fstat(*fd, &status) != 0 || status.st_ino != handle->inode) {
        close(*fd);
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return CUDA_SUCCESS;
}
