/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_idle SHIM DRIVER. The client page says IDLE when all that was given has been proven finished, by whichever call the
 * program learns it, and never while something is at work; calls that only look at addresses change nothing.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>

#include "../check.h"
#include "peer.h"

static void *shim;
static CUcontext context;
static CUdeviceptr words, flag;
static uint32_t *host;

static void *symbol(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))
#define OK(call) CHECK_EQUAL(call, CUDA_SUCCESS)

static uint32_t state(void) { return gv_load32(&peer_client()->state); }

static void pause_ms(long milliseconds)
{
    nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000}, NULL);
}

/* Gives work to its own default stream, which waits for the flag. */
static void *other_thread(void *given)
{
    OK(SHIM(cuCtxSetCurrent)(context));
    OK(SHIM(cuStreamWaitValue32_v2_ptsz)(NULL, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    __atomic_store_n((int *)given, 1, __ATOMIC_RELEASE);
    OK(SHIM(cuStreamSynchronize_ptsz)(NULL));
    return NULL;
}

/* Gives work to a stream, which waits for the flag, and ends. */
static void *short_lived(void *stream)
{
    OK(SHIM(cuCtxSetCurrent)(context));
    OK(SHIM(cuStreamWaitValue32_v2)(stream, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    return NULL;
}

/* Work of which nobody keeps a record: its thread has ended, or its stream is destroyed and the handle may come again. */
static void forgotten_work(void)
{
    CUstream busy, other;
    for (int way = 0; way < 2; way++) {
        pthread_t thread;
        host[0] = 0;
        OK(SHIM(cuStreamCreate)(&busy, CU_STREAM_NON_BLOCKING));
        if (way == 0) {
            CHECK_EQUAL(pthread_create(&thread, NULL, short_lived, busy), 0);
            CHECK_EQUAL(pthread_join(thread, NULL), 0);
        } else {
            short_lived(busy);
            OK(SHIM(cuStreamDestroy_v2)(busy));
        }
        OK(SHIM(cuStreamCreate)(&other, CU_STREAM_NON_BLOCKING));
        OK(SHIM(cuMemsetD32Async)(words, 1, 16, other));
        OK(SHIM(cuStreamSynchronize)(other));
        CHECK_EQUAL(state(), GV_CLIENT_RUNNING);
        __atomic_store_n(&host[0], 1, __ATOMIC_RELEASE);
        OK(SHIM(cuCtxSynchronize)());
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);
        OK(SHIM(cuStreamDestroy_v2)(other));
        if (way == 0)
            OK(SHIM(cuStreamDestroy_v2)(busy));
    }
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
    OK(SHIM(cuInit)(0));
    OK(SHIM(cuDevicePrimaryCtxRetain)(&context, 0));
    OK(SHIM(cuCtxSetCurrent)(context));
    unlink(board);
    OK(SHIM(cuMemHostAlloc)((void **)&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    OK(SHIM(cuMemHostGetDevicePointer_v2)(&flag, host, 0));
    OK(SHIM(cuMemAlloc_v2)(&words, 1 << 20));
    CUstream stream;
    CUevent event;
    OK(SHIM(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING));
    OK(SHIM(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING));

    /* While somebody waits for the GPU, a poll and the wait for an event are proofs as well; and then it is told.
     * (Once per-thread streams are in use an event proves nothing: nobody can ask about another thread's.) */
    peer_grant(GV_LEASE_GRANTED);
    for (int way = 0; way < 2; way++) {
        const uint32_t before = peer_heard(GV_IDLE);
        OK(SHIM(cuMemsetD32Async)(words, 1, 16, stream));
        CUresult asked = CUDA_ERROR_NOT_READY;
        for (int tries = 0; asked == CUDA_ERROR_NOT_READY && tries < 5000; tries++) {
            pause_ms(1);
            asked = way == 0 ? SHIM(cuStreamQuery)(stream) : CUDA_SUCCESS;
        }
        CHECK_EQUAL(asked, CUDA_SUCCESS);
        if (way == 1) {
            OK(SHIM(cuEventRecord)(event, stream));
            OK(SHIM(cuEventSynchronize)(event));
        }
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);
        for (int tries = 0; peer_heard(GV_IDLE) == before; tries++) {
            pause_ms(1);
            CHECK(tries < 5000);
        }
    }
    peer_revoke();

    for (int round = 0; round < 2; round++) {
        peer_grant(round == 0 ? GV_LEASE_OPEN : GV_LEASE_GRANTED);
        forgotten_work();
        OK(SHIM(cuMemsetD32Async)(words, 1, 16, stream));
        CHECK_EQUAL(state(), GV_CLIENT_RUNNING);
        OK(SHIM(cuStreamSynchronize)(stream));
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);

        /* An address is looked at: the driver is asked, the GPU gets nothing. */
        unsigned int yes = 1;
        for (int i = 0; i < 3; i++)
            OK(SHIM(cuPointerSetAttribute)(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, words));
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);
        OK(SHIM(cuMemsetD32Async)(words, 1, 16, stream));
        OK(SHIM(cuPointerSetAttribute)(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, words));
        CHECK_EQUAL(state(), GV_CLIENT_RUNNING);
        OK(SHIM(cuStreamSynchronize)(stream));
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);

        /* Another thread's default stream is not this thread's. */
        pthread_t other;
        int given = 0;
        host[0] = 0;
        CHECK_EQUAL(pthread_create(&other, NULL, other_thread, &given), 0);
        while (!__atomic_load_n(&given, __ATOMIC_ACQUIRE))
            pause_ms(1);
        OK(SHIM(cuMemsetD32Async_ptsz)(words, 1, 16, NULL));
        OK(SHIM(cuStreamSynchronize_ptsz)(NULL));
        CHECK_EQUAL(state(), GV_CLIENT_RUNNING);
        CHECK_EQUAL(SHIM(cuStreamQuery_ptsz)(NULL), CUDA_SUCCESS);
        CHECK_EQUAL(state(), GV_CLIENT_RUNNING);
        __atomic_store_n(&host[0], 1, __ATOMIC_RELEASE);
        CHECK_EQUAL(pthread_join(other, NULL), 0);
        OK(SHIM(cuCtxSynchronize)());
        CHECK_EQUAL(state(), GV_CLIENT_IDLE);
        peer_revoke();
    }

    return 0;
}
