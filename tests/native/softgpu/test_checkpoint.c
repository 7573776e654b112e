/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that checkpoints itself again and again while its threads work: no call is lost, no byte is wrong.
 * Also what one thread sees of the gate.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 4, ROUNDS = 25, WORDS = 4096 };

static CUcontext context;
static CUfunction count;
static atomic_int stop, calls;

static void pause_ms(long ms)
{
    const struct timespec time = {0, ms * 1000000};
    nanosleep(&time, NULL);
}

/* Allocates, launches, copies, checks; memory of all kinds. */
static void *work(void *argument)
{
    const uint32_t number = (uint32_t)(uintptr_t)argument;
    CUstream stream;
    CUevent event;
    CUdeviceptr kept;
    uint32_t launched = 0, seen;
    OK(cuCtxSetCurrent(context));
    OK(cuStreamCreate(&stream, number % 2 ? CU_STREAM_NON_BLOCKING : 0));
    OK(cuEventCreate(&event, 0));
    OK(cuMemAlloc(&kept, 4));
    OK(cuMemsetD32Async(kept, 0, 1, stream));
    while (!atomic_load(&stop)) {
        CUdeviceptr memory;
        uint32_t words[WORDS];
        void *arguments[] = {&kept};
        OK(number < 2 ? cuMemAllocAsync(&memory, sizeof words, stream) : cuMemAlloc(&memory, sizeof words));
        OK(cuMemsetD32Async(memory, launched, WORDS, stream));
        OK(cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
        launched++;
        OK(cuEventRecord(event, stream));
        OK(cuMemcpyDtoHAsync(words, memory, sizeof words, stream));
        OK(cuEventSynchronize(event));
        OK(cuStreamSynchronize(stream));
        for (int i = 0; i < WORDS; i++)
            CHECK_EQUAL(words[i], launched - 1);
        OK(cuMemFree(memory));
        atomic_fetch_add(&calls, 1);
    }
    OK(cuMemcpyDtoH(&seen, kept, 4));
    CHECK_EQUAL(seen, launched);
    OK(cuMemFree(kept));
    OK(cuStreamDestroy(stream));
    OK(cuEventDestroy(event));
    return NULL;
}

static void test_rounds_under_work(void)
{
    pthread_t threads[THREADS];
    const int pid = getpid();
    for (uintptr_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, (void *)i) == 0);
    for (int round = 0; round < ROUNDS; round++) {
        CUprocessState state;
        OK(cuCheckpointProcessLock(pid, NULL));
        const int before = atomic_load(&calls);
        pause_ms(2);
        CHECK_EQUAL(atomic_load(&calls), before); /* nobody goes on */
        OK(cuCheckpointProcessCheckpoint(pid, NULL));
        OK(cuCheckpointProcessGetState(pid, &state));
        CHECK_EQUAL(state, CU_PROCESS_STATE_CHECKPOINTED);
        OK(cuCheckpointProcessRestore(pid, NULL));
        OK(cuCheckpointProcessUnlock(pid, NULL));
        pause_ms(3);
    }
    atomic_store(&stop, 1);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    CHECK(atomic_load(&calls) > THREADS);
}

static void *one_call(void *done)
{
    CUcontext current;
    OK(cuCtxGetCurrent(&current));
    atomic_store((atomic_int *)done, 1);
    return NULL;
}

/* A thread that was never seen by the driver before waits at the gate too, and threads that end do not confuse it. */
static void test_new_threads_wait(void)
{
    const int pid = getpid();
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        atomic_int done = 0;
        OK(cuCheckpointProcessLock(pid, NULL));
        CHECK(pthread_create(&thread, NULL, one_call, &done) == 0);
        pause_ms(round == 0 ? 50 : 1);
        CHECK_EQUAL(atomic_load(&done), 0);
        OK(cuCheckpointProcessUnlock(pid, NULL));
        pthread_join(thread, NULL);
        CHECK_EQUAL(atomic_load(&done), 1);
    }
}

int main(void)
{
    CUmodule module;
    use_own_board("64M");
    context = primary_context();
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&count, module, "count"));
    test_new_threads_wait();
    test_rounds_under_work();
    OK(cuDevicePrimaryCtxReset(0));
    return 0;
}
