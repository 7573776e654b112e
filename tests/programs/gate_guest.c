/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What may happen to a thread that waits at the gate, while another job has the GPU: a handler jumps out of the call, or it is
 * cancelled. gate_guest jump|cancel says what the calls after it give.
 */
#include <cuda.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static CUcontext context;
static CUdeviceptr memory;
static sigjmp_buf back;
static volatile int inside, jumped;

static void handler(int number)
{
    (void)number;
    if (inside)
        siglongjmp(back, 1);
}

static void *submits(void *cancelled)
{
    cuCtxSetCurrent(context);
    if (sigsetjmp(back, 1) != 0) {
        inside = 0;
        jumped = 1;
        return NULL;
    }
    inside = 1;
    cuMemsetD8(memory, 1, 4096);
    inside = 0;
    if (cancelled != NULL)
        pthread_testcancel();
    return NULL;
}

int main(int count, char **arguments)
{
    const int cancel = count > 1 && strcmp(arguments[1], "cancel") == 0;
    CUdevice device;
    pthread_t thread;
    signal(SIGUSR1, handler);
    if (cuInit(0) != CUDA_SUCCESS || cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&context, device) != CUDA_SUCCESS || cuCtxSetCurrent(context) != CUDA_SUCCESS ||
        cuMemAlloc(&memory, 4096) != CUDA_SUCCESS || cuMemsetD8(memory, 0, 4096) != CUDA_SUCCESS ||
        cuCtxSynchronize() != CUDA_SUCCESS)
        return 1;
    printf("ready\n");
    fflush(stdout);
    for (int turn = 0; turn < (cancel ? 2 : 4); turn++) {
        if (pthread_create(&thread, NULL, submits, cancel ? &context : NULL) != 0)
            return 2;
        usleep(40000); /* long after the few instructions on the way to the gate */
        if (cancel)
            pthread_cancel(thread);
        else
            pthread_kill(thread, SIGUSR1);
        pthread_join(thread, NULL);
    }
    const CUresult result = cuMemsetD8(memory, 2, 4096);
    const CUresult finished = cuCtxSynchronize();
    printf("jumped %d memset %d synchronize %d\n", jumped, (int)result, (int)finished);
    return result != CUDA_SUCCESS || finished != CUDA_SUCCESS;
}
