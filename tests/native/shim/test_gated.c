/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_gated SHIM DRIVER. Every entry point of class `gate`, in all its ABIs, called while the job does not hold the
 * lease: none reaches the driver before the grant, each reaches it once after it, in its own ABI and with its own arguments,
 * and its result comes back. Meanwhile the program can do all else: nothing that waits at the gate holds a lock, and entry
 * points of the classes order-only, sync-aware and capture-aware do not wait at all.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>

#include "../check.h"
#include "peer.h"
#include "watched_driver.h"

enum class { GATE, ORDER_ONLY, SYNC_AWARE, CAPTURE_AWARE };
static const CUresult ANSWER = CUDA_ERROR_ALREADY_MAPPED; /* nothing that the shim itself ever says */

/* Arguments: pointers point to readable zeros, each to its own; all else is a small number, each its own. */
static uint8_t zeros[1 << 16] __attribute__((aligned(4096)));
#define CASE_ARGUMENT(argument, index, words)                                                                          \
    do {                                                                                                               \
        const uint64_t value_ =                                                                                        \
            __builtin_classify_type(argument) == 5 ? (uint64_t)&zeros[4096 * ((index) + 1)] : (uint64_t)(index) + 1;   \
        memset(&argument, 0, sizeof argument);                                                                         \
        memcpy(&argument, &value_, sizeof argument < sizeof value_ ? sizeof argument : sizeof value_);                 \
        watched_keep(&(words)[index], &argument, sizeof argument);                                                     \
    } while (0)

#define GV_CALLERS
#include "gate_cases.inc"
#undef GV_CALLERS

static struct {
    const char *symbol;
    enum class class;
    CUresult (*call)(void *function, uint64_t *words);
    uint64_t sent[WATCHED_WORDS], got[WATCHED_WORDS];
    atomic_int reached, early, returned;
    CUresult result;
} cases[] = {
#define GV_CASE(name, kind) {.symbol = #name, .class = kind, .call = call_##name},
#include "gate_cases.inc"
#undef GV_CASE
};
enum { CASES = sizeof cases / sizeof cases[0] };

static void *shim;
static atomic_int started;
static __thread int of_the_program; /* the case that this thread calls, + 1 */

static void *symbol(void *library, const char *name)
{
    void *const found = dlsym(library, name);
    if (found == NULL)
        fprintf(stderr, "%s is not exported\n", name);
    CHECK(found != NULL);
    return found;
}
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))

/* Called by the driver. Calls of the shim itself are not the program's. */
static int reached(int number, const uint64_t words[WATCHED_WORDS])
{
    if (of_the_program != number + 1)
        return CUDA_SUCCESS;
    cases[number].early += !peer_allows();
    cases[number].reached++;
    memcpy(cases[number].got, words, sizeof cases[number].got);
    return ANSWER;
}

static void *call_one(void *argument)
{
    const int number = (int)(intptr_t)argument;
    void *const function = symbol(shim, cases[number].symbol);
    of_the_program = number + 1;
    started++;
    cases[number].result = cases[number].call(function, cases[number].sent);
    cases[number].returned = 1;
    return NULL;
}

/* Threads of this process that do not sleep, besides this one. */
static int awake(void)
{
    int count = -1;
    DIR *const tasks = opendir("/proc/self/task");
    CHECK(tasks != NULL);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        char path[300], text[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", entry->d_name);
        FILE *const file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
        if (file == NULL)
            continue;
        const size_t length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[length] = '\0';
        const char *const state = strrchr(text, ')');
        count += state != NULL && state[2] != 'S';
    }
    closedir(tasks);
    return count;
}

/* Until all threads have returned or sleep, twice in a row. */
static void settle(int expected)
{
    while (started < expected)
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    for (int quiet = 0, tries = 0; quiet < 2; tries++) {
        quiet = awake() == 0 ? quiet + 1 : 0;
        nanosleep(&(struct timespec){0, 2000000}, NULL);
        CHECK(tries < 5000);
    }
}

/* What a program does besides, while many of its threads wait: returns, or something holds a lock. */
static void *do_something_else(void *unused)
{
    (void)unused;
    CUdeviceptr address = 0;
    size_t room = 0;
    CUstream stream;
    CHECK_EQUAL(SHIM(cuMemAlloc_v2)(&address, 1 << 20), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuMemGetInfo_v2)(&room, &room), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuMemFree_v2)(address), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuStreamCreate)(&stream, 0), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuStreamSynchronize)(stream), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuStreamDestroy_v2)(stream), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuCtxSynchronize)(), CUDA_SUCCESS);
    return NULL;
}

static void in_time(pthread_t thread, const char *what)
{
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    if (pthread_timedjoin_np(thread, NULL, &limit) == 0)
        return;
    fprintf(stderr, "%s does not return\n", what);
    exit(1);
}

int main(int argc, char **argv)
{
    CHECK_EQUAL(argc, 3);
    peer_start();
    setenv("GPUVIRT_DRIVER", argv[2], 1);
    shim = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    CHECK(shim != NULL);
    CUcontext context;
    CHECK_EQUAL(SHIM(cuInit)(0), CUDA_SUCCESS);
    CHECK_EQUAL(SHIM(cuDevicePrimaryCtxRetain)(&context, 0), CUDA_SUCCESS);
    ((void (*)(watcher_function))symbol(dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD), "watch"))(reached);

    /* Once granted and taken away again, as a job that has run before. */
    peer_grant(GV_LEASE_OPEN);
    peer_revoke();

    /* Those that never wait, one after the other in one thread. */
    int count[4] = {0};
    pthread_t threads[CASES];
    for (int i = 0; i < CASES; i++) {
        count[cases[i].class]++;
        if (cases[i].class == GATE)
            continue;
        CHECK_EQUAL(pthread_create(&threads[i], NULL, call_one, (void *)(intptr_t)i), 0);
        in_time(threads[i], cases[i].symbol);
        CHECK_EQUAL(cases[i].result, ANSWER);
        CHECK_EQUAL(cases[i].reached, 1);
    }
    const int others = CASES - count[GATE];
    CHECK(count[GATE] >= 160 && count[ORDER_ONLY] >= 6 && count[SYNC_AWARE] >= 20 && count[CAPTURE_AWARE] >= 20);

    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 1 << 18);
    for (int i = 0; i < CASES; i++)
        if (cases[i].class == GATE)
            CHECK_EQUAL(pthread_create(&threads[i], &small, call_one, (void *)(intptr_t)i), 0);
    settle(CASES);
    int escaped = 0;
    for (int i = 0; i < CASES; i++) {
        if (cases[i].class != GATE || (cases[i].reached == 0 && cases[i].returned == 0))
            continue;
        fprintf(stderr, "%s does not wait for the lease (%s)\n", cases[i].symbol,
                cases[i].reached != 0 ? "it reached the driver" : "it returned");
        escaped++;
    }
    CHECK_EQUAL(escaped, 0);
    CHECK(gv_load32(&peer_client()->state) == GV_CLIENT_WAITING && peer_heard(GV_WANT) >= 1);

    pthread_t other;
    CHECK_EQUAL(pthread_create(&other, NULL, do_something_else, NULL), 0);
    in_time(other, "what the program does while its threads wait");
    for (int i = 0; i < CASES; i++)
        CHECK(cases[i].class != GATE || cases[i].reached == 0);

    peer_grant(GV_LEASE_GRANTED);
    for (int i = 0; i < CASES; i++) {
        if (cases[i].class != GATE)
            continue;
        in_time(threads[i], cases[i].symbol);
        if (cases[i].reached != 1 || cases[i].result != ANSWER ||
            memcmp(cases[i].sent, cases[i].got, sizeof cases[i].sent) != 0)
            fprintf(stderr, "%s: reached the driver %d times, result %d, arguments %s\n", cases[i].symbol,
                    cases[i].reached, (int)cases[i].result,
                    memcmp(cases[i].sent, cases[i].got, sizeof cases[i].sent) == 0 ? "unchanged" : "changed");
        CHECK_EQUAL(cases[i].reached, 1);
        CHECK_EQUAL(cases[i].result, ANSWER);
        CHECK(memcmp(cases[i].sent, cases[i].got, sizeof cases[i].sent) == 0);
        CHECK_EQUAL(cases[i].early, 0);
    }
    printf("%d gated entry points waited for the lease, %d others did not\n", count[GATE], others);
    return 0;
}
