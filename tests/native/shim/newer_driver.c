/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 that is newer than our headers, before the driver of GPUVIRT_TEST_BEHIND. It knows
 *     cuNewerThing              a name that no header of ours has, since any version; with flags too
 *     cuDeviceGetCount          with a newer function since the version after our headers'
 * accepts flag 4 (the same functions through another door) and writes each look-up that it is asked for, as a line
 * NAME VERSION FLAGS, to the file GPUVIRT_TEST_RECORD.
 */
#define __CUDA_API_VERSION_INTERNAL
#define _GNU_SOURCE
#include <cuda.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "header_version.h"

#define EXPORT __attribute__((visibility("default")))

void *behind[GV_SYMBOL_COUNT]; /* newer_table.c jumps through it */
static const char *const names[] = {
#define GV_SYMBOL(index, symbol) [index] = #symbol,
#include "entry_points.inc"
#undef GV_SYMBOL
};
static void *library;

__attribute__((constructor)) static void loading(void)
{
    const char *path = getenv("GPUVIRT_TEST_BEHIND");
    library = path == NULL ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "newer_driver: no driver in GPUVIRT_TEST_BEHIND\n");
        abort();
    }
    for (int i = 0; i < GV_SYMBOL_COUNT; i++)
        behind[i] = dlsym(library, names[i]);
}

enum { NEWER_VERSION = GV_HEADER_VERSION + 1000 };

EXPORT CUresult cuNewerThing(void);
EXPORT CUresult cuNewerThing(void) { return CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetCount_v99(int *count, int *reserved);
EXPORT CUresult cuDeviceGetCount_v99(int *count, int *reserved)
{
    *count = *reserved = 99;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
    *driverVersion = NEWER_VERSION;
    return CUDA_SUCCESS;
}

static void record(const char *name, int version, cuuint64_t flags)
{
    const char *path = getenv("GPUVIRT_TEST_RECORD");
    FILE *file = path == NULL ? NULL : fopen(path, "a");
    if (file == NULL)
        return;
    fprintf(file, "%s %d %llu\n",
            name == NULL      ? "(null)"
            : name[0] == '\0' ? "(empty)"
                              : name,
            version, (unsigned long long)flags);
    fclose(file);
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *symbolStatus)
{
    __typeof__(&cuGetProcAddress_v2) older = (__typeof__(&cuGetProcAddress_v2))dlsym(library, "cuGetProcAddress_v2");
    record(symbol, cudaVersion, flags);
    void *own = NULL;
    if (symbol != NULL && strcmp(symbol, "cuNewerThing") == 0)
        own = (void *)cuNewerThing;
    if (symbol != NULL && strcmp(symbol, "cuDeviceGetCount") == 0 && cudaVersion > GV_HEADER_VERSION)
        own = (void *)cuDeviceGetCount_v99;
    if (cudaVersion > NEWER_VERSION)
        return CUDA_ERROR_INVALID_VALUE;
    if (own == NULL)
        return older(symbol, pfn, cudaVersion > GV_HEADER_VERSION ? GV_HEADER_VERSION : cudaVersion,
                     flags & ~(cuuint64_t)4, symbolStatus);
    *pfn = own;
    if (symbolStatus != NULL)
        *symbolStatus = CU_GET_PROC_ADDRESS_SUCCESS;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuGetProcAddress(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags)
{
    return cuGetProcAddress_v2(symbol, pfn, cudaVersion, flags, NULL);
}
