/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim asks a driver before it attaches, answered for one device of 256 MiB that does not exist.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include "watched_driver.h"

#define EXPORT __attribute__((visibility("default")))

static const CUcontext context = (CUcontext)0xc0;
static watcher_function watcher;

EXPORT void watch(watcher_function function);
EXPORT void watch(watcher_function function) { watcher = function; }

int watched_reached(int number, const uint64_t words[WATCHED_WORDS])
{
    return watcher == NULL ? CUDA_SUCCESS : watcher(number, words);
}

EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
    *driverVersion = 13000;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    (void)attrib, (void)dev;
    *pi = 1;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    (void)dev;
    *bytes = 256u << 20;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    (void)dev;
    memset(uuid, 7, sizeof *uuid);
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                              CUmemAllocationGranularity_flags option)
{
    (void)prop, (void)option;
    *granularity = 2u << 20;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
                                    unsigned long long flags)
{
    (void)size, (void)alignment, (void)flags;
    *ptr = addr;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuMemCreate(CUmemGenericAllocationHandle *handle, size_t size, const CUmemAllocationProp *prop,
                            unsigned long long flags)
{
    static CUmemGenericAllocationHandle last;
    (void)size, (void)prop, (void)flags;
    *handle = ++last;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *pctx, CUdevice dev)
{
    (void)dev;
    *pctx = context;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetCurrent(CUcontext *pctx)
{
    *pctx = context;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    *device = 0;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    (void)Flags;
    *phStream = (CUstream)0x51;
    return CUDA_SUCCESS;
}
EXPORT CUresult cuEventCreate(CUevent *phEvent, unsigned int Flags)
{
    (void)Flags;
    *phEvent = (CUevent)0xe1;
    return CUDA_SUCCESS;
}
