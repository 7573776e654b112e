/* SPDX-License-Identifier: Apache-2.0
 *
 * What a program pays for each call, measured by the program itself:
 *
 *     gate launch THREADS SAMPLES PER_SAMPLE DRIVER
 *                                              {"launch_ns": [...], "straight_ns": [...], "round_trip_ns": [...]}
 *     gate memory LIVE BYTES SAMPLES           {"pair_us": [...], "bytes_per_allocation": N}
 *     gate init                                {}
 *     gate starts COUNT EMPTY DRIVER_FOLDER    {"bare": [...], "empty": [...], "shim": [...]}: ms of `gate init`, COUNT times
 *
 * launch: nanoseconds of an asynchronous launch of an empty kernel (mean of PER_SAMPLE), each thread on a stream of its own:
 * through the libcuda.so.1 that a program gets, and, by turns with it, straight into the file DRIVER; and of a launch with the
 * wait for its end. memory: one allocation and one free with LIVE others of BYTES alive, and what
 * the process's own memory (not the device's) grew by for each of them.
 */
#include <pthread.h>
#include <semaphore.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>

#include "driver.h"

static const char ptx[] = ".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry nothing() { ret; }\n";
static int (*release)(device_address address), (*host_function)(void *stream, void (*function)(void *), void *data);
static __typeof__(launch) launch_straight;
static void *function;
static int samples, per_sample;
static pthread_barrier_t together;

static void print(const char *name, const double *values, int count, const char *end)
{
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++)
        printf("%s%.3f", i ? ", " : "", values[i]);
    printf("]%s", end);
}

enum { WARM_UP = 300 };

struct measured {
    void *context;
    sem_t held, go_on;
    double *one_way, *straight, *round_trip;
};

static void hold(void *argument)
{
    struct measured *const m = argument;
    sem_post(&m->held);
    sem_wait(&m->go_on);
}

static void *launching(void *argument)
{
    struct measured *const m = argument;
    void *stream;
    check(context_set(m->context), "cuCtxSetCurrent");
    check(stream_create(&stream, 1), "cuStreamCreate");
    for (int sample = -WARM_UP; sample < samples; sample++) {
        for (int turn = 0; turn < 2; turn++) {
            const int straight = (sample + turn) & 1;
            __typeof__(launch) const function_of_turn = straight ? launch_straight : launch;
            /* The stream is busy meanwhile, as in a program that is ahead of its GPU: the soft GPU's own thread, which would now
             * and then run beside this one on the same heap, does not. */
            check(host_function(stream, hold, m), "cuLaunchHostFunc");
            sem_wait(&m->held);
            pthread_barrier_wait(&together);
            const uint64_t began = now_ns();
            for (int i = 0; i < per_sample; i++)
                check(function_of_turn(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
            const uint64_t launched = now_ns() - began;
            sem_post(&m->go_on);
            check(stream_wait(stream), "cuStreamSynchronize");
            if (sample >= 0)
                (straight ? m->straight : m->one_way)[sample] = (double)launched / per_sample;
        }
        const uint64_t began = now_ns();
        for (int i = 0; i < 8; i++) {
            check(launch(function, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
            check(stream_wait(stream), "cuStreamSynchronize");
        }
        if (sample >= 0)
            m->round_trip[sample] = (double)(now_ns() - began) / 8;
    }
    return NULL;
}

static void *context_of_device(void)
{
    void *context;
    int device;
    check(device_get(&device, 0), "cuDeviceGet");
    check(context_retain(&context, device), "cuDevicePrimaryCtxRetain");
    return context;
}

static int measure_launches(int threads, const char *driver)
{
    pthread_t others[16];
    struct measured all[16];
    void *const module = open_driver(ptx); /* before function_get is read */
    *(void **)&launch_straight = dlsym(dlopen(driver, RTLD_NOW | RTLD_NOLOAD), "cuLaunchKernel");
    if (launch_straight == NULL)
        check(1, driver);
    *(void **)&host_function = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuLaunchHostFunc");
    check(function_get(&function, module, "nothing"), "cuModuleGetFunction");
    pthread_barrier_init(&together, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
        all[i].context = context_of_device();
        all[i].one_way = calloc((size_t)samples, sizeof(double));
        all[i].straight = calloc((size_t)samples, sizeof(double));
        all[i].round_trip = calloc((size_t)samples, sizeof(double));
        sem_init(&all[i].held, 0, 0);
        sem_init(&all[i].go_on, 0, 0);
        if (i != 0)
            check(pthread_create(&others[i], NULL, launching, &all[i]), "pthread_create");
    }
    launching(&all[0]);
    for (int i = 1; i < threads; i++)
        check(pthread_join(others[i], NULL), "pthread_join");
    printf("{");
    print("launch_ns", all[0].one_way, samples, ", ");
    print("straight_ns", all[0].straight, samples, ", ");
    print("round_trip_ns", all[0].round_trip, samples, "}\n");
    return 0;
}

/* Bytes of memory that belongs to this process alone; the soft GPU's device memory is a shared mapping. */
static long own_memory(void)
{
    char line[256];
    long kilobytes = 0;
    FILE *const file = fopen("/proc/self/smaps_rollup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (sscanf(line, "Anonymous: %ld", &kilobytes) == 1)
            break;
    if (file != NULL)
        fclose(file);
    return kilobytes * 1024;
}

static int measure_memory(int live, size_t bytes)
{
    enum { PAIRS = 16 };
    double *const pair = calloc((size_t)samples, sizeof *pair);
    device_address *const addresses = calloc((size_t)live, sizeof *addresses), address;
    open_driver(ptx);
    *(void **)&release = dlsym(dlopen("libcuda.so.1", RTLD_NOW), "cuMemFree_v2");
    memset(addresses, 1, (size_t)live * sizeof *addresses);
    for (int i = 0; i < live / 10; i++) /* what is set up once is no cost of an allocation */
        check(allocate(&addresses[i], bytes), "cuMemAlloc");
    const long before = own_memory();
    for (int i = live / 10; i < live; i++)
        check(allocate(&addresses[i], bytes), "cuMemAlloc");
    const double each = (double)(own_memory() - before) / (live - live / 10);
    for (int sample = 0; sample < samples; sample++) {
        const uint64_t began = now_ns();
        for (int i = 0; i < PAIRS; i++) {
            check(allocate(&address, bytes), "cuMemAlloc");
            check(release(address), "cuMemFree");
        }
        pair[sample] = (double)(now_ns() - began) / PAIRS / 1000;
    }
    printf("{");
    print("pair_us", pair, samples, ", ");
    printf("\"bytes_per_allocation\": %.1f}\n", each);
    return 0;
}

/*
 * From the start of a process to its end, with a context in between: the loader, the driver, attaching. The three ways follow
 * one another each time, so that what else the machine does meets all of them. This program runs as a job.
 */
static int measure_starts(const char *self, int count, const char *empty, const char *driver_folder)
{
    extern char **environ;
    enum { BARE, EMPTY, SHIM, WAYS };
    static const char *const names[WAYS] = {"bare", "empty", "shim"};
    char *const command[] = {(char *)self, "init", NULL};
    char preload[4096], folder[4096];
    const char *const job_preload = getenv("LD_PRELOAD"), *const job_folder = getenv("LD_LIBRARY_PATH");
    if (job_preload == NULL)
        check(1, "gate starts without a preloaded shim");
    snprintf(preload, sizeof preload, "%s", job_preload);
    snprintf(folder, sizeof folder, "%s", job_folder == NULL ? "" : job_folder);
    double *start[WAYS];
    for (int way = 0; way < WAYS; way++)
        start[way] = calloc((size_t)count, sizeof(double));
    for (int i = -2; i < count; i++) {
        for (int turn = 0; turn < WAYS; turn++) {
            const int way = (i + 2 + turn) % WAYS;
            pid_t child;
            int status;
            nanosleep(&(struct timespec){0, 10000000}, NULL); /* the daemon has seen the end of the one before */
            setenv("LD_PRELOAD", way == EMPTY ? empty : preload, 1);
            setenv("LD_LIBRARY_PATH", way == SHIM ? folder : driver_folder, 1);
            if (way == BARE)
                unsetenv("LD_PRELOAD");
            const uint64_t began = now_ns();
            check(posix_spawn(&child, self, NULL, NULL, command, environ), "posix_spawn");
            check(waitpid(child, &status, 0) != child || status != 0, "gate init");
            if (i >= 0)
                start[way][i] = (double)(now_ns() - began) / 1e6;
        }
    }
    printf("{");
    for (int way = 0; way < WAYS; way++)
        print(names[way], start[way], count, way == SHIM ? "}\n" : ", ");
    return 0;
}

int main(int argc, char **argv)
{
    const char *const what = argc > 1 ? argv[1] : "";
    samples = argc > 2 ? atoi(argv[argc - 1]) : 1;
    if (strcmp(what, "launch") == 0 && argc == 6 && atoi(argv[2]) >= 1 && atoi(argv[2]) <= 16) {
        samples = atoi(argv[3]);
        per_sample = atoi(argv[4]);
        return measure_launches(atoi(argv[2]), argv[5]);
    }
    if (strcmp(what, "memory") == 0 && argc == 5)
        return measure_memory(atoi(argv[2]), (size_t)atol(argv[3]));
    if (strcmp(what, "starts") == 0 && argc == 5)
        return measure_starts(argv[0], atoi(argv[2]), argv[3], argv[4]);
    if (strcmp(what, "init") == 0) {
        open_libraries();
        context_of_device();
        return 0;
    }
    fprintf(stderr, "usage: gate launch THREADS SAMPLES PER_SAMPLE DRIVER | memory LIVE BYTES SAMPLES |\n"
                    "            starts COUNT EMPTY DRIVER_FOLDER | init\n");
    return 2;
}
