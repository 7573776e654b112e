/* SPDX-License-Identifier: Apache-2.0
 *
 * The NVML shim before the soft NVML, with a daemon that is a thread of this program: every function is there, the first call
 * may come from many threads, answers are kept for a while, a silent daemon costs a bounded time, a fork goes on alone.
 *
 *     test_nvml SHIM NVML
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <nvml.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "gpuvirt/messages.h"

static const char *const names[] = {
#define GV_SYMBOL(index, symbol) #symbol,
#include "nvml_entry_points.inc"
#undef GV_SYMBOL
};

enum mode { ANSWERS, SILENT, REFUSES, IS_FULL };
static atomic_int mode, questions;
static atomic_int garbage;

static void answer(int connection)
{
    struct gv_query query;
    if (recv(connection, &query, sizeof query, 0) != (ssize_t)sizeof query)
        return;
    atomic_fetch_add(&questions, 1);
    if (query.header.type != GV_QUERY || strcmp(query.token, "a-token") != 0)
        return;
    const int now = atomic_load(&mode);
    if (now == REFUSES || now == IS_FULL) {
        struct gv_refused refused = {.header = {GV_MESSAGE_MAGIC, GV_PROTOCOL_VERSION, GV_REFUSED, sizeof refused},
                                     .code = now == IS_FULL ? 802 : 800};
        send(connection, &refused, sizeof refused, MSG_NOSIGNAL);
    } else if (atomic_load(&mode) == ANSWERS) {
        struct gv_usage usage = {.header = {GV_MESSAGE_MAGIC, GV_PROTOCOL_VERSION, GV_USAGE, sizeof usage},
                                 .quota = 100 << 20,
                                 .charged = 30 << 20,
                                 .count = 2};
        usage.processes[0] = (struct gv_usage_process){
            .pid = 7, .host_pid = 70, .charged_bytes = 20 << 20, .recent_ns = 500000000, .window_ns = 1000000000};
        usage.processes[1] = (struct gv_usage_process){.pid = 8, .host_pid = 80, .charged_bytes = 10 << 20};
        send(connection, &usage, atomic_load(&garbage) ? 100 : sizeof usage, MSG_NOSIGNAL);
    } else {
        struct pollfd until_it_hangs_up = {.fd = connection, .events = POLLIN};
        poll(&until_it_hangs_up, 1, 2000);
    }
}

static void *daemon_thread(void *listener)
{
    for (;;) {
        const int connection = accept((int)(intptr_t)listener, NULL, NULL);
        if (connection < 0)
            return NULL;
        answer(connection);
        close(connection);
    }
}

static nvmlReturn_t (*init)(void);
static nvmlReturn_t (*by_index)(unsigned, nvmlDevice_t *);
static nvmlReturn_t (*memory_info)(nvmlDevice_t, nvmlMemory_t *);
static nvmlReturn_t (*processes)(nvmlDevice_t, unsigned *, nvmlProcessInfo_t *);
static nvmlReturn_t (*utilisation)(nvmlDevice_t, nvmlProcessUtilizationSample_t *, unsigned *, unsigned long long);
static const char *(*error_string)(nvmlReturn_t);
static nvmlDevice_t device;

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void wait_seconds(double time)
{
    const struct timespec span = {(time_t)time, (long)((time - (double)(time_t)time) * 1e9)};
    nanosleep(&span, NULL);
}

static unsigned long long total(void)
{
    nvmlMemory_t memory = {0};
    CHECK(memory_info(device, &memory) == NVML_SUCCESS);
    CHECK(memory.used + memory.free == memory.total || memory.total > (200ull << 20)); /* the device's has a reserve */
    return memory.total >> 20;
}

static void *ask_from_a_thread(void *unused)
{
    (void)unused;
    CHECK(init() == NVML_SUCCESS);
    nvmlDevice_t mine;
    CHECK(by_index(0, &mine) == NVML_SUCCESS);
    for (int i = 0; i < 200; i++) {
        nvmlMemory_t memory;
        unsigned count = 2;
        nvmlProcessInfo_t infos[2];
        CHECK(memory_info(mine, &memory) == NVML_SUCCESS && memory.total == 100 << 20);
        CHECK(processes(mine, &count, infos) == NVML_SUCCESS && count == 2);
        CHECK(infos[0].pid == 7 && infos[1].usedGpuMemory == 10 << 20);
    }
    return NULL;
}

static void test_many_threads_at_the_first_call(void)
{
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        CHECK(pthread_create(&threads[i], NULL, ask_from_a_thread, NULL) == 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    CHECK(by_index(0, &device) == NVML_SUCCESS);
}

static void test_sizes_as_nvml_has_them(void)
{
    unsigned count = 0;
    CHECK(processes(device, &count, NULL) == NVML_ERROR_INSUFFICIENT_SIZE && count == 2);
    nvmlProcessInfo_t one;
    count = 1;
    CHECK(processes(device, &count, &one) == NVML_ERROR_INSUFFICIENT_SIZE && count == 2);
    CHECK(processes(device, NULL, &one) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(processes(NULL, &count, &one) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(memory_info(device, NULL) == NVML_ERROR_INVALID_ARGUMENT);
    nvmlProcessUtilizationSample_t samples[2];
    count = 2;
    CHECK(utilisation(device, samples, &count, 0) == NVML_SUCCESS && count == 1);
    CHECK(samples[0].pid == 7 && samples[0].smUtil == 50);
    count = 2;
    CHECK(utilisation(device, samples, &count, samples[0].timeStamp + 1000000000) == NVML_ERROR_NOT_FOUND);
    CHECK(strcmp(error_string(NVML_ERROR_NOT_FOUND), "Not Found") == 0);
}

static void test_answers_are_kept_for_a_while(void)
{
    wait_seconds(0.11);
    const int before = atomic_load(&questions);
    const double start = seconds();
    for (int i = 0; i < 1000; i++)
        CHECK(total() == 100);
    const int asked = atomic_load(&questions) - before;
    CHECK(asked >= 1 && asked <= 2 + (int)((seconds() - start) / 0.1));
}

static void test_silent_daemon(void)
{
    wait_seconds(0.11);
    atomic_store(&mode, SILENT);
    const int before = atomic_load(&questions);
    const double start = seconds();
    for (int i = 0; i < 100; i++)
        CHECK(total() == 100); /* the last known answer */
    CHECK(seconds() - start < 0.9 && atomic_load(&questions) == before + 1);
}

static void test_fork(void)
{
    const pid_t child = fork();
    if (child == 0) {
        CHECK(total() > 200); /* nothing known in the child, and a daemon that says nothing: the driver's own answer */
        _exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

static void test_daemon_without_room(void)
{
    atomic_store(&mode, ANSWERS);
    wait_seconds(1.0);
    CHECK(total() == 100);
    atomic_store(&mode, IS_FULL);
    wait_seconds(0.11);
    CHECK(total() == 100); /* too many connections of this user: the last known answer, not the whole device */
}

static void test_refused(void)
{
    atomic_store(&mode, REFUSES);
    wait_seconds(1.0);
    CHECK(total() > 200);
    atomic_store(&mode, ANSWERS);
    atomic_store(&garbage, 1);
    wait_seconds(1.0);
    CHECK(total() > 200); /* a packet that is cut off is no answer */
    atomic_store(&garbage, 0);
    wait_seconds(1.0);
    CHECK(total() == 100);
}

static void test_without_a_library(const char *shim)
{
    setenv("GPUVIRT_NVML", "/nonexistent/libnvidia-ml.so.1", 1);
    void *library = dlopen(shim, RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    CHECK(((nvmlReturn_t (*)(void))dlsym(library, "nvmlInit_v2"))() == NVML_ERROR_LIBRARY_NOT_FOUND);
    const char *(*text)(nvmlReturn_t) = (const char *(*)(nvmlReturn_t))dlsym(library, "nvmlErrorString");
    CHECK(strstr(text(NVML_ERROR_LIBRARY_NOT_FOUND), "Not Found") != NULL);
}

int main(int count, char **arguments)
{
    if (count != 3)
        return 2;
    char folder[] = "/tmp/gpuvirt-nvml-XXXXXX", board[64];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    CHECK(mkdtemp(folder) != NULL);
    snprintf(address.sun_path, sizeof address.sun_path, "%s/client.sock", folder);
    snprintf(board, sizeof board, "%s/board", folder);
    const int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    CHECK(bind(listener, (const struct sockaddr *)&address, sizeof address) == 0 && listen(listener, 16) == 0);
    setenv("GPUVIRT_SOFTGPU_BOARD", board, 1);
    setenv("GPUVIRT_SOCKET", address.sun_path, 1);
    setenv("GPUVIRT_JOB", "a-token", 1);
    const pid_t child = fork();
    if (child == 0) {
        test_without_a_library(arguments[1]);
        _exit(0);
    }
    int status = 1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    setenv("GPUVIRT_NVML", arguments[2], 1);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, daemon_thread, (void *)(intptr_t)listener) == 0);

    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library != NULL);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        CHECK(dlsym(library, names[i]) != NULL);
    CHECK(dlopen(arguments[2], RTLD_NOW | RTLD_NOLOAD) == NULL); /* nothing was opened yet */
    *(void **)&init = dlsym(library, "nvmlInit_v2");
    *(void **)&by_index = dlsym(library, "nvmlDeviceGetHandleByIndex_v2");
    *(void **)&memory_info = dlsym(library, "nvmlDeviceGetMemoryInfo");
    *(void **)&processes = dlsym(library, "nvmlDeviceGetComputeRunningProcesses_v3");
    *(void **)&utilisation = dlsym(library, "nvmlDeviceGetProcessUtilization");
    *(void **)&error_string = dlsym(library, "nvmlErrorString");
    test_many_threads_at_the_first_call();
    test_sizes_as_nvml_has_them();
    test_answers_are_kept_for_a_while();
    test_silent_daemon();
    test_fork();
    test_daemon_without_room();
    test_refused();
    shutdown(listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    unlink(address.sun_path);
    unlink(board);
    rmdir(folder);
    return 0;
}
