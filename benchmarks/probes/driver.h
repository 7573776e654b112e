/* SPDX-License-Identifier: Apache-2.0
 *
 * The few calls of the CUDA driver API that the probes make, found by dlsym as programs without NVIDIA's headers do it.
 */
#ifndef GPUVIRT_BENCHMARKS_DRIVER_H
#define GPUVIRT_BENCHMARKS_DRIVER_H

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

typedef unsigned long long device_address;

/* name, symbol, parameters: one line a call */
#define DRIVER_CALLS(CALL)                                                                                             \
    CALL(init, cuInit, (unsigned flags))                                                                               \
    CALL(device_get, cuDeviceGet, (int *device, int ordinal))                                                          \
    CALL(context_retain, cuDevicePrimaryCtxRetain, (void **context, int device))                                       \
    CALL(context_set, cuCtxSetCurrent, (void *context))                                                                \
    CALL(module_load, cuModuleLoadData, (void **module, const void *image))                                            \
    CALL(function_get, cuModuleGetFunction, (void **function, void *module, const char *name))                         \
    CALL(stream_create, cuStreamCreate, (void **stream, unsigned flags))                                               \
    CALL(stream_wait, cuStreamSynchronize, (void *stream))                                                             \
    CALL(allocate, cuMemAlloc_v2, (device_address * address, size_t bytes))                                            \
    CALL(release, cuMemFree_v2, (device_address address))                                                              \
    CALL(host_allocate, cuMemHostAlloc, (void **address, size_t bytes, unsigned flags))                                \
    CALL(copy_out, cuMemcpyDtoH_v2, (void *to, device_address from, size_t bytes))                                     \
    CALL(copy_out_later, cuMemcpyDtoHAsync_v2, (void *to, device_address from, size_t bytes, void *stream))            \
    CALL(copy_in_later, cuMemcpyHtoDAsync_v2, (device_address to, const void *from, size_t bytes, void *stream))       \
    CALL(fill_later, cuMemsetD8Async, (device_address at, unsigned char value, size_t bytes, void *stream))            \
    CALL(launch, cuLaunchKernel,                                                                                       \
         (void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,                \
          unsigned shared, void *stream, void **parameters, void **extra))

#define DECLARE(name, symbol, parameters) static int(*name) parameters;
DRIVER_CALLS(DECLARE)
#undef DECLARE

static inline void check(int status, const char *doing)
{
    if (status != 0) {
        fprintf(stderr, "%s failed: CUDA error %d\n", doing, status);
        exit(3);
    }
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Loads the driver and initialises it. */
static inline void open_libraries(void)
{
    void *const library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(3);
    }
#define FIND(name, symbol, parameters)                                                                                 \
    *(void **)&name = dlsym(library, #symbol);                                                                         \
    if (name == NULL) {                                                                                                \
        fprintf(stderr, "the driver has no %s\n", #symbol);                                                            \
        exit(3);                                                                                                       \
    }
    DRIVER_CALLS(FIND)
#undef FIND
    check(init(0), "cuInit");
}

/* The same; makes the primary context of device 0 current and compiles `ptx`. */
static inline void *open_driver(const char *ptx)
{
    int device;
    void *context, *module;
    open_libraries();
    check(device_get(&device, 0), "cuDeviceGet");
    check(context_retain(&context, device), "cuDevicePrimaryCtxRetain");
    check(context_set(context), "cuCtxSetCurrent");
    check(module_load(&module, ptx), "cuModuleLoadData");
    return module;
}

#endif
