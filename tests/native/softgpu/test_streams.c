/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams are asynchronous, ordered as documented, and events tell when.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <pthread.h>
#include <sched.h>

static CUfunction wait_for, store, nothing;
static volatile uint32_t *flags; /* pinned: the host opens gates */

static void launch_wait(CUstream stream, int flag)
{
    CUdeviceptr at = (CUdeviceptr)&flags[flag];
    void *arguments[] = {&at};
    OK(cuLaunchKernel(wait_for, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
}

static void launch_store(CUstream stream, CUdeviceptr to, uint32_t value)
{
    void *arguments[] = {&to, &value};
    OK(cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
}

static void close_gates(void) { memset((void *)flags, 0, 64); }

static void asynchronous(void)
{
    CUstream stream;
    CUevent before, after, never;
    float ms;
    close_gates();
    OK(cuStreamCreate(&stream, CU_STREAM_DEFAULT));
    OK(cuEventCreate(&before, CU_EVENT_DEFAULT));
    OK(cuEventCreate(&after, CU_EVENT_DEFAULT));
    OK(cuEventCreate(&never, CU_EVENT_DISABLE_TIMING));
    OK(cuEventQuery(never)); /* not recorded: complete */
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, before, after));
    OK(cuEventRecord(before, stream));
    launch_wait(stream, 0);
    OK(cuEventRecord(after, stream));
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
    EXPECT(CUDA_ERROR_NOT_READY, cuEventQuery(after));
    OK(cuEventSynchronize(before));
    EXPECT(CUDA_ERROR_NOT_READY, cuEventElapsedTime(&ms, before, after));
    usleep(2000);
    flags[0] = 1;
    OK(cuEventSynchronize(after));
    OK(cuEventElapsedTime(&ms, before, after));
    CHECK(ms >= 2 && ms < 5000);
    OK(cuStreamSynchronize(stream));
    OK(cuEventRecord(never, stream));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, never, after));
    OK(cuStreamDestroy(stream));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuStreamQuery(stream));
    OK(cuEventDestroy(before));
    OK(cuEventDestroy(after));
    OK(cuEventDestroy(never));
}

/* blocking -> legacy -> blocking is ordered; a non-blocking stream passes by. */
static void legacy_order(void)
{
    CUstream one, two, free_stream;
    CUdeviceptr at;
    uint32_t value = 0;
    close_gates();
    OK(cuMemAlloc(&at, 64));
    OK(cuMemsetD8(at, 0, 64));
    OK(cuCtxSynchronize());
    OK(cuStreamCreate(&one, CU_STREAM_DEFAULT));
    OK(cuStreamCreate(&two, CU_STREAM_DEFAULT));
    OK(cuStreamCreate(&free_stream, CU_STREAM_NON_BLOCKING));
    launch_wait(one, 0);
    launch_store(one, at, 1);
    launch_store(NULL, at, 2); /* after `one` */
    launch_store(two, at, 3);  /* after the legacy stream */
    launch_store(free_stream, at + 4, 9);
    OK(cuStreamSynchronize(free_stream));
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(two));
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(NULL));
    flags[0] = 1;
    OK(cuStreamSynchronize(two));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 3);
    close_gates();
    launch_wait(NULL, 1);
    launch_store(one, at, 4);
    usleep(1000);
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(one));
    flags[1] = 1;
    OK(cuStreamSynchronize(one));
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
    OK(cuStreamDestroy(free_stream));
    OK(cuMemFree(at));
}

static void waiting_for_events(void)
{
    CUstream one, two;
    CUevent event;
    close_gates();
    OK(cuStreamCreate(&one, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&two, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    launch_wait(one, 0);
    OK(cuEventRecord(event, one));
    OK(cuStreamWaitEvent(two, event, 0));
    launch_store(two, (CUdeviceptr)&flags[8], 1);
    OK(cuEventDestroy(event)); /* the wait stays */
    usleep(1000);
    CHECK_EQUAL(flags[8], 0);
    flags[0] = 1;
    OK(cuStreamSynchronize(two));
    CHECK_EQUAL(flags[8], 1);
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
}

static pthread_t callback_thread;
static int calls;

static void CUDA_CB host_function(void *data)
{
    callback_thread = pthread_self();
    *(int *)data += 1;
}

static void CUDA_CB callback(CUstream stream, CUresult status, void *data)
{
    (void)stream;
    *(int *)data += status == CUDA_SUCCESS ? 10 : 100;
}

static void host_functions(void)
{
    CUstream stream;
    close_gates();
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    launch_wait(stream, 0);
    OK(cuLaunchHostFunc(stream, host_function, &calls));
    OK(cuStreamAddCallback(stream, callback, &calls, 0));
    CHECK_EQUAL(calls, 0);
    flags[0] = 1;
    OK(cuStreamSynchronize(stream));
    CHECK_EQUAL(calls, 11);
    CHECK(!pthread_equal(callback_thread, pthread_self()));
    OK(cuStreamDestroy(stream));
}

static void *other_thread(void *context)
{
    OK(cuCtxSetCurrent(context));
    launch_store(CU_STREAM_PER_THREAD, (CUdeviceptr)&flags[4], 1);
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD)); /* not held up by the first thread's gate */
    return NULL;
}

static void per_thread_streams(CUcontext context)
{
    pthread_t thread;
    unsigned long long mine, legacy;
    close_gates();
    launch_wait(CU_STREAM_PER_THREAD, 0);
    CHECK(pthread_create(&thread, NULL, other_thread, context) == 0);
    pthread_join(thread, NULL);
    CHECK_EQUAL(flags[4], 1);
    OK(cuStreamGetId(CU_STREAM_PER_THREAD, &mine));
    OK(cuStreamGetId(NULL, &legacy));
    CHECK(mine != legacy);
    flags[0] = 1;
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
}

/* Pageable memory: the source may change after the call, pinned memory must not. */
static void pageable_copies(void)
{
    CUstream stream;
    CUdeviceptr at;
    uint32_t value = 5, back = 0;
    close_gates();
    OK(cuMemAlloc(&at, 4));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    launch_wait(stream, 0);
    OK(cuMemcpyHtoDAsync(at, &value, 4, stream));
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
    value = 6;
    flags[0] = 1;
    OK(cuMemcpyDtoHAsync(&back, at, 4, stream)); /* to pageable memory: done when it returns */
    CHECK_EQUAL(back, 5);
    OK(cuStreamDestroy(stream));
    OK(cuMemFree(at));
}

static void many_streams(void)
{
    enum { STREAMS = 70 };
    CUstream streams[STREAMS];
    close_gates();
    for (int i = 0; i < STREAMS; i++) {
        OK(cuStreamCreate(&streams[i], CU_STREAM_DEFAULT));
        launch_wait(streams[i], 0);
    }
    launch_store(NULL, (CUdeviceptr)&flags[3], 1); /* waits for all of them */
    usleep(1000);
    CHECK_EQUAL(flags[3], 0);
    flags[0] = 1;
    OK(cuCtxSynchronize());
    CHECK_EQUAL(flags[3], 1);
    for (int i = 0; i < STREAMS; i++)
        OK(cuStreamDestroy(streams[i]));
}

/*
 * Work behind a wait for an event has ended, so the event has happened: whatever the thread of its stream is still about. On
 * one core the waking of the waiter interrupts that thread now and then in just the wrong place.
 */
static void seen_by_who_waited(void)
{
    enum { ROUNDS = 4000 };
    cpu_set_t before, one_core;
    CUstream one, two;
    CUevent event;
    CHECK_EQUAL(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one_core);
    CPU_SET(sched_getcpu(), &one_core);
    CHECK_EQUAL(sched_setaffinity(0, sizeof one_core, &one_core), 0); /* the threads of the streams inherit it */
    OK(cuStreamCreate(&one, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&two, CU_STREAM_NON_BLOCKING));
    OK(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING));
    for (int i = 0; i < ROUNDS; i++) {
        OK(cuEventRecord(event, one));
        OK(cuStreamWaitEvent(two, event, 0));
        OK(cuStreamSynchronize(two));
        OK(cuEventQuery(event));
        OK(cuStreamQuery(one));
    }
    OK(cuEventDestroy(event));
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
    CHECK_EQUAL(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    use_own_board("64M");
    CUcontext context = primary_context();
    CUmodule module;
    OK(cuMemHostAlloc((void **)&flags, 4096, 0));
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&wait_for, module, "wait_for"));
    OK(cuModuleGetFunction(&store, module, "store"));
    OK(cuModuleGetFunction(&nothing, module, "nothing"));
    asynchronous();
    legacy_order();
    waiting_for_events();
    host_functions();
    per_thread_streams(context);
    pageable_copies();
    many_streams();
    seen_by_who_waited();
    return 0;
}
