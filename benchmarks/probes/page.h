/* SPDX-License-Identifier: Apache-2.0
 *
 * A page shared with the benchmark (harness/loads.py), and the kernel that counts its own work into it.
 *
 * A block works for a given time of the device's clock, whatever else the machine does, and then adds that time to the page:
 * what a job has got done can be read at any moment, exact to the block, without a word from the job.
 */
#ifndef GPUVIRT_BENCHMARKS_PAGE_H
#define GPUVIRT_BENCHMARKS_PAGE_H

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "driver.h"

struct page {
    uint64_t done_ns; /* work of all blocks that have ended; the kernels write it */
    uint64_t reserved0[7];
    uint64_t ready; /* the program may be told to go; it writes it */
    uint64_t go;    /* CLOCK_MONOTONIC ns of the start; 0: not yet. The benchmark writes it */
    uint64_t stop;  /* the benchmark writes it */
    uint64_t count; /* of serve's requests; the benchmark writes it */
    uint64_t reserved1[500];
    uint64_t requests[]; /* serve: arrivals, then the two times of each */
};
_Static_assert(sizeof(struct page) == 4096, "harness/loads.py has it so");

static const char work_kernel[] =
    ".version 7.0\n.target sm_60\n.address_size 64\n"
    ".visible .entry work(.param .u64 time, .param .u64 counter) {\n"
    " .reg .b64 %s, %n, %l, %c; .reg .pred %p;\n"
    " ld.param.u64 %l, [time]; ld.param.u64 %c, [counter]; mov.u64 %s, %globaltimer;\n"
    "again: mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again;\n"
    " cvta.to.global.u64 %c, %c; red.global.add.u64 [%c], %l; ret; }\n";

static struct page *page;
static void *work_function;
static device_address counter;

static void *driver_function(const char *name)
{
    void *const found = dlsym(dlopen("libcuda.so.1", RTLD_NOW), name);
    if (found == NULL) {
        fprintf(stderr, "the driver has no %s\n", name);
        exit(3);
    }
    return found;
}

/* Maps the file and loads the kernel. */
static void open_page(const char *file)
{
    const int descriptor = open(file, O_RDWR | O_CLOEXEC);
    struct stat state;
    if (descriptor < 0 || fstat(descriptor, &state) != 0) {
        perror(file);
        exit(2);
    }
    page = mmap(NULL, (size_t)state.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (page == MAP_FAILED) {
        perror(file);
        exit(2);
    }
    close(descriptor);
    void *const module = open_driver(work_kernel);
    int (*const host_register)(void *, size_t, unsigned) =
        (int (*)(void *, size_t, unsigned))driver_function("cuMemHostRegister_v2");
    int (*const host_address)(device_address *, void *, unsigned) =
        (int (*)(device_address *, void *, unsigned))driver_function("cuMemHostGetDevicePointer_v2");
    check(host_register(page, sizeof *page, 2 /* DEVICEMAP */), "cuMemHostRegister");
    check(host_address(&counter, page, 0), "cuMemHostGetDevicePointer");
    check(function_get(&work_function, module, "work"), "cuModuleGetFunction");
}

/* A kernel of `blocks` blocks of `block_ns` each. */
static void give_work(void *stream, uint64_t block_ns, unsigned blocks)
{
    void *parameters[] = {&block_ns, &counter};
    check(launch(work_function, blocks, 1, 1, 1, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
}

static int stopped(void) { return __atomic_load_n(&page->stop, __ATOMIC_ACQUIRE) != 0; }

/* Says that all is ready and sleeps until the time of the start. */
static uint64_t wait_for_start(void)
{
    uint64_t start;
    __atomic_store_n(&page->ready, 1, __ATOMIC_RELEASE);
    while ((start = __atomic_load_n(&page->go, __ATOMIC_ACQUIRE)) == 0 && !stopped())
        nanosleep(&(struct timespec){0, 1000000}, NULL);
    const struct timespec when = {(time_t)(start / 1000000000u), (long)(start % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) != 0)
        ;
    return start;
}

#endif
