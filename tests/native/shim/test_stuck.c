/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_stuck SHIM DRIVER. What is on the GPU waits for a value that another thread is to write, and that thread waits at
 * the gate: the drain cannot end. The shim says so, goes on serving meanwhile (the other thread also needs memory that is not
 * there yet), and with the lease given back all ends; a host function is let through, and a call that waits for its stream
 * (a copy to the host) holds up nothing. An event behind all that is not done before its time, whatever the lease says; and
 * while all wait, nobody spins.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "../check.h"
#include "peer.h"

static void *shim;
static CUcontext context;
static CUdeviceptr flag, words;
static uint32_t *host, copied[4];
static CUstream waiting_stream, writing_stream;
static CUevent behind;
static int wrote, called, read_back, added, hold_writer;

static void *symbol(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    CHECK(found != NULL);
    return found;
}
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))
#define OK(call) CHECK_EQUAL(call, CUDA_SUCCESS)

/* A copy on the legacy stream, which comes after the wait: it blocks in the driver while it waits for its turn. */
static void *read_words(void *unused)
{
    (void)unused;
    OK(SHIM(cuCtxSetCurrent)(context));
    OK(SHIM(cuMemcpyDtoH_v2)(copied, words, sizeof copied));
    __atomic_store_n(&read_back, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void *add_more(void *unused)
{
    (void)unused;
    OK(SHIM(cuCtxSetCurrent)(context));
    OK(SHIM(cuMemsetD32Async)(words + 64, 1, 4, waiting_stream));
    __atomic_store_n(&added, 1, __ATOMIC_RELEASE);
    return NULL;
}

static void CUDA_CB note(void *place) { __atomic_store_n((int *)place, 1, __ATOMIC_RELEASE); }

static void *write_flag(void *unused)
{
    (void)unused;
    CUdeviceptr fresh;
    OK(SHIM(cuCtxSetCurrent)(context));
    OK(SHIM(cuLaunchHostFunc)(writing_stream, note, &called)); /* never waits */
    OK(SHIM(cuMemAlloc_v2)(&fresh, 8 << 20));                  /* an address; its memory comes with the lease */
    OK(SHIM(cuMemsetD32Async)(fresh, 5, 4, writing_stream));
    while (__atomic_load_n(&hold_writer, __ATOMIC_ACQUIRE))
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    OK(SHIM(cuStreamWriteValue32_v2)(writing_stream, flag, 1, 0));
    __atomic_store_n(&wrote, 1, __ATOMIC_RELEASE);
    OK(SHIM(cuStreamSynchronize)(writing_stream));
    return NULL;
}

/* Processor time of the threads that the shim has (not the soft GPU's, which have names, nor those of this program). */
static double of_the_shim_ms(void)
{
    double ticks = 0;
    DIR *const tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[300], text[512] = "", state;
        long user = 0, system = 0;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *const file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file == NULL)
            continue;
        text[fread(text, 1, sizeof text - 1, file)] = '\0';
        fclose(file);
        const char *const after = strrchr(text, ')');
        if (after == NULL || strstr(text, "(softgpu") != NULL)
            continue;
        CHECK_EQUAL(sscanf(after + 2, "%c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &state, &user, &system), 3);
        ticks += (double)(user + system);
    }
    closedir(tasks);
    return ticks * 1000 / (double)sysconf(_SC_CLK_TCK);
}

static int soon(const int *place)
{
    for (int tries = 0; tries < 5000; tries++) {
        if (__atomic_load_n(place, __ATOMIC_ACQUIRE))
            return 1;
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
    return 0;
}

static void *begin_capture(void *stream)
{
    OK(SHIM(cuCtxSetCurrent)(context));
    CHECK(SHIM(cuStreamBeginCapture_v2)(stream, CU_STREAM_CAPTURE_MODE_RELAXED) == CUDA_SUCCESS);
    return NULL;
}

/* A thread that is cancelled where it waits for another thread of the shim takes nothing with it. */
static void cancel_one(void)
{
    CUstream streams[2];
    CUgraph graph;
    pthread_t thread;
    host[0] = 0;
    for (int i = 0; i < 2; i++)
        OK(SHIM(cuStreamCreate)(&streams[i], CU_STREAM_NON_BLOCKING));
    OK(SHIM(cuStreamWaitValue32_v2)(waiting_stream, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
    peer_drain();
    nanosleep(&(struct timespec){0, 20000000}, NULL); /* it waits now, and nothing should begin to capture */
    for (int i = 0; i < 2; i++) {
        CHECK_EQUAL(pthread_create(&thread, NULL, begin_capture, streams[i]), 0);
        nanosleep(&(struct timespec){0, 20000000}, NULL);
        if (i == 0)
            pthread_cancel(thread);
        struct timespec limit;
        clock_gettime(CLOCK_REALTIME, &limit);
        limit.tv_sec += 5;
        CHECK_EQUAL(pthread_timedjoin_np(thread, NULL, &limit), 0);
    }
    /* Beside a capture that has begun, others join it at once, however long the drain takes. */
    CUevent forked;
    struct timespec began, now;
    OK(SHIM(cuEventCreate)(&forked, CU_EVENT_DISABLE_TIMING));
    OK(SHIM(cuEventRecord)(forked, streams[1]));
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int i = 0; i < 8; i++) {
        CUstream joins;
        OK(SHIM(cuStreamCreate)(&joins, CU_STREAM_NON_BLOCKING));
        OK(SHIM(cuStreamWaitEvent)(joins, forked, 0));
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    CHECK((now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000 < 400);
    SHIM(cuStreamEndCapture)(streams[1], &graph); /* they did not come back to it: the driver may mind */
    __atomic_store_n(&host[0], 1, __ATOMIC_RELEASE);
    peer_close();
    peer_grant(GV_LEASE_GRANTED);
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
    peer_grant(GV_LEASE_GRANTED);
    OK(SHIM(cuStreamCreate)(&waiting_stream, CU_STREAM_DEFAULT));
    OK(SHIM(cuEventCreate)(&behind, CU_EVENT_DISABLE_TIMING));
    OK(SHIM(cuStreamCreate)(&writing_stream, CU_STREAM_NON_BLOCKING));
    OK(SHIM(cuMemHostAlloc)((void **)&host, 4096, CU_MEMHOSTALLOC_DEVICEMAP));
    host[0] = 0;
    OK(SHIM(cuMemHostGetDevicePointer_v2)(&flag, host, 0));
    OK(SHIM(cuMemAlloc_v2)(&words, 4096));

    for (int round = 0; round < 3; round++) {
        const uint32_t stuck_before = peer_heard(GV_STUCK);
        __atomic_store_n(&host[0], 0, __ATOMIC_RELEASE);
        wrote = called = read_back = 0;
        OK(SHIM(cuStreamWaitValue32_v2)(waiting_stream, flag, 1, CU_STREAM_WAIT_VALUE_EQ));
        OK(SHIM(cuMemsetD32Async)(words, 77 + (unsigned)round, 4, waiting_stream));
        OK(SHIM(cuEventRecord)(behind, waiting_stream));
        CHECK_EQUAL(SHIM(cuEventQuery)(behind), CUDA_ERROR_NOT_READY);
        pthread_t reader, writer;
        CHECK_EQUAL(pthread_create(&reader, NULL, read_words, NULL), 0);
        nanosleep(&(struct timespec){0, 5000000}, NULL);

        peer_drain();
        nanosleep(&(struct timespec){0, 5000000}, NULL);
        CHECK_EQUAL(pthread_create(&writer, NULL, write_flag, NULL), 0);
        CHECK(soon(&called));
        for (int tries = 0; peer_heard(GV_STUCK) == stuck_before; tries++) {
            nanosleep(&(struct timespec){0, 1000000}, NULL);
            CHECK(tries < 5000); /* it does not say that it is stuck */
        }
        CHECK(!__atomic_load_n(&wrote, __ATOMIC_ACQUIRE) && !__atomic_load_n(&read_back, __ATOMIC_ACQUIRE));
        CHECK_EQUAL(peer_heard(GV_STUCK), stuck_before + 1);
        CHECK_EQUAL(SHIM(cuEventQuery)(behind), CUDA_ERROR_NOT_READY);
        CHECK_EQUAL(SHIM(cuStreamQuery)(waiting_stream), CUDA_ERROR_NOT_READY);
        if (round == 0) {
            const double before = of_the_shim_ms();
            nanosleep(&(struct timespec){0, 400000000}, NULL);
            const double used = of_the_shim_ms() - before;
            if (used > 40)
                fprintf(stderr, "the shim used %.0f ms of processor time in 400 ms of waiting\n", used);
            CHECK(used <= 40);
        }

        /* STEP is for streams that have finished: the one that waits gets no more. */
        pthread_t adder;
        added = 0;
        CHECK_EQUAL(pthread_create(&adder, NULL, add_more, NULL), 0);
        hold_writer = round == 1; /* once: what would happen without the write */
        peer_grant(round == 2 ? GV_LEASE_GRANTED : GV_LEASE_STEP);
        if (round == 1) {
            nanosleep(&(struct timespec){0, 20000000}, NULL);
            CHECK(!__atomic_load_n(&added, __ATOMIC_ACQUIRE));
            CHECK_EQUAL(SHIM(cuEventQuery)(behind), CUDA_ERROR_NOT_READY);
            __atomic_store_n(&hold_writer, 0, __ATOMIC_RELEASE);
        }
        CHECK(soon(&wrote));
        CHECK(soon(&read_back));
        CHECK_EQUAL(pthread_join(reader, NULL), 0);
        CHECK_EQUAL(pthread_join(writer, NULL), 0);
        CHECK_EQUAL(pthread_join(adder, NULL), 0);
        CHECK_EQUAL(copied[3], 77 + round);
        OK(SHIM(cuEventSynchronize)(behind));
        CHECK_EQUAL(SHIM(cuEventQuery)(behind), CUDA_SUCCESS);
        peer_revoke();
        peer_grant(GV_LEASE_GRANTED);
    }
    cancel_one();
    return 0;
}
