/* SPDX-License-Identifier: Apache-2.0
 *
 * Running the blocks of a grid. The stream's thread starts with block 0; when the grid is not done after HELP_AFTER_NS, or if
 * one block took as long in the launch before, it asks the helper threads of the process (one less than there are
 * multiprocessors). All take the next block from one counter, so blocks start in order. A fault or trap stops everybody at the
 * next block.
 *
 * Shared memory and scratch of a block are buffers of the thread that runs it, kept for the next launch.
 */
#include "driver_faults.h"
#include "engine.h"
#include "fault.h"
#include "launch.h"
#include "stale.h"

#include <stdlib.h>
#include <string.h>

enum { HELP_AFTER_NS = 30000, MOST_WORKERS = 256 };

struct job {
    const struct gv_grid *grid;
    const void *context; /* for the engine */
    uint64_t blocks;
    _Atomic uint64_t next;          /* block to take */
    _Atomic int error;              /* CUresult; the first one wins */
    bool listed;                    /* in `jobs`; under `lock` */
    struct gv_workspace *workspace; /* cooperative: all blocks run at the same time, and meet there; else NULL */
    int helpers;                    /* at work on it; under `lock`: the starter waits for 0, the job is on its stack */
    struct job *next_job;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* jobs, helper count */
static struct job *jobs;                                 /* that want help */
static struct gv_gauge calls;                            /* grows with each call for help */
static pthread_cond_t helper_left = PTHREAD_COND_INITIALIZER;
static int helper_threads;

GV_THREAD_LOCAL uint8_t *scratch, *shared;
GV_THREAD_LOCAL uint64_t scratch_bytes, shared_bytes;

static bool grow(uint8_t **buffer, uint64_t *have, uint64_t want, size_t alignment)
{
    if (*have >= want)
        return true;
    free(*buffer);
    *have = 0;
    *buffer = aligned_alloc(alignment, (want + alignment - 1) / alignment * alignment);
    if (*buffer != NULL)
        *have = want;
    return *buffer != NULL;
}

void gv_launch_thread_exit(void)
{
    free(scratch);
    free(shared);
    scratch = shared = NULL;
    scratch_bytes = shared_bytes = 0;
}

static void fail(struct job *job, CUresult error)
{
    int none = CUDA_SUCCESS;
    atomic_compare_exchange_strong(&job->error, &none, (int)error);
    if (job->workspace != NULL) /* those that wait for this block stop */
        __atomic_store_n(&job->workspace->stopped, 1, __ATOMIC_RELAXED);
}

static CUresult result_of(int block_result)
{
    switch (block_result) {
    case GV_BLOCK_DONE:
        return CUDA_SUCCESS;
    case GV_BLOCK_ASSERT:
        return CUDA_ERROR_ASSERT;
    case GV_BLOCK_BAD_CALL:
        return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    default:
        return CUDA_ERROR_LAUNCH_FAILED; /* trap, deadlock */
    }
}

static void call_helpers(struct job *job);

/* Takes blocks until none is left. `start_ns`: 0 for a helper; else help is called when it gets late, if it was not yet. */
static void take_blocks(struct job *job, struct gv_block *block, uint64_t start_ns)
{
    const struct gv_grid *grid = job->grid;
    int (*const run)(const struct gv_block *) = grid->kernel->run;
    bool first = start_ns != 0, may_call = first && !job->listed && gv_driver.workers > 1;
    uint64_t number;
    while ((number = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed)) < job->blocks) {
        block->index.x = (uint32_t)(number % grid->grid.x);
        const uint64_t rest = number / grid->grid.x;
        block->index.y = (uint32_t)(rest % grid->grid.y);
        block->index.z = (uint32_t)(rest / grid->grid.y);
        const int ended = run(block);
        if (ended != GV_BLOCK_DONE)
            fail(job, result_of(ended));
        if (atomic_load_explicit(&job->error, memory_order_relaxed) != CUDA_SUCCESS)
            break;
        const uint64_t spent_ns = first || may_call ? gv_board_now_ns() - start_ns : 0;
        if (first)
            atomic_store_explicit(grid->block_ns, spent_ns, memory_order_relaxed);
        first = false;
        if (may_call && number + 1 < job->blocks && spent_ns > HELP_AFTER_NS) {
            may_call = false;
            call_helpers(job);
        }
        if (job->workspace == NULL && gv_engine_slice_over(grid->device) && atomic_load(&job->next) < job->blocks)
            gv_engine_yield(grid->device, job->context);
    }
}

static void run_here(struct job *job, uint32_t smid, uint64_t start_ns)
{
    const struct gv_grid *grid = job->grid;
    const uint32_t threads = grid->block.x * grid->block.y * grid->block.z;
    if (!grow(&scratch, &scratch_bytes, grid->kernel->scratch_bytes(threads) + 64, 64) ||
        !grow(&shared, &shared_bytes, (uint64_t)grid->kernel->static_shared + grid->dynamic_shared + 64, 1024)) {
        fail(job, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
        return;
    }
    struct gv_block block = {
        .params = grid->params,
        .globals = grid->globals,
        .shared = shared,
        .scratch = scratch,
        .dynamic_shared = grid->dynamic_shared,
        .smid = smid,
        .grid = grid->grid,
        .block = grid->block,
        .vprintf = gv_output_vprintf,
        .assert_fail = gv_output_assert,
        .workspace = job->workspace,
        .allocate = gv_kernel_malloc,
        .release = gv_kernel_free,
        .heap = (void *)job->context,
    };
    struct gv_fault_frame frame;
    if (GV_CATCH_FAULT(&frame, 0, UINTPTR_MAX) == 0) {
        take_blocks(job, &block, start_ns);
        gv_fault_leave(&frame);
    } else {
        gv_log_detail("kernel %s: signal %d at address %p in block (%u, %u, %u)", grid->kernel->name, frame.signal,
                      frame.address, block.index.x, block.index.y, block.index.z);
        fail(job, gv_fault_error(frame.signal));
    }
}

/* Under the lock: a job with blocks left. */
static struct job *job_in_need(void)
{
    struct job *job = jobs;
    while (job != NULL && atomic_load(&job->next) >= job->blocks)
        job = job->next_job;
    return job;
}

static bool is_over(void *job)
{
    struct job *self = job;
    return atomic_load(&self->next) >= self->blocks || atomic_load(&self->error) != CUDA_SUCCESS;
}

static void *helper(void *argument)
{
    const uint32_t smid = (uint32_t)(uintptr_t)argument;
    for (uint64_t seen = 0;;) {
        gv_gauge_wait(&calls, seen + 1);
        seen = atomic_load(&calls.value);
        pthread_mutex_lock(&lock);
        for (struct job *job; (job = job_in_need()) != NULL;) {
            job->helpers++;
            pthread_mutex_unlock(&lock);
            if (gv_engine_help(job->grid->device, job->context, is_over, job)) {
                run_here(job, smid, 0);
                gv_engine_leave(job->grid->device, job->context, false);
            }
            pthread_mutex_lock(&lock);
            if (--job->helpers == 0)
                pthread_cond_broadcast(&helper_left);
        }
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void call_helpers(struct job *job)
{
    pthread_mutex_lock(&lock);
    while (helper_threads < gv_driver.workers - 1 && helper_threads < MOST_WORKERS) {
        if (!gv_start_thread(helper, (void *)(uintptr_t)(helper_threads + 1), "softgpu-worker"))
            break;
        helper_threads++;
    }
    job->listed = true;
    job->next_job = jobs;
    jobs = job;
    pthread_mutex_unlock(&lock);
    gv_gauge_advance(&calls, atomic_load(&calls.value) + 1);
}

static void dismiss_helpers(struct job *job)
{
    pthread_mutex_lock(&lock);
    for (struct job **link = &jobs; *link != NULL; link = &(*link)->next_job)
        if (*link == job) {
            *link = job->next_job;
            break;
        }
    const bool helped = job->helpers > 0;
    pthread_mutex_unlock(&lock);
    if (!helped)
        return;
    gv_engine_poke(job->grid->device); /* those that still wait for the context's turn */
    pthread_mutex_lock(&lock);
    while (job->helpers > 0)
        pthread_cond_wait(&helper_left, &lock);
    pthread_mutex_unlock(&lock);
}

/* Cooperative: a thread for each block, so that blocks may wait for each other. */
static void *one_block(void *argument)
{
    struct job *job = argument;
    run_here(job, 0, 0);
    gv_engine_leave(job->grid->device, job->context, false);
    gv_launch_thread_exit();
    pthread_mutex_lock(&lock);
    if (--job->helpers == 0)
        pthread_cond_broadcast(&helper_left);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void start_all(struct job *job)
{
    for (uint64_t i = 1; i < job->blocks; i++) {
        pthread_mutex_lock(&lock);
        job->helpers++;
        pthread_mutex_unlock(&lock);
        gv_engine_join(job->grid->device, job->context); /* all are inside before any may stop for another's turn */
        if (!gv_start_thread(one_block, job, "softgpu-block")) {
            gv_engine_leave(job->grid->device, job->context, false);
            fail(job, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
            pthread_mutex_lock(&lock);
            job->helpers--;
            pthread_mutex_unlock(&lock);
        }
    }
}

CUresult gv_grid_run(const struct gv_grid *grid, bool together)
{
    struct gv_workspace workspace = {.bytes = sizeof workspace};
    struct job job = {.grid = grid,
                      .context = grid->stream != NULL ? grid->stream->context : NULL,
                      .blocks = (uint64_t)grid->grid.x * grid->grid.y * grid->grid.z};
    job.workspace = together ? &workspace : NULL;
    gv_stale_settle();
    gv_engine_enter(grid->device, job.context);
    const CUresult injected = __builtin_expect(gv_armed() != 0, 0)
                                  ? gv_inject_kernel(grid->kernel->name, grid->device, job.context)
                                  : CUDA_SUCCESS;
    if (injected != CUDA_SUCCESS) {
        gv_engine_leave(grid->device, job.context, false);
        return injected;
    }
    if (together)
        start_all(&job);
    const uint64_t start_ns = together || job.blocks == 1 ? 0 : gv_board_now_ns();
    if (start_ns != 0 && gv_driver.workers > 1 &&
        atomic_load_explicit(grid->block_ns, memory_order_relaxed) > HELP_AFTER_NS)
        call_helpers(&job);
    run_here(&job, 0, start_ns);
    /* Our part of the turn ends before the helpers', so that they can hand the engine over. */
    const bool more =
        grid->stream != NULL && atomic_load(&job.error) == CUDA_SUCCESS && gv_launch_follows(grid->stream);
    gv_engine_leave(grid->device, job.context, more);
    if (job.listed || together)
        dismiss_helpers(&job);
    struct gv_board_account *account = gv_board_account(grid->device);
    __atomic_fetch_add(&account->kernels, 1, __ATOMIC_RELAXED);
    return (CUresult)atomic_load(&job.error);
}
