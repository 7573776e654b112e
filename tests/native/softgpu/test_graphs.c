/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs under threads: branches run side by side, launches from several threads follow each other, captures in several threads
 * do not meet, changes while launches run, contexts that fail.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <pthread.h>

enum { THREADS = 4, ROUNDS = 40 };

static CUcontext context;
static CUfunction wait_for, store, count, stop;
static volatile uint32_t *flags; /* pinned: the host opens gates */

static void clear_flags(void) { memset((void *)flags, 0, 4096); }

static CUDA_KERNEL_NODE_PARAMS kernel(CUfunction function, void **arguments)
{
    return (CUDA_KERNEL_NODE_PARAMS){.func = function,
                                     .gridDimX = 1,
                                     .gridDimY = 1,
                                     .gridDimZ = 1,
                                     .blockDimX = 1,
                                     .blockDimY = 1,
                                     .blockDimZ = 1,
                                     .kernelParams = arguments};
}

static CUgraphNode add(CUgraph graph, CUfunction function, int flag, uint32_t value, const CUgraphNode *before,
                       size_t before_count)
{
    CUdeviceptr at = (CUdeviceptr)&flags[flag];
    void *arguments[] = {&at, &value};
    const CUDA_KERNEL_NODE_PARAMS params = kernel(function, arguments);
    CUgraphNode node;
    OK(cuGraphAddKernelNode(&node, graph, before, before_count, &params));
    return node;
}

/* Each branch waits for a word that the next one stores: only all of them at the same time come to an end. */
static void branches(CUstream stream)
{
    enum { BRANCHES = 12 };
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode ends[BRANCHES];
    OK(cuGraphCreate(&graph, 0));
    for (int i = 0; i < BRANCHES; i++) {
        ends[i] = add(graph, wait_for, 1 + i, 0, NULL, 0);
        add(graph, store, 2 + i, 1, &ends[i], 1);
    }
    add(graph, store, 100, 1, ends, BRANCHES);
    OK(cuGraphInstantiate(&exec, graph, 0));
    for (int round = 0; round < 5; round++) {
        clear_flags();
        OK(cuGraphLaunch(exec, stream));
        EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
        flags[1] = 1;
        OK(cuStreamSynchronize(stream));
        CHECK(flags[100] == 1);
    }
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
}

static CUgraphExec shared;
static CUdeviceptr counter;

/* A read, an add and a write without atomics, by `count` of one thread: launches that overlap would lose some. */
static void *launcher(void *unused)
{
    CUstream stream;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    for (int i = 0; i < ROUNDS; i++)
        OK(cuGraphLaunch(shared, stream));
    OK(cuStreamSynchronize(stream));
    OK(cuStreamDestroy(stream));
    return unused;
}

static volatile uint32_t plain;

static void add_plain(void *unused)
{
    (void)unused;
    const uint32_t now = plain;
    usleep(20);
    plain = now + 1;
}

static void one_after_the_other(void)
{
    CUgraph graph;
    CUgraphNode node;
    const CUDA_HOST_NODE_PARAMS host = {.fn = add_plain};
    pthread_t threads[THREADS];
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddHostNode(&node, graph, NULL, 0, &host));
    OK(cuGraphInstantiate(&shared, graph, 0));
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, launcher, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(plain == THREADS * ROUNDS);
    OK(cuGraphExecDestroy(shared));
    OK(cuGraphDestroy(graph));
}

/* Captures, launches, changes, frees: all its own. */
static void *capturer(void *number)
{
    CUstream stream, other;
    CUevent fork, join;
    CUdeviceptr memory, at = counter;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&other, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING));
    OK(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING));
    for (int round = 0; round < ROUNDS / 4; round++) {
        CUgraph graph;
        CUgraphExec exec;
        void *arguments[] = {&at};
        OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
        OK(cuMemAllocAsync(&memory, 1 << 16, stream));
        OK(cuMemsetD8Async(memory, (unsigned char)(uintptr_t)number, 1 << 16, stream));
        OK(cuEventRecord(fork, stream));
        OK(cuStreamWaitEvent(other, fork, 0));
        OK(cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, other, arguments, NULL));
        OK(cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
        OK(cuEventRecord(join, other));
        OK(cuStreamWaitEvent(stream, join, 0));
        OK(cuMemFreeAsync(memory, stream));
        OK(cuStreamEndCapture(stream, &graph));
        OK(cuGraphInstantiate(&exec, graph, 0));
        OK(cuGraphLaunch(exec, stream));
        OK(cuGraphLaunch(exec, other));
        OK(cuGraphExecDestroy(exec)); /* in flight */
        OK(cuGraphDestroy(graph));
        OK(cuStreamSynchronize(stream));
        OK(cuStreamSynchronize(other));
    }
    OK(cuEventDestroy(fork));
    OK(cuEventDestroy(join));
    OK(cuStreamDestroy(stream));
    OK(cuStreamDestroy(other));
    return NULL;
}

static void captures_in_threads(void)
{
    pthread_t threads[THREADS];
    uint32_t total = 0;
    OK(cuMemAlloc(&counter, 64));
    OK(cuMemsetD8(counter, 0, 64));
    OK(cuCtxSynchronize());
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, capturer, (void *)(uintptr_t)(i + 1));
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    OK(cuMemcpyDtoH(&total, counter, 4));
    CHECK(total == THREADS * (ROUNDS / 4) * 4);
    OK(cuMemFree(counter));
}

/* A capture that is never ended goes with its stream, and its graph with it. */
static void abandoned(void)
{
    CUstream stream;
    CUdeviceptr memory;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemAllocAsync(&memory, 4096, stream));
    OK(cuStreamDestroy(stream));
    OK(cuMemAlloc(&memory, 4096)); /* nothing captures any more */
    OK(cuMemFree(memory));
}

/* The nodes after a failure do not run, events are recorded, the launch ends; last, since the context is lost. */
static void failure(CUstream stream)
{
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode nodes[2];
    CUevent event;
    const CUDA_KERNEL_NODE_PARAMS params = kernel(stop, NULL);
    clear_flags();
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    OK(cuGraphCreate(&graph, 0));
    OK(cuGraphAddKernelNode(&nodes[0], graph, NULL, 0, &params));
    nodes[1] = add(graph, store, 2, 1, nodes, 1);
    OK(cuGraphAddEventRecordNode(&nodes[0], graph, &nodes[1], 1, event));
    OK(cuGraphInstantiate(&exec, graph, 0));
    OK(cuGraphLaunch(exec, stream));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    CHECK(flags[2] == 0);
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuEventSynchronize(event));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuGraphLaunch(exec, stream));
    OK(cuDevicePrimaryCtxReset(0)); /* its kernels are gone, and must not run in the new context */
    EXPECT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuGraphLaunch(exec, NULL));
    OK(cuGraphExecDestroy(exec));
    OK(cuGraphDestroy(graph));
}

int main(void)
{
    CUmodule module;
    CUstream stream;
    use_own_board("64M");
    context = primary_context();
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&wait_for, module, "wait_for"));
    OK(cuModuleGetFunction(&store, module, "store"));
    OK(cuModuleGetFunction(&count, module, "count"));
    OK(cuModuleGetFunction(&stop, module, "stop"));
    OK(cuMemHostAlloc((void **)&flags, 4096, 0));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    const size_t free_before = free_bytes();
    branches(stream);
    one_after_the_other();
    captures_in_threads();
    abandoned();
    CHECK_EQUAL(free_bytes(), free_before);
    failure(stream);
    return 0;
}
