/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread of each process that locks, checkpoints, restores and unlocks it when another process (or itself) asks through
 * the board. See board_checkpoint.h for the protocol.
 *
 * Lock: close the gate of the entry seam, wait for the calls in progress, then for all work that they have submitted. Nothing
 * new can come meanwhile, so both only get less. When the time is over, or nobody waits for the answer any more, the gate
 * opens again and nothing has happened.
 */
#include "service.h"
#include "checkpoint_state.h"
#include "context.h"
#include "stream.h"
#include "suspend.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS 200000ull            /* between two looks at whether the process has become quiet */
#define CALLER_LOOK_NS 50000000ull   /* ... at whether the caller is alive */
#define NO_REQUEST_LOOK_NS 500000000 /* a wake that got lost costs no more than this */

uint64_t gv_identity(uint32_t pid)
{
    char state;
    const uint64_t start = gv_board_start_time(pid, &state);
    return start == 0 ? 0 : (uint64_t)pid << 32 | (uint32_t)start;
}

static struct gv_board_checkpoint *own(void) { return &gv_driver.board->processes[gv_driver.record].checkpoint; }

static bool is_idle(struct gv_context *context, void *unused)
{
    (void)unused;
    bool idle = gv_stream_idle(context->legacy);
    pthread_mutex_lock(&context->lock);
    for (struct gv_stream *stream = context->streams; stream != NULL && idle; stream = stream->next)
        idle = gv_stream_idle(stream);
    pthread_mutex_unlock(&context->lock);
    return idle;
}

static bool all_idle(void) { return gv_streams_ending() == 0 && gv_contexts_each(is_idle, NULL); }

static CUresult drain(const struct gv_board_checkpoint *request)
{
    const uint64_t start = gv_board_now_ns();
    const struct timespec look = {0, LOOK_NS};
    uint64_t caller_seen = start;
    while (!gv_calls_quiet() || !all_idle()) {
        const uint64_t now = gv_board_now_ns();
        if (request->timeout_ms != 0 && now - start >= request->timeout_ms * 1000000ull)
            return CUDA_ERROR_NOT_READY;
        if (now - caller_seen >= CALLER_LOOK_NS) {
            caller_seen = now;
            const uint64_t caller = __atomic_load_n(&request->caller, __ATOMIC_ACQUIRE);
            if (gv_identity(gv_identity_pid(caller)) != caller)
                return CUDA_ERROR_NOT_READY;
        }
        nanosleep(&look, NULL);
    }
    return CUDA_SUCCESS;
}

static CUresult lock_process(struct gv_board_checkpoint *request)
{
    gv_calls_close();
    const CUresult result = drain(request);
    if (result != CUDA_SUCCESS)
        gv_calls_open();
    return result;
}

static CUresult perform(struct gv_board_checkpoint *request)
{
    const CUprocessState state = (CUprocessState)request->state;
    const enum gv_checkpoint_operation operation = (enum gv_checkpoint_operation)request->operation;
    CUresult result = gv_checkpoint_allowed(state, operation);
    if (result != CUDA_SUCCESS)
        return result;
    bool undone = true;
    switch (operation) {
    case GV_LOCK:
        result = lock_process(request);
        break;
    case GV_CHECKPOINT:
        result = gv_suspend(&undone);
        break;
    case GV_RESTORE:
        result = gv_resume(request->pairs, request->pair_count, &undone);
        break;
    case GV_UNLOCK:
        break;
    }
    __atomic_store_n(&request->state, gv_checkpoint_next(state, operation, result, undone), __ATOMIC_RELEASE);
    if (operation == GV_UNLOCK)
        gv_calls_open(); /* after the state: who calls now finds the process RUNNING */
    return result;
}

static void *service(void *unused)
{
    struct gv_board_checkpoint *request = own();
    (void)unused;
    __atomic_store_n(&request->thread, (uint32_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    for (;;) {
        uint32_t stage = __atomic_load_n(&request->stage, __ATOMIC_ACQUIRE);
        if (stage != GV_STAGE_POSTED) {
            const struct timespec limit = {0, NO_REQUEST_LOOK_NS};
            const bool waiting = stage == GV_STAGE_CLAIMED || stage == GV_STAGE_ANSWERED; /* something comes soon */
            syscall(SYS_futex, &request->stage, FUTEX_WAIT, stage, waiting ? &limit : NULL, NULL, 0);
            continue;
        }
        if (!__atomic_compare_exchange_n(&request->stage, &stage, GV_STAGE_TAKEN, false, __ATOMIC_ACQ_REL,
                                         __ATOMIC_ACQUIRE))
            continue; /* withdrawn */
        request->answer = (uint32_t)perform(request);
        __atomic_store_n(&request->stage, GV_STAGE_ANSWERED, __ATOMIC_RELEASE); /* who sees it sees the answer */
        syscall(SYS_futex, &request->stage, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
    }
    return NULL;
}

bool gv_service_start(void) { return gv_start_thread(service, NULL, "softgpu-service"); }
