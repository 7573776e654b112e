/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_revocations SHIM DRIVER [COUNT [forbidden]]. Threads launch, copy, set, write values and launch graphs on streams of their
 * own and on the default streams, through plain and per-thread entry points, while the lease is taken away COUNT times (10,000)
 * at moments that have nothing to do with what they do. The soft driver asks before it takes a piece of work and before it
 * runs it: never after the job has said that it has drained, never before the next grant. `forbidden`: in a sandbox that refuses
 * membarrier.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

#include "../check.h"
#include "../softgpu/kernels.h"
#include "peer.h"

enum { THREADS = 4, KINDS = 9, AHEAD = 6, BYTES = 4096 };

static void *shim;
static CUcontext context;
static CUfunction store;
static atomic_int ends, escapes_given, escapes_run;
static _Atomic uint64_t calls[KINDS];
static __thread int of_the_program;

static void *symbol(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}

#define EACH(name) static __typeof__(&name) p_##name;
#define FUNCTIONS(F)                                                                                                   \
    F(cuCtxSetCurrent)                                                                                                 \
    F(cuStreamCreate)                                                                                                  \
    F(cuStreamSynchronize)                                                                                             \
    F(cuStreamSynchronize_ptsz)                                                                                        \
    F(cuLaunchKernel)                                                                                                  \
    F(cuLaunchKernel_ptsz)                                                                                             \
    F(cuLaunchKernelEx)                                                                                                \
    F(cuMemcpyDtoDAsync_v2)                                                                                            \
    F(cuMemcpyHtoD_v2)                                                                                                 \
    F(cuMemcpyDtoH_v2_ptds)                                                                                            \
    F(cuMemsetD32Async)                                                                                                \
    F(cuStreamWriteValue32_v2)                                                                                         \
    F(cuGraphLaunch)
FUNCTIONS(EACH)
#undef EACH

#define OK(call)                                                                                                       \
    do {                                                                                                               \
        const CUresult result_ = (call);                                                                               \
        if (result_ != CUDA_SUCCESS)                                                                                   \
            fprintf(stderr, "%s: CUDA error %d\n", #call, (int)result_);                                               \
        CHECK_EQUAL(result_, CUDA_SUCCESS);                                                                            \
    } while (0)
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))

/* Called by the soft driver; the shim's own copies are made by a thread that is not of the program. */
static int may(int stage)
{
    if (stage == 0 && of_the_program && !peer_allows())
        escapes_given++;
    if (stage == 1 && !peer_allows())
        escapes_run++;
    return 1;
}

static CUgraphExec make_graph(CUdeviceptr words)
{
    CUgraph graph;
    CUgraphNode node;
    CUgraphExec executable;
    CUDA_MEMSET_NODE_PARAMS fill = {.dst = words, .value = 7, .elementSize = 4, .width = 16, .height = 1};
    OK(SHIM(cuGraphCreate)(&graph, 0));
    OK(SHIM(cuGraphAddMemsetNode)(&node, graph, NULL, 0, &fill, context));
    OK(SHIM(cuGraphInstantiateWithFlags)(&executable, graph, 0));
    return executable;
}

static void *work(void *argument)
{
    const uint32_t number = (uint32_t)(uintptr_t)argument;
    uint64_t random = number * 77777 + 1;
    uint32_t host[16] = {0};
    CUdeviceptr words, others;
    CUstream stream;
    of_the_program = 1;
    OK(p_cuCtxSetCurrent(context));
    OK(SHIM(cuMemAlloc_v2)(&words, BYTES));
    OK(SHIM(cuMemAlloc_v2)(&others, BYTES));
    OK(p_cuStreamCreate(&stream, number % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
    const CUgraphExec graph = make_graph(others);
    uint32_t value = number;
    void *arguments[] = {&words, &value};
    for (int ahead = 0; !atomic_load_explicit(&ends, memory_order_relaxed); ahead++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        const int kind = (int)((random >> 33) % KINDS);
        atomic_fetch_add_explicit(&calls[kind], 1, memory_order_relaxed);
        switch (kind) {
        case 0:
            OK(p_cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
            break;
        case 1:
            OK(p_cuLaunchKernel_ptsz(store, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
            break;
        case 2:
            OK(p_cuLaunchKernelEx(&(CUlaunchConfig){.gridDimX = 1,
                                                    .gridDimY = 1,
                                                    .gridDimZ = 1,
                                                    .blockDimX = 1,
                                                    .blockDimY = 1,
                                                    .blockDimZ = 1,
                                                    .hStream = stream},
                                  store, arguments, NULL));
            break;
        case 3:
            OK(p_cuMemcpyDtoDAsync_v2(others, words, 64, stream));
            break;
        case 4:
            OK(p_cuMemcpyHtoD_v2(words, host, sizeof host));
            break;
        case 5:
            OK(p_cuMemcpyDtoH_v2_ptds(host, words, sizeof host));
            break;
        case 6:
            OK(p_cuMemsetD32Async(words, number, 16, stream));
            break;
        case 7:
            OK(p_cuStreamWriteValue32_v2(stream, words, number, 0));
            break;
        default:
            OK(p_cuGraphLaunch(graph, stream));
        }
        if (ahead % AHEAD == 0) /* bounds what a drain has to wait for */
            OK(p_cuStreamSynchronize(stream));
    }
    OK(p_cuStreamSynchronize(stream));
    OK(p_cuStreamSynchronize_ptsz(NULL));
    return NULL;
}

static void forbid_membarrier(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};
    CHECK_EQUAL(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
    CHECK_EQUAL(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
    CHECK(syscall(SYS_membarrier, 0, 0, 0) == -1);
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3 && argc <= 5);
    const int count = argc >= 4 ? atoi(argv[3]) : 10000;
    if (argc == 5)
        forbid_membarrier();
    char board[64];
    snprintf(board, sizeof board, "/dev/shm/gpuvirt-test-%d", (int)getpid());
    setenv("GPUVIRT_SOFTGPU_BOARD", board, 1);
    setenv("GPUVIRT_SOFTGPU_MEMORY", "64M", 1);
    setenv("GPUVIRT_SOFTGPU_WORKERS", "1", 1);
    peer_start();
    setenv("GPUVIRT_DRIVER", argv[2], 1);
    shim = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    CHECK(shim != NULL);
#define EACH(name) p_##name = SHIM(name);
    FUNCTIONS(EACH)
#undef EACH
    CUmodule module;
    OK(SHIM(cuInit)(0));
    OK(SHIM(cuDevicePrimaryCtxRetain)(&context, 0));
    OK(p_cuCtxSetCurrent(context));
    OK(SHIM(cuModuleLoadData)(&module, kernels));
    OK(SHIM(cuModuleGetFunction)(&store, module, "store"));
    unlink(board); /* it lives as long as somebody has it open */
    ((void (*)(int (*)(int)))symbol(dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD), "gvSoftWatch"))(may);

    peer_grant(GV_LEASE_GRANTED);
    pthread_t threads[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_create(&threads[i], NULL, work, (void *)i), 0);
    uint32_t random = 1;
    for (int i = 0; i < count; i++) {
        random = random * 1664525u + 1013904223u;
        const uint64_t until = gv_now_ns() + (random >> 16) % 64 * 1000; /* at any instruction of theirs */
        while (gv_now_ns() < until)
            ;
        peer_revoke();
        peer_window(i % 3 == 0 ? 200 : 0);
        peer_grant(i % 2 ? GV_LEASE_GRANTED : GV_LEASE_OPEN);
    }
    ends = 1;
    for (int i = 0; i < THREADS; i++)
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    ((void (*)(int (*)(int)))symbol(dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD), "gvSoftWatch"))(NULL);

    uint64_t all = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        all += calls[kind];
        CHECK(calls[kind] > (uint64_t)count / 100); /* every kind raced */
    }
    printf("%d revocations against %llu calls of %d threads: %d given, %d run without the lease\n", count,
           (unsigned long long)all, THREADS, escapes_given, escapes_run);
    CHECK_EQUAL(escapes_given, 0);
    CHECK_EQUAL(escapes_run, 0);
    fflush(stdout);
    _Exit(0);
}
