/* SPDX-License-Identifier: Apache-2.0
 *
 * Devices: names, sizes, attributes, by their profile.
 */
#include "array.h"
#include "driver.h"
#include "launch.h"
#include "model.h"

#include <stdio.h>
#include <string.h>

int gv_device_at(uint32_t place)
{
    for (int device = 0; device < gv_driver.device_count; device++)
        if (gv_place(device) == place)
            return device;
    return -1;
}

CUresult gv_check_device(CUdevice device)
{
    GV_READY();
    return device >= 0 && device < gv_driver.device_count ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

GV_EXPORT CUresult cuDeviceGetCount(int *count)
{
    GV_ENTER();
    if (count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *count = gv_driver.device_count;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    GV_ENTER();
    GV_TRY(gv_check_device(ordinal));
    if (device == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *device = ordinal;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetName(char *name, int len, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (name == NULL || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    gv_board_device_name(gv_driver.board, (uint32_t)dev, name, (size_t)len);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (uuid == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(uuid->bytes, gv_board_device(dev)->uuid, sizeof uuid->bytes);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice dev) { return cuDeviceGetUuid_v2(uuid, dev); }

GV_EXPORT CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (bytes == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *bytes = gv_board_device(dev)->memory_bytes;
    return CUDA_SUCCESS;
}

/* PCI address 0000:GG:00.0 with GG = 0x10 + device: the same as in NVML. */
GV_EXPORT CUresult cuDeviceGetPCIBusId(char *pciBusId, int len, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pciBusId == NULL || len <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    return snprintf(pciBusId, (size_t)len, "0000:%02X:00.0", 0x10 + gv_place(dev)) < len ? CUDA_SUCCESS
                                                                                         : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuDeviceGetByPCIBusId(CUdevice *dev, const char *pciBusId)
{
    GV_ENTER();
    unsigned domain = 0, bus, slot;
    if (dev == NULL || pciBusId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (sscanf(pciBusId, "%x:%x:%x", &domain, &bus, &slot) != 3) {
        domain = 0;
        if (sscanf(pciBusId, "%x:%x", &bus, &slot) != 2)
            return CUDA_ERROR_INVALID_VALUE;
    }
    const int device = domain == 0 && slot == 0 && bus >= 0x10 ? gv_device_at(bus - 0x10) : -1;
    if (device < 0)
        return CUDA_ERROR_INVALID_DEVICE;
    *dev = device;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (major == NULL || minor == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *major = (int)gv_profile_of(dev)->major;
    *minor = (int)gv_profile_of(dev)->minor;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetProperties(CUdevprop *prop, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (prop == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *prop = (CUdevprop){
        .maxThreadsPerBlock = GV_THREADS_MOST,
        .maxThreadsDim = {1024, 1024, 64},
        .maxGridSize = {INT32_MAX, 65535, 65535},
        .sharedMemPerBlock = GV_SHARED_DEFAULT,
        .totalConstantMemory = 65536,
        .SIMDWidth = 32,
        .memPitch = INT32_MAX,
        .regsPerBlock = (int)gv_profile_of(dev)->registers_per_multiprocessor,
        .clockRate = (int)gv_profile_of(dev)->clock_khz,
        .textureAlign = 512,
    };
    return CUDA_SUCCESS;
}

/* Attributes that are not 0. */
static int attribute_of(CUdevice_attribute attribute, CUdevice device)
{
    const struct gv_profile *profile = gv_profile_of(device);
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X:
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y:
        return GV_THREADS_MOST;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z:
        return 64;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X:
        return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y:
    case CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z:
        return 65535;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK:
        return GV_SHARED_DEFAULT;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN:
        return (int)profile->shared_per_block_most;
    case CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR:
        return (int)profile->shared_per_multiprocessor;
    case CU_DEVICE_ATTRIBUTE_RESERVED_SHARED_MEMORY_PER_BLOCK:
        return (int)profile->shared_reserved;
    case CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY:
        return 65536;
    case CU_DEVICE_ATTRIBUTE_WARP_SIZE:
        return 32;
    case CU_DEVICE_ATTRIBUTE_MAX_PITCH:
        return INT32_MAX;
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK:
    case CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR:
        return (int)profile->registers_per_multiprocessor;
    case CU_DEVICE_ATTRIBUTE_CLOCK_RATE:
        return (int)profile->clock_khz; /* %clock64 counts nanoseconds all the same */
    case CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE:
        return (int)profile->memory_clock_khz;
    case CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH:
        return (int)profile->bus_bits;
    case CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE:
        return (int)profile->l2_bytes;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
    case CU_DEVICE_ATTRIBUTE_SURFACE_ALIGNMENT:
        return 512;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_PITCH_ALIGNMENT:
        return 32;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT:
        return gv_multiprocessors(device);
    case CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR:
        return (int)profile->threads_per_multiprocessor;
    case CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR:
        return (int)profile->blocks_per_multiprocessor;
    case CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE:
        return (int)profile->l2_persisting_bytes;
    case CU_DEVICE_ATTRIBUTE_ECC_ENABLED:
        return profile->ecc != 0;
    case CU_DEVICE_ATTRIBUTE_GPU_PCI_DEVICE_ID:
        return (int)profile->pci_device;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        return (int)profile->minor;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        return 0x10 + (int)gv_place(device);
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT:
        return (int)profile->copy_engines;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        return (int)profile->major;
    case CU_DEVICE_ATTRIBUTE_SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO:
        return (int)profile->double_ratio;
    case CU_DEVICE_ATTRIBUTE_MEM_SYNC_DOMAIN_COUNT:
        return 1;
    case CU_DEVICE_ATTRIBUTE_NUMA_ID:
    case CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID:
        return -1;
    case CU_DEVICE_ATTRIBUTE_GPU_OVERLAP:
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS:
    case CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH:
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING:
    case CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_GLOBAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_LOCAL_L1_CACHE_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY:
    case CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS:
    case CU_DEVICE_ATTRIBUTE_COMPUTE_PREEMPTION_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM:
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_NUMA_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR_V1:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS:
    case CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR:
        return 1;
    default:
        return gv_array_limit(attribute); /* 0 for all others: no clusters, interop, ... */
    }
}

GV_EXPORT CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pi == NULL || (int)attrib <= 0 || attrib >= CU_DEVICE_ATTRIBUTE_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    *pi = attribute_of(attrib, dev);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceCanAccessPeer(int *canAccessPeer, CUdevice dev, CUdevice peerDev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    GV_TRY(gv_check_device(peerDev));
    if (canAccessPeer == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *canAccessPeer = dev != peerDev;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attrib, CUdevice srcDevice,
                                           CUdevice dstDevice)
{
    GV_ENTER();
    GV_TRY(gv_check_device(srcDevice));
    GV_TRY(gv_check_device(dstDevice));
    if (srcDevice == dstDevice)
        return CUDA_ERROR_INVALID_DEVICE;
    if (value == NULL || attrib < CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK ||
        attrib > CU_DEVICE_P2P_ATTRIBUTE_ONLY_PARTIAL_NATIVE_ATOMIC_SUPPORTED)
        return CUDA_ERROR_INVALID_VALUE;
    *value = attrib == CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED ||
             attrib == CU_DEVICE_P2P_ATTRIBUTE_NATIVE_ATOMIC_SUPPORTED ||
             attrib == CU_DEVICE_P2P_ATTRIBUTE_CUDA_ARRAY_ACCESS_SUPPORTED; /* one address space: links are alike */
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetExecAffinitySupport(int *pi, CUexecAffinityType type, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    if (pi == NULL || type != CU_EXEC_AFFINITY_TYPE_SM_COUNT)
        return CUDA_ERROR_INVALID_VALUE;
    *pi = 0;
    return CUDA_SUCCESS;
}
