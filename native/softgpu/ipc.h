/* SPDX-License-Identifier: Apache-2.0
 *
 * Sharing by a handle of 64 bytes that needs no socket: it names a descriptor of the exporting process, and the importer opens
 * that through /proc/PID/fd. So the kernel decides who may: the same user (ptrace_may_access), in the same pid namespace.
 */
#ifndef GPUVIRT_SOFTGPU_IPC_H
#define GPUVIRT_SOFTGPU_IPC_H

#include "driver.h"

enum gv_ipc_what { GV_IPC_MEMORY = 0x6d637069, GV_IPC_EVENT = 0x65637069, GV_IPC_POOL = 0x70637069 };

/* What the bytes of CUipcMemHandle, CUipcEventHandle, CUmemPoolPtrExportData hold. */
struct gv_ipc_handle {
    uint32_t what; /* enum gv_ipc_what */
    uint32_t pid;
    uint64_t start_time; /* with `pid`: the exporting process, never another one */
    uint64_t inode;      /* of the memfd; a descriptor number that was used again is recognised */
    int32_t fd;          /* in the exporting process */
    uint32_t device;
    uint64_t offset, bytes; /* of the allocation in the memfd; of an event: its slot */
    uint64_t id;            /* of the allocation: handles of addresses used again differ */
};
_Static_assert(sizeof(struct gv_ipc_handle) <= CU_IPC_HANDLE_SIZE, "too large for a handle");

/* Fills in who and which descriptor. */
CUresult gv_ipc_name(struct gv_ipc_handle *handle, enum gv_ipc_what what, int fd);
/* This process, as handles name it. */
void gv_ipc_self(uint32_t *pid, uint64_t *start_time);
/* True when this process made the handle. */
bool gv_ipc_is_own(const struct gv_ipc_handle *handle);
/* A descriptor of our own for what the handle names. INVALID_HANDLE: nothing any more; MAP_FAILED: not allowed. */
CUresult gv_ipc_open(const struct gv_ipc_handle *handle, enum gv_ipc_what what, int *fd);
/* The exporter, or whoever has this pid and start time, uses the board and runs. */
bool gv_ipc_alive(uint32_t pid, uint64_t start_time);

#endif
