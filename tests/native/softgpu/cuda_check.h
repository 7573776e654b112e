/* SPDX-License-Identifier: Apache-2.0
 *
 * What the C tests of the soft GPU share: checks of results by name, a board of their own.
 */
#ifndef GPUVIRT_TESTS_SOFTGPU_CUDA_CHECK_H
#define GPUVIRT_TESTS_SOFTGPU_CUDA_CHECK_H

#include <cuda.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "../check.h"

static char board_path[128];
static pid_t board_owner;

__attribute__((unused)) static void remove_board(void)
{
    if (getpid() == board_owner)
        unlink(board_path);
}

/* Before the first CUDA call. The cache of compiled modules is shared by all tests of the build folder. */
__attribute__((unused)) static void use_own_board(const char *memory)
{
    snprintf(board_path, sizeof board_path, "/dev/shm/gpuvirt-test-%d", (int)getpid());
    board_owner = getpid();
    setenv("GPUVIRT_SOFTGPU_BOARD", board_path, 1);
    setenv("GPUVIRT_SOFTGPU_MEMORY", memory, 1);
    atexit(remove_board);
}

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fputc('\n', stderr);                                                                                           \
        exit(1);                                                                                                       \
    } while (0)

/* The call's result, by name. */
#define EXPECT(expected, call)                                                                                         \
    do {                                                                                                               \
        const CUresult got_ = (call);                                                                                  \
        const char *name_ = "?";                                                                                       \
        if (got_ != (expected)) {                                                                                      \
            cuGetErrorName(got_, &name_);                                                                              \
            FAIL("%s: %s (%d), expected %s", #call, name_, (int)got_, #expected);                                      \
        }                                                                                                              \
    } while (0)

#define OK(call) EXPECT(CUDA_SUCCESS, call)

__attribute__((unused)) static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

__attribute__((unused)) static CUcontext primary_context(void)
{
    CUcontext context;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    return context;
}

__attribute__((unused)) static CUmemAllocationProp device_memory(int device)
{
    CUmemAllocationProp prop;
    memset(&prop, 0, sizeof prop);
    prop.type = CU_MEM_ALLOCATION_TYPE_PINNED;
    prop.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    prop.location.id = device;
    return prop;
}

__attribute__((unused)) static CUmemAccessDesc access_of(int device, CUmemAccess_flags flags)
{
    CUmemAccessDesc desc;
    memset(&desc, 0, sizeof desc);
    desc.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    desc.location.id = device;
    desc.flags = flags;
    return desc;
}

__attribute__((unused)) static size_t free_bytes(void)
{
    size_t free_now;
    OK(cuMemGetInfo(&free_now, NULL));
    return free_now;
}

#endif
