/* SPDX-License-Identifier: Apache-2.0
 *
 * A job that is alone, slice by slice as it is told on standard input: alone [DRIVER]
 *
 *     launches N    N launches of an empty kernel, one wait at the end
 *     trips N       N times: a launch and the wait for its end
 *     steps N       N steps of a training: a batch is copied in, 24 kernels compute, the loss is read
 *     around WHAT N the same, but every call goes to the driver itself (the file DRIVER) and not to who stands before it
 *     threads       answers with the number of threads of this process
 *     idle          nothing
 *
 * Answers each with a line: how long it took in ns, and processor time of the whole process in ns.
 */
#include <dirent.h>
#include <string.h>

#include "driver.h"

enum { STEP_KERNELS = 24, BLOCKS = 4, THREADS = 128, BATCH_BYTES = 256 << 10 };

/* compute: each thread of the grid goes on with one number of the memory, `count` times */
static const char ptx[] =
    ".version 7.0\n.target sm_70\n.address_size 64\n"
    ".visible .entry nothing() { ret; }\n"
    ".visible .entry compute(.param .u64 p, .param .u32 count) {\n"
    ".reg .pred %q; .reg .b32 %r<8>; .reg .f32 %x; .reg .b64 %d<4>;\n"
    "ld.param.u64 %d0, [p]; ld.param.u32 %r0, [count];\n"
    "mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.s32 %r4, %r1, %r2, %r3;\n"
    "cvta.to.global.u64 %d1, %d0; mul.wide.u32 %d2, %r4, 4; add.s64 %d3, %d1, %d2; ld.global.f32 %x, [%d3];\n"
    "again: fma.rn.f32 %x, %x, 0f3F7FF000, 0f3A000000; sub.s32 %r0, %r0, 1; setp.gt.s32 %q, %r0, 0; @%q bra again;\n"
    "st.global.f32 [%d3], %x; ret; }\n";

static void *stream, *empty, *compute;
static device_address memory;

/* The calls that the work below makes, in the one way or the other. */
struct calls {
    __typeof__(launch) launch;
    __typeof__(stream_wait) stream_wait;
    __typeof__(copy_in_later) copy_in_later;
    __typeof__(copy_out_later) copy_out_later;
};
static struct calls through, around, *use = &through;

/* The driver itself, which is loaded already, by whoever stands before it. */
static void find_around(const char *file)
{
    void *const driver = dlopen(file, RTLD_NOW | RTLD_NOLOAD);
    if (driver == NULL) {
        fprintf(stderr, "%s is not the driver that is in use\n", file);
        exit(3);
    }
    *(void **)&around.launch = dlsym(driver, "cuLaunchKernel");
    *(void **)&around.stream_wait = dlsym(driver, "cuStreamSynchronize");
    *(void **)&around.copy_in_later = dlsym(driver, "cuMemcpyHtoDAsync_v2");
    *(void **)&around.copy_out_later = dlsym(driver, "cuMemcpyDtoHAsync_v2");
}

static void launches(long count)
{
    for (long i = 0; i < count; i++)
        check(use->launch(empty, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
    check(use->stream_wait(stream), "cuStreamSynchronize");
}

static void trips(long count)
{
    for (long i = 0; i < count; i++)
        launches(1);
}

static void steps(long count)
{
    static char batch[BATCH_BYTES];
    float loss;
    uint32_t times = 400;
    void *parameters[] = {&memory, &times};
    for (long i = 0; i < count; i++) {
        check(use->copy_in_later(memory, batch, BATCH_BYTES, stream), "cuMemcpyHtoDAsync");
        for (int k = 0; k < STEP_KERNELS; k++)
            check(use->launch(compute, BLOCKS, 1, 1, THREADS, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
        check(use->copy_out_later(&loss, memory, sizeof loss, stream), "cuMemcpyDtoHAsync");
        check(use->stream_wait(stream), "cuStreamSynchronize");
    }
}

static uint64_t processor_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int count_threads(void)
{
    int count = 0;
    DIR *const tasks = opendir("/proc/self/task");
    for (struct dirent *entry; tasks != NULL && (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.';
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

int main(int argc, char **argv)
{
    char line[64], what[32];
    void *const module = open_driver(ptx);
    check(function_get(&empty, module, "nothing"), "cuModuleGetFunction");
    check(function_get(&compute, module, "compute"), "cuModuleGetFunction");
    check(stream_create(&stream, 1), "cuStreamCreate");
    check(allocate(&memory, BATCH_BYTES), "cuMemAlloc");
    through = (struct calls){launch, stream_wait, copy_in_later, copy_out_later};
    if (argc > 1)
        find_around(argv[1]);
    steps(3);
    launches(100);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin) != NULL) {
        long count = 0;
        const char *const order = strncmp(line, "around ", 7) == 0 ? line + 7 : line;
        if (sscanf(order, "%31s %ld", what, &count) < 1)
            return 2;
        use = order != line && argc > 1 ? &around : &through;
        const uint64_t began = now_ns(), worked = processor_ns();
        if (strcmp(what, "launches") == 0)
            launches(count);
        else if (strcmp(what, "trips") == 0)
            trips(count);
        else if (strcmp(what, "steps") == 0)
            steps(count);
        else if (strcmp(what, "threads") == 0) {
            printf("%d 0\n", count_threads());
            fflush(stdout);
            continue;
        }
        const uint64_t took = now_ns() - began;
        printf("%llu %llu\n", (unsigned long long)took, (unsigned long long)(processor_ns() - worked));
        fflush(stdout);
    }
    return 0;
}
