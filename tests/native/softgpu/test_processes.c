/* SPDX-License-Identifier: Apache-2.0
 *
 * Several processes on one device: memory, engine, death, stop, fork, import of memory.
 */
#include "../../../native/softgpu/board.h"
#include "cuda_check.h"
#include "kernels.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define MB (1ull << 20)
static struct shared {
    volatile int ready, go, done;
} *shared;

/* A process of its own: starts before any CUDA call of the parent. */
static pid_t spawn(void (*act)(int), int argument)
{
    const pid_t child = fork();
    if (child == 0) {
        act(argument);
        _exit(0);
    }
    return child;
}

static void await(volatile int *flag, int value)
{
    for (int i = 0; i < 20000 && *flag < value; i++)
        usleep(1000);
    CHECK(*flag >= value);
}

static void expect_exit(pid_t child)
{
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static CUfunction kernel(const char *name)
{
    CUmodule module;
    CUfunction function;
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static void hold_40_mb(int argument)
{
    (void)argument;
    CUdeviceptr at;
    primary_context();
    OK(cuMemAlloc(&at, 40 * MB));
    __sync_fetch_and_add(&shared->ready, 1);
    for (;;)
        pause();
}

static void memory_of_the_dead(int argument)
{
    (void)argument;
    CUdeviceptr at;
    primary_context();
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&at, 40 * MB));
    CHECK_EQUAL(free_bytes(), 24 * MB);
    shared->go = 1;
    await(&shared->done, 1);
    OK(cuMemAlloc(&at, 40 * MB));
}

/* One kernel of many blocks: is pre-empted between blocks. */
static void long_kernel(int which)
{
    (void)which;
    primary_context();
    CUfunction spin = kernel("spin");
    uint64_t time = 1000000;
    void *arguments[] = {&time};
    OK(cuLaunchKernel(spin, 100000, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    __sync_fetch_and_add(&shared->ready, 1);
    OK(cuCtxSynchronize());
}

static void short_kernel(int argument)
{
    primary_context();
    CUfunction spin = kernel("spin");
    uint64_t time = 1000;
    void *arguments[] = {&time};
    __sync_fetch_and_add(&shared->ready, 1);
    await(&shared->go, 1);
    const uint64_t start = now_ns();
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    OK(cuCtxSynchronize());
    const double ms = (double)(now_ns() - start) / 1e6;
    if (ms > argument)
        FAIL("got the engine after %.1f ms, allowed %d", ms, argument);
}

static void reset_shared(void) { memset(shared, 0, sizeof *shared); }

static void memory_between_processes(void)
{
    reset_shared();
    const pid_t holder = spawn(hold_40_mb, 0);
    await(&shared->ready, 1);
    const pid_t other = spawn(memory_of_the_dead, 0);
    await(&shared->go, 1);
    kill(holder, SIGKILL);
    waitpid(holder, NULL, 0);
    shared->done = 1;
    expect_exit(other);
}

static const struct gv_board *look_at_board(void)
{
    const int fd = open(board_path, O_RDONLY);
    CHECK(fd >= 0);
    const struct gv_board *board = mmap(NULL, sizeof *board, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(board != MAP_FAILED);
    close(fd);
    return board;
}

static uint64_t engine_ns(const struct gv_board *board, pid_t pid)
{
    for (int i = 0; i < GV_BOARD_PROCESSES; i++)
        if (board->processes[i].pid == (uint32_t)pid)
            return board->processes[i].accounts[0].engine_ns;
    FAIL("process %d is not on the board", (int)pid);
}

/* Two long kernels: the ledger says that each had the engine half of the time. */
static void equal_shares(void)
{
    reset_shared();
    const pid_t pids[2] = {spawn(long_kernel, 0), spawn(long_kernel, 0)};
    await(&shared->ready, 2);
    usleep(20000);
    const struct gv_board *board = look_at_board();
    uint64_t had[2];
    for (int i = 0; i < 2; i++)
        had[i] = engine_ns(board, pids[i]);
    usleep(500000);
    for (int i = 0; i < 2; i++)
        had[i] = engine_ns(board, pids[i]) - had[i];
    for (int i = 0; i < 2; i++) {
        kill(pids[i], SIGKILL);
        waitpid(pids[i], NULL, 0);
    }
    munmap((void *)board, sizeof *board);
    const double total = (double)(had[0] + had[1]), share = (double)had[0] / total;
    if (getenv("GPUVIRT_TEST_VERBOSE") != NULL)
        printf("engine: %.1f %% of 500 ms, %.2f %% of that by one of two\n", total / 5e6, share * 100);
    if (total < 100e6 || share < 0.25 || share > 0.75) /* wide: other tests may use the processors meanwhile */
        FAIL("the engine was used for %.0f ms of 500, %.0f %% of it by one of two", total / 1e6, share * 100);
}

/* The owner of the engine runs, is stopped, or is killed: the other gets it. */
static void engine_from(int signal, int allowed_ms)
{
    reset_shared();
    const pid_t other = spawn(short_kernel, allowed_ms);
    await(&shared->ready, 1);
    const pid_t owner = spawn(long_kernel, 0);
    await(&shared->ready, 2);
    usleep(5000);
    if (signal != 0)
        kill(owner, signal);
    if (signal == SIGKILL)
        waitpid(owner, NULL, 0);
    shared->go = 1;
    expect_exit(other);
    if (signal != SIGKILL) {
        kill(owner, SIGKILL);
        waitpid(owner, NULL, 0);
    }
}

static void fork_after_init(int argument)
{
    (void)argument;
    CUdeviceptr at;
    primary_context();
    OK(cuMemAlloc(&at, 1 * MB));
    const pid_t child = fork();
    if (child == 0) {
        CUdevice device;
        EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc(&at, 4));
        EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGet(&device, 0));
        EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuInit(0));
        EXPECT(CUDA_ERROR_NOT_INITIALIZED, cuCtxSynchronize());
        _exit(0);
    }
    expect_exit(child);
    OK(cuMemcpyDtoH(&(char){0}, at, 1)); /* the parent goes on */
    OK(cuMemFree(at));
}

static void importer(int socket)
{
    char byte, control[CMSG_SPACE(sizeof(int))];
    struct iovec io = {&byte, 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CHECK(recvmsg(socket, &message, 0) == 1);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr area;
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    uint32_t value;
    primary_context();
    OK(cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    OK(cuMemAddressReserve(&area, 2 * MB, 0, 0, 0));
    OK(cuMemMap(area, 2 * MB, 0, handle, 0));
    OK(cuMemSetAccess(area, 2 * MB, &access, 1));
    CHECK_EQUAL(free_bytes(), 62 * MB); /* charged once */
    shared->ready = 1;
    await(&shared->go, 1); /* the exporter has gone */
    OK(cuMemcpyDtoH(&value, area, 4));
    CHECK_EQUAL(value, 4711);
    CHECK_EQUAL(free_bytes(), 62 * MB);
    OK(cuMemUnmap(area, 2 * MB));
    OK(cuMemRelease(handle));
    usleep(30000); /* the dead exporter is noticed within 20 ms */
    CHECK_EQUAL(free_bytes(), 64 * MB);
}

static void exporter(int socket)
{
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = device_memory(0);
    CUdeviceptr area;
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    uint32_t value = 4711;
    int fd;
    primary_context();
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    OK(cuMemCreate(&handle, 2 * MB, &prop, 0));
    OK(cuMemAddressReserve(&area, 2 * MB, 0, 0, 0));
    OK(cuMemMap(area, 2 * MB, 0, handle, 0));
    OK(cuMemSetAccess(area, 2 * MB, &access, 1));
    OK(cuMemcpyHtoD(area, &value, 4));
    OK(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    char byte = 0, control[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec io = {&byte, 1};
    struct msghdr message = {.msg_iov = &io, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    CHECK(sendmsg(socket, &message, 0) == 1);
    await(&shared->ready, 1);
}

static void memory_by_descriptor(void)
{
    int sockets[2];
    reset_shared();
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sockets) == 0);
    const pid_t to = spawn(importer, sockets[0]), from = spawn(exporter, sockets[1]);
    expect_exit(from);
    shared->go = 1;
    expect_exit(to);
    close(sockets[0]);
    close(sockets[1]);
}

int main(void)
{
    use_own_board("64M");
    setenv("GPUVIRT_SOFTGPU_WORKERS", "1", 1); /* two processes share two cores */
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    memory_between_processes();
    equal_shares();
    engine_from(0, 500); /* pre-empted between blocks: some slices of 2 ms */
    engine_from(SIGSTOP, 500);
    engine_from(SIGKILL, 500);
    expect_exit(spawn(fork_after_init, 0));
    memory_by_descriptor();
    return 0;
}
