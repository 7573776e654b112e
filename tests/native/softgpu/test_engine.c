/* SPDX-License-Identifier: Apache-2.0
 *
 * Shares of the engine, counted from the ledger on the board: between processes, and between contexts of one process. Time on
 * the engine is counted, so that a busy machine changes the pace and not the shares.
 */
#include "../../../native/softgpu/board.h"
#include "cuda_check.h"
#include "kernels.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MEASURED_NS 600000000ull /* of engine time */

static struct shared {
    volatile int ready;
} *shared;
static const struct gv_board *board;

/* What a process runs for ever. */
struct load {
    uint64_t block_ns;
    unsigned blocks;
    bool wait; /* for each kernel */
};

static CUfunction spin_kernel(void)
{
    CUmodule module;
    CUfunction function;
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&function, module, "spin"));
    return function;
}

static void run_load(const struct load *load)
{
    primary_context();
    const CUfunction spin = spin_kernel();
    uint64_t time = load->block_ns;
    void *arguments[] = {&time};
    CUevent events[4];
    for (int i = 0; i < 4; i++)
        OK(cuEventCreate(&events[i], 0));
    for (int i = 0;; i++) {
        OK(cuLaunchKernel(spin, load->blocks, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
        if (i == 8)
            __sync_fetch_and_add(&shared->ready, 1);
        if (load->wait) {
            OK(cuCtxSynchronize());
        } else if (i % 16 == 0) { /* some kernels are always queued: at most 64 */
            OK(cuEventSynchronize(events[i / 16 % 4]));
            OK(cuEventRecord(events[i / 16 % 4], NULL));
        }
    }
}

static pid_t start(struct load load)
{
    const pid_t child = fork();
    if (child == 0) {
        run_load(&load);
        _exit(0);
    }
    return child;
}

static void await(int value)
{
    for (int i = 0; i < 20000 && shared->ready < value; i++)
        usleep(1000);
    CHECK(shared->ready >= value);
}

static uint64_t engine_ns(pid_t pid)
{
    for (int i = 0; i < GV_BOARD_PROCESSES; i++)
        if (board->processes[i].pid == (uint32_t)pid)
            return __atomic_load_n(&board->processes[i].accounts[0].engine_ns, __ATOMIC_RELAXED);
    FAIL("process %d is not on the board", (int)pid);
}

static void open_board(void)
{
    const int fd = open(board_path, O_RDONLY);
    CHECK(fd >= 0);
    board = mmap(NULL, sizeof *board, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(board != MAP_FAILED);
    close(fd);
}

/* The share of the first of two loads in percent. */
static double share_of(const char *name, struct load first, struct load second)
{
    shared->ready = 0;
    const pid_t pids[2] = {start(first), start(second)};
    await(2);
    if (board == NULL)
        open_board();
    uint64_t before[2], had[2] = {0, 0};
    for (int i = 0; i < 2; i++)
        before[i] = engine_ns(pids[i]);
    for (int tries = 0; tries < 2000 && had[0] + had[1] < MEASURED_NS; tries++) {
        usleep(10000);
        for (int i = 0; i < 2; i++)
            had[i] = engine_ns(pids[i]) - before[i];
    }
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    CHECK(had[0] + had[1] >= MEASURED_NS);
    const double share = 100.0 * (double)had[0] / (double)(had[0] + had[1]);
    if (getenv("GPUVIRT_TEST_VERBOSE") != NULL)
        printf("%-44s %5.2f %%\n", name, share);
    return share;
}

/* Several attempts: on a machine with much else to do, a process may get no processor to fill its queue. */
enum { ATTEMPTS = 10 };

static void expect_share(const char *name, double low, double high, struct load first, struct load second)
{
    double share = 0;
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        share = share_of(name, first, second);
        if (share >= low && share <= high)
            return;
    }
    FAIL("%s: the first has %.2f %% of the engine, expected %.0f to %.0f", name, share, low, high);
}

/* Two contexts of one process: blocks finished in each. */
static CUdeviceptr counters[2];
static CUcontext contexts[2];
static volatile bool stopping;

static const char counting[] =
    ".version 7.0\n.target sm_80\n.address_size 64\n"
    ".visible .entry spin_and_count(.param .u64 time, .param .u64 to) {\n"
    " .reg .b64 %s, %n, %l, %a; .reg .b32 %v; .reg .pred %p;\n"
    " ld.param.u64 %l, [time]; ld.param.u64 %a, [to]; mov.u64 %s, %globaltimer;\n"
    "again: mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again;\n"
    " atom.global.add.u32 %v, [%a], 1; ret; }\n";

static void *in_context(void *argument)
{
    const int which = (int)(intptr_t)argument;
    CUmodule module;
    CUfunction function;
    uint64_t time = 200000;
    void *arguments[] = {&time, &counters[which]};
    OK(cuCtxSetCurrent(contexts[which]));
    OK(cuModuleLoadData(&module, counting));
    OK(cuModuleGetFunction(&function, module, "spin_and_count"));
    __sync_fetch_and_add(&shared->ready, 1);
    while (!stopping) {
        OK(cuLaunchKernel(function, 200, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
        OK(cuLaunchKernel(function, 200, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
        OK(cuCtxSynchronize());
    }
    return NULL;
}

static void contexts_of_one_process(int argument)
{
    (void)argument;
    pthread_t threads[2];
    uint32_t zero = 0, done[2] = {0, 0};
    OK(cuInit(0));
    for (int i = 0; i < 2; i++) {
        OK(cuCtxCreate(&contexts[i], NULL, 0, 0));
        OK(cuMemAlloc(&counters[i], 4));
        OK(cuMemcpyHtoD(counters[i], &zero, 4));
    }
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&threads[i], NULL, in_context, (void *)(intptr_t)i) == 0);
    await(2);
    for (int tries = 0; tries < 2000 && done[0] + done[1] < 4000; tries++) {
        usleep(10000);
        for (int i = 0; i < 2; i++)
            done[i] = *(volatile uint32_t *)counters[i]; /* device memory is memory here */
    }
    stopping = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    const double share = 100.0 * done[0] / (done[0] + done[1]);
    if (getenv("GPUVIRT_TEST_VERBOSE") != NULL)
        fprintf(stderr, "two contexts of one process: %.2f %% of %u blocks\n", share, done[0] + done[1]);
    if (share < 45 || share > 55)
        FAIL("of two contexts in one process, one ran %.1f %% of the blocks", share);
}

int main(void)
{
    use_own_board("64M");
    setenv("GPUVIRT_SOFTGPU_WORKERS", "1", 1); /* two processes share two cores */
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const struct load many_blocks = {100000, 1000, false}, long_blocks = {5000000, 100, false};
    const struct load short_kernels = {100000, 1, false}, short_with_wait = {100000, 1, true};
    expect_share("equal kernels of many blocks", 48, 52, many_blocks, many_blocks);
    expect_share("equal kernels of one short block, queued", 46, 54, short_kernels, short_kernels);
    expect_share("blocks of 5 ms against blocks of 0.1 ms", 44, 56, long_blocks, many_blocks);
    expect_share("long kernels against short ones, queued", 45, 65, many_blocks, short_kernels);
    expect_share("long kernels against short ones with waits", 88, 99, many_blocks, short_with_wait);
    int status = -1;
    for (int attempt = 0; attempt < ATTEMPTS && status != 0; attempt++) {
        const pid_t child = fork();
        if (child == 0) {
            shared->ready = 0;
            contexts_of_one_process(0);
            _exit(0);
        }
        CHECK(waitpid(child, &status, 0) == child);
    }
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
