/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_pacing SHIM DRIVER. A kernel waits for a flag, and a thread gives its stream more behind that: with a window it is
 * held up after two marks, and goes on when the kernel ends; a revocation meanwhile finds it at the gate. Without a window, alone,
 * or in a capture, nothing holds it up and nothing is added. If the kernel does not end for long, the thread goes on as well: it
 * may be this thread that is waited for. A large copy goes in pieces with a window, and at once without.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "../check.h"
#include "../softgpu/kernels.h"
#include "peer.h"

enum { LAUNCHES = 100, WINDOW_US = 2000, FIRST = 8 };
enum way { OWN_STREAM, LEGACY, PER_THREAD, GRAPHS, WAYS };

static void *shim;
static CUcontext context;
static CUfunction wait_for, count;
static CUdeviceptr flag, counter;
static volatile uint32_t *host; /* [0] the flag, [16] the counter */
static CUgraphExec graph;
static CUstream stream;
static atomic_int given; /* calls that have returned */
static atomic_int turn;

static void *symbol(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))
#define OK(call) CHECK_EQUAL(call, CUDA_SUCCESS)

static void launch(enum way way, CUfunction function, CUdeviceptr *address)
{
    void *arguments[] = {address};
    if (way == PER_THREAD)
        OK(SHIM(cuLaunchKernel_ptsz)(function, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    else
        OK(SHIM(cuLaunchKernel)(function, 1, 1, 1, 1, 1, 1, 0, way == LEGACY ? NULL : stream, arguments, NULL));
    atomic_fetch_add(&given, 1);
}

static void *give(void *argument)
{
    const enum way way = (enum way)(intptr_t)argument;
    OK(SHIM(cuCtxSetCurrent)(context));
    launch(way, wait_for, &flag);
    for (int i = 0; i < LAUNCHES; i++) {
        if (way == GRAPHS) {
            OK(SHIM(cuGraphLaunch)(graph, stream));
            atomic_fetch_add(&given, 1);
        } else {
            launch(way, count, &counter);
        }
    }
    return NULL;
}

static pthread_t begin(enum way way)
{
    pthread_t thread;
    host[0] = host[16] = 0;
    given = 0;
    CHECK_EQUAL(pthread_create(&thread, NULL, give, (void *)(intptr_t)way), 0);
    return thread;
}

static void pause_ms(long milliseconds) { nanosleep(&(struct timespec){0, milliseconds * 1000000}, NULL); }

static void until_given(int number)
{
    for (int tries = 0; given < number; tries++) {
        pause_ms(1);
        CHECK(tries < 20000);
    }
}

/* The thread ends, and all that it gave is done. */
static void end(pthread_t thread)
{
    host[0] = 1;
    CHECK_EQUAL(pthread_join(thread, NULL), 0);
    OK(SHIM(cuCtxSynchronize)());
    CHECK_EQUAL(given, LAUNCHES + 1);
    CHECK_EQUAL(host[16], LAUNCHES);
}

/* It is held up after so many; 0 when this machine was too slow to tell: then it goes on by itself (test_stalled). */
static int held_up_at(int number)
{
    const uint64_t began = gv_now_ns();
    until_given(number);
    pause_ms(30);
    const int seen = given;
    if (gv_now_ns() - began > 500000000)
        return 0;
    CHECK_EQUAL(seen, number);
    return 1;
}

static void test_bounded(enum way way)
{
    peer_grant(GV_LEASE_GRANTED);
    const pthread_t thread = begin(way);
    held_up_at(way == GRAPHS ? 3 : 2 * FIRST); /* a graph of which nothing is known makes up half of the window */
    end(thread);
    peer_revoke();
}

static void test_revoked_meanwhile(void)
{
    peer_grant(GV_LEASE_GRANTED);
    const pthread_t thread = begin(OWN_STREAM);
    const int held_up = held_up_at(2 * FIRST);
    peer_drain();
    host[0] = 1;
    peer_close(); /* who waits for a mark is not in a launch, and finds the gate closed */
    const int before = given;
    CHECK(!held_up || before == 2 * FIRST);
    pause_ms(10);
    CHECK_EQUAL(given, before);
    peer_grant(GV_LEASE_GRANTED);
    end(thread);
    peer_revoke();
}

static void *give_in_two_turns(void *unused)
{
    (void)unused;
    OK(SHIM(cuCtxSetCurrent)(context));
    launch(OWN_STREAM, wait_for, &flag);
    for (int i = 1; i < 2 * FIRST; i++)
        launch(OWN_STREAM, count, &counter);
    while (turn < 2)
        pause_ms(1);
    return give((void *)(intptr_t)OWN_STREAM);
}

/* The marks of a turn that is over say nothing about how long work takes: as many launches are let through as in the first. */
static void test_new_turn(void)
{
    pthread_t thread;
    host[0] = host[16] = 0;
    given = 0;
    turn = 1;
    peer_grant(GV_LEASE_GRANTED);
    CHECK_EQUAL(pthread_create(&thread, NULL, give_in_two_turns, NULL), 0);
    until_given(2 * FIRST);
    host[0] = 1;
    peer_revoke();
    CHECK_EQUAL(host[16], 2 * FIRST - 1);
    host[0] = host[16] = 0;
    given = 0;
    peer_grant(GV_LEASE_GRANTED);
    turn = 2;
    held_up_at(2 * FIRST);
    end(thread);
    peer_revoke();
}

static void test_unbounded(uint32_t state, uint32_t window_us)
{
    peer_window(window_us);
    peer_grant(state);
    const pthread_t thread = begin(OWN_STREAM);
    until_given(LAUNCHES + 1); /* and the kernel still waits */
    end(thread);
    peer_revoke();
    peer_window(WINDOW_US);
}

static void test_stalled(void)
{
    const uint64_t began = gv_now_ns();
    peer_grant(GV_LEASE_GRANTED);
    const pthread_t thread = begin(OWN_STREAM);
    until_given(LAUNCHES + 1);
    CHECK(gv_now_ns() - began > 500000000); /* not without patience */
    end(thread);
    peer_revoke();
}

static void test_capture(void)
{
    CUgraph captured;
    size_t nodes = 0;
    peer_grant(GV_LEASE_GRANTED);
    OK(SHIM(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    for (int i = 0; i < 4 * FIRST; i++)
        launch(OWN_STREAM, count, &counter);
    OK(SHIM(cuStreamEndCapture)(stream, &captured));
    OK(SHIM(cuGraphGetNodes)(captured, NULL, &nodes));
    CHECK_EQUAL(nodes, 4 * FIRST);
    OK(SHIM(cuGraphInstantiateWithFlags)(&graph, captured, 0));
    OK(SHIM(cuGraphDestroy)(captured));
    peer_revoke();
}

/* One node: LAUNCHES launches of it count to LAUNCHES. */
static void make_graph(void)
{
    CUgraph one;
    peer_grant(GV_LEASE_GRANTED);
    OK(SHIM(cuGraphExecDestroy)(graph));
    OK(SHIM(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    launch(OWN_STREAM, count, &counter);
    OK(SHIM(cuStreamEndCapture)(stream, &one));
    OK(SHIM(cuGraphInstantiateWithFlags)(&graph, one, 0));
    OK(SHIM(cuGraphDestroy)(one));
    peer_revoke();
}

/* The events of a context go with it, also while a thread has a record of its stream. */
static void test_context_ends(void)
{
    peer_grant(GV_LEASE_GRANTED);
    for (int round = 0; round < 3; round++) {
        CUcontext other;
        CUdeviceptr words;
        OK(SHIM(cuCtxCreate_v2)(&other, 0, 0));
        OK(SHIM(cuMemAlloc_v2)(&words, 4096));
        for (int i = 0; i < 4 * FIRST; i++)
            OK(SHIM(cuMemsetD32Async)(words, 1, 16, NULL));
        OK(SHIM(cuCtxDestroy_v2)(other));
        OK(SHIM(cuCtxSetCurrent)(context));
        for (int i = 0; i < 4 * FIRST; i++)
            launch(LEGACY, count, &counter);
    }
    OK(SHIM(cuCtxSynchronize)());
    peer_revoke();
}

/* Calls that a copy there and back made of itself. */
static uint64_t copied_in(uint32_t window_us, CUdeviceptr words, uint8_t *there, uint8_t *back, size_t bytes)
{
    peer_window(window_us);
    peer_grant(GV_LEASE_GRANTED);
    OK(SHIM(cuCtxSynchronize)());
    const uint64_t before = gv_load64(&peer_client()->submitted);
    for (size_t i = 0; i < bytes; i++)
        there[i] = (uint8_t)(i * 2654435761u >> 13) + (uint8_t)window_us;
    memset(back, 0, bytes);
    OK(SHIM(cuMemcpyHtoD_v2)(words, there, bytes));
    OK(SHIM(cuMemcpyDtoHAsync_v2)(back, words, bytes, stream));
    OK(SHIM(cuCtxSynchronize)());
    CHECK(memcmp(there, back, bytes) == 0);
    CHECK_EQUAL(SHIM(cuMemcpyHtoD_v2)(words, there, bytes + 4096), CUDA_ERROR_INVALID_VALUE);
    const uint64_t calls = gv_load64(&peer_client()->submitted) - before;
    peer_revoke();
    peer_window(WINDOW_US);
    return calls;
}

static void test_copies(void)
{
    const size_t bytes = (32 << 20) + 4096;
    uint8_t *const there = malloc(bytes + 4096), *const back = malloc(bytes);
    CUdeviceptr words;
    CHECK(there != NULL && back != NULL);
    OK(SHIM(cuMemAlloc_v2)(&words, bytes));
    CHECK_EQUAL(copied_in(0, words, there, back, bytes), 2);
    CHECK_EQUAL(copied_in(WINDOW_US, words, there, back, bytes), 4);
    free(there);
    free(back);
}

int main(int argc, char **argv)
{
    CHECK_EQUAL(argc, 3);
    char board[64];
    snprintf(board, sizeof board, "/dev/shm/gpuvirt-test-%d", (int)getpid());
    setenv("GPUVIRT_SOFTGPU_BOARD", board, 1);
    setenv("GPUVIRT_SOFTGPU_MEMORY", "64M", 1);
    peer_start();
    setenv("GPUVIRT_DRIVER", argv[2], 1);
    shim = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    CHECK(shim != NULL);
    CUmodule module;
    OK(SHIM(cuInit)(0));
    OK(SHIM(cuDevicePrimaryCtxRetain)(&context, 0));
    OK(SHIM(cuCtxSetCurrent)(context));
    unlink(board);
    peer_window(WINDOW_US);
    peer_grant(GV_LEASE_OPEN);
    OK(SHIM(cuModuleLoadData)(&module, kernels));
    OK(SHIM(cuModuleGetFunction)(&wait_for, module, "wait_for"));
    OK(SHIM(cuModuleGetFunction)(&count, module, "count"));
    OK(SHIM(cuMemHostAlloc)((void **)&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    OK(SHIM(cuMemHostGetDevicePointer_v2)(&flag, (void *)host, 0));
    counter = flag + 16 * sizeof host[0];
    OK(SHIM(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
    host[0] = 1;
    launch(OWN_STREAM, wait_for, &flag); /* both are compiled now */
    launch(OWN_STREAM, count, &counter);
    OK(SHIM(cuCtxSynchronize)());
    peer_revoke();

    test_unbounded(GV_LEASE_OPEN, WINDOW_US);
    test_unbounded(GV_LEASE_GRANTED, 0);
    test_capture();
    make_graph();
    for (int round = 0; round < 2; round++) /* what the first one has learned of the graph goes to the second */
        for (enum way way = 0; way < (round ? GRAPHS : WAYS); way++)
            test_bounded(way);
    test_revoked_meanwhile();
    test_new_turn();
    test_stalled();
    test_context_ends();
    test_copies();
    return 0;
}
