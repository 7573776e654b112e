/* SPDX-License-Identifier: Apache-2.0
 *
 * cuCheckpointProcess*: the caller's side. The process that is meant does the work itself (service.c).
 *
 * These calls pass fault rules but not the gate, so that a locked process can unlock itself, and are not among the calls that
 * a lock waits for.
 */
#include "checkpoint_state.h"
#include "driver_faults.h"
#include "service.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 20000000      /* between two looks at whether the other is alive */
#define GRACE_NS 500000000ull /* for a lock that its process has not even begun with: it is stopped */

/* They work without cuInit (restore asks for that or for persistence mode, which a soft device always has). */
#define GV_ENTER_CHECKPOINT()                                                                                          \
    struct gv_board *const board = gv_board_open();                                                                    \
    do {                                                                                                               \
        if (board == NULL)                                                                                             \
            return CUDA_ERROR_NOT_INITIALIZED;                                                                         \
        const CUresult gv_injected = gv_armed() != 0 ? gv_inject_call(__func__) : CUDA_SUCCESS;                        \
        if (gv_injected != CUDA_SUCCESS)                                                                               \
            return gv_injected;                                                                                        \
    } while (0)

/* Root and the same user only. */
static bool may_touch(int pid)
{
    char path[32];
    struct stat status;
    snprintf(path, sizeof path, "/proc/%d", pid);
    return geteuid() == 0 || (stat(path, &status) == 0 && status.st_uid == geteuid());
}

/* Its service thread is gone when the process has started another program: the record is then of the old one. */
static bool serves(const struct gv_board_process *process)
{
    char path[64];
    const uint32_t thread = __atomic_load_n(&process->checkpoint.thread, __ATOMIC_ACQUIRE);
    snprintf(path, sizeof path, "/proc/%u/task/%u", process->pid, thread);
    return thread != 0 && access(path, F_OK) == 0;
}

/* The record of a process that has called cuInit. */
static CUresult find(struct gv_board *board, int pid, int *record, uint64_t *identity)
{
    *identity = pid > 0 ? gv_identity((uint32_t)pid) : 0;
    if (*identity == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (int r = 0; r < GV_BOARD_PROCESSES; r++) {
        const struct gv_board_process *process = &board->processes[r];
        if (__atomic_load_n(&process->pid, __ATOMIC_ACQUIRE) != (uint32_t)pid || !gv_board_alive(board, r, NULL))
            continue;
        if (!serves(process))
            break; /* or it is inside cuInit */
        *record = r;
        return may_touch(pid) ? CUDA_SUCCESS : CUDA_ERROR_NOT_PERMITTED;
    }
    return CUDA_ERROR_NOT_INITIALIZED;
}

/* Makes the request ours. ILLEGAL_STATE while another live process is at it. */
static CUresult claim(struct gv_board_checkpoint *request, uint64_t self)
{
    uint64_t holder = 0;
    if (!__atomic_compare_exchange_n(&request->caller, &holder, self, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        if (gv_identity(gv_identity_pid(holder)) == holder ||
            __atomic_load_n(&request->stage, __ATOMIC_ACQUIRE) == GV_STAGE_TAKEN)
            return CUDA_ERROR_ILLEGAL_STATE;
        /* It died: with its request half written, posted and not begun, or answered and not read. */
        if (!__atomic_compare_exchange_n(&request->caller, &holder, self, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            return CUDA_ERROR_ILLEGAL_STATE;
        uint32_t posted = GV_STAGE_POSTED;
        if (!__atomic_compare_exchange_n(&request->stage, &posted, GV_STAGE_CLAIMED, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE) &&
            posted == GV_STAGE_TAKEN) {
            __atomic_store_n(&request->caller, holder, __ATOMIC_RELEASE); /* begun just now: the dead one's after all */
            return CUDA_ERROR_ILLEGAL_STATE;
        }
    }
    __atomic_store_n(&request->stage, GV_STAGE_CLAIMED, __ATOMIC_RELEASE);
    return CUDA_SUCCESS;
}

static void release(struct gv_board_checkpoint *request)
{
    __atomic_store_n(&request->stage, GV_STAGE_FREE, __ATOMIC_RELEASE);
    __atomic_store_n(&request->caller, 0, __ATOMIC_RELEASE); /* after the stage: the next one finds it free */
}

/* Until it is answered. A process that dies meanwhile no longer exists: INVALID_VALUE. */
static CUresult await(const struct gv_board *board, struct gv_board_checkpoint *request, int record, uint64_t identity,
                      uint64_t give_up_ns)
{
    const struct timespec look = {0, LOOK_NS};
    for (;;) {
        uint32_t stage = __atomic_load_n(&request->stage, __ATOMIC_ACQUIRE);
        if (stage == GV_STAGE_ANSWERED) {
            const CUresult answer = (CUresult)request->answer;
            release(request);
            return answer;
        }
        if (board->processes[record].pid != gv_identity_pid(identity) ||
            gv_identity(gv_identity_pid(identity)) != identity || !serves(&board->processes[record]))
            return CUDA_ERROR_INVALID_VALUE;
        if (give_up_ns != 0 && stage == GV_STAGE_POSTED && gv_board_now_ns() >= give_up_ns &&
            __atomic_compare_exchange_n(&request->stage, &stage, GV_STAGE_CLAIMED, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_ACQUIRE)) {
            release(request);
            return CUDA_ERROR_NOT_READY;
        }
        syscall(SYS_futex, &request->stage, FUTEX_WAIT, stage, &look, NULL, 0);
    }
}

static CUresult ask(struct gv_board *board, int pid, enum gv_checkpoint_operation operation, uint32_t timeout_ms,
                    const CUcheckpointRestoreArgs *restore)
{
    int record;
    uint64_t identity;
    GV_TRY(find(board, pid, &record, &identity));
    struct gv_board_checkpoint *request = &board->processes[record].checkpoint;
    GV_TRY(claim(request, gv_identity((uint32_t)getpid())));
    request->operation = operation;
    request->timeout_ms = timeout_ms;
    request->pair_count = restore != NULL ? restore->gpuPairsCount : 0;
    for (uint32_t i = 0; i < request->pair_count; i++) {
        memcpy(request->pairs[i][0], &restore->gpuPairs[i].oldUuid, 16);
        memcpy(request->pairs[i][1], &restore->gpuPairs[i].newUuid, 16);
    }
    __atomic_store_n(&request->stage, GV_STAGE_POSTED, __ATOMIC_RELEASE); /* who sees it sees the request */
    syscall(SYS_futex, &request->stage, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    const bool bounded = operation == GV_LOCK && timeout_ms != 0;
    return await(board, request, record, identity,
                 bounded ? gv_board_now_ns() + timeout_ms * 1000000ull + GRACE_NS : 0);
}

static bool all_zero(const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (((const char *)bytes)[i] != 0)
            return false;
    return true;
}

GV_EXPORT CUresult cuCheckpointProcessGetState(int pid, CUprocessState *state)
{
    GV_ENTER_CHECKPOINT();
    int record;
    uint64_t identity;
    if (state == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(find(board, pid, &record, &identity));
    *state = (CUprocessState)__atomic_load_n(&board->processes[record].checkpoint.state, __ATOMIC_ACQUIRE);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCheckpointProcessGetRestoreThreadId(int pid, int *tid)
{
    GV_ENTER_CHECKPOINT();
    int record;
    uint64_t identity;
    if (tid == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(find(board, pid, &record, &identity));
    *tid = (int)__atomic_load_n(&board->processes[record].checkpoint.thread, __ATOMIC_ACQUIRE);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuCheckpointProcessLock(int pid, CUcheckpointLockArgs *args)
{
    GV_ENTER_CHECKPOINT();
    if (args != NULL && (args->reserved0 != 0 || !all_zero(args->reserved1, sizeof args->reserved1)))
        return CUDA_ERROR_INVALID_VALUE;
    return ask(board, pid, GV_LOCK, args != NULL ? args->timeoutMs : 0, NULL);
}

GV_EXPORT CUresult cuCheckpointProcessUnlock(int pid, CUcheckpointUnlockArgs *args)
{
    GV_ENTER_CHECKPOINT();
    if (args != NULL && !all_zero(args, sizeof *args))
        return CUDA_ERROR_INVALID_VALUE;
    return ask(board, pid, GV_UNLOCK, 0, NULL);
}

GV_EXPORT CUresult cuCheckpointProcessCheckpoint(int pid, CUcheckpointCheckpointArgs *args)
{
    GV_ENTER_CHECKPOINT();
    if (args != NULL && !all_zero(args->reserved, sizeof args->reserved))
        return CUDA_ERROR_INVALID_VALUE;
    if (args != NULL && args->customStorageInfo_out != NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return ask(board, pid, GV_CHECKPOINT, 0, NULL);
}

GV_EXPORT CUresult cuCheckpointProcessRestore(int pid, CUcheckpointRestoreArgs *args)
{
    GV_ENTER_CHECKPOINT();
    if (args != NULL &&
        (args->padding0 != 0 || !all_zero(args->reserved, sizeof args->reserved) ||
         (args->gpuPairsCount > 0 && args->gpuPairs == NULL) || args->gpuPairsCount > GV_CHECKPOINT_PAIRS))
        return CUDA_ERROR_INVALID_VALUE;
    if (args != NULL && args->customStorageInfo_out != NULL)
        return CUDA_ERROR_NOT_SUPPORTED;
    return ask(board, pid, GV_RESTORE, 0, args);
}
