/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: what a device is, by its profile, and the states that never change here.
 */
#include "nvml_device.h"

#include <stdio.h>
#include <string.h>

nvmlReturn_t gv_nvml_give(const char *text, char *to, unsigned length)
{
    if (to == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) + 1 > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(to, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int length)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    char text[64];
    gv_board_device_name(gv_nvml_board(), number, text, sizeof text);
    return gv_nvml_give(text, name, length);
}

/* Thirteen digits, of the UUID. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int length)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    char text[24];
    uint64_t value;
    memcpy(&value, gv_nvml_device_of(number)->uuid, sizeof value);
    snprintf(text, sizeof text, "%013llu", (unsigned long long)(value % 10000000000000ull));
    return gv_nvml_give(text, serial, length);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleBySerial(const char *serial, nvmlDevice_t *device)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (serial == NULL || device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned number = 0; number < board->device_count; number++) {
        char text[24];
        nvmlDevice_t candidate;
        if (nvmlDeviceGetHandleByIndex_v2(number, &candidate) == NVML_SUCCESS &&
            nvmlDeviceGetSerial(candidate, text, sizeof text) == NVML_SUCCESS && strcmp(text, serial) == 0) {
            *device = candidate;
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetVbiosVersion(nvmlDevice_t device, char *version, unsigned int length)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    return gv_nvml_give("00.00.00.00.01", version, length);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (major == NULL || minor == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *major = (int)gv_nvml_profile(number)->major;
    *minor = (int)gv_nvml_profile(number)->minor;
    return NVML_SUCCESS;
}

static nvmlDeviceArchitecture_t architecture(unsigned number)
{
    const struct gv_profile *profile = gv_nvml_profile(number);
    static const struct {
        unsigned capability;
        nvmlDeviceArchitecture_t architecture;
    } known[] = {{75, NVML_DEVICE_ARCH_TURING},
                 {80, NVML_DEVICE_ARCH_AMPERE},
                 {89, NVML_DEVICE_ARCH_ADA},
                 {90, NVML_DEVICE_ARCH_HOPPER},
                 {100, NVML_DEVICE_ARCH_BLACKWELL}};
    for (size_t i = 0; i < sizeof known / sizeof known[0] && profile->multiprocessors != 0; i++)
        if (known[i].capability == profile->major * 10 + profile->minor)
            return known[i].architecture;
    return NVML_DEVICE_ARCH_UNKNOWN;
}

/* Lanes of single precision: 64 on a multiprocessor of compute capability 7.5 and 8.0, 128 since. */
static nvmlReturn_t cores(nvmlDevice_t device, unsigned *count)
{
    GV_NVML_DEVICE(device, number);
    const struct gv_profile *profile = gv_nvml_profile(number);
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (profile->multiprocessors == 0)
        return NVML_ERROR_NOT_SUPPORTED; /* as many as processes have workers */
    *count = profile->multiprocessors * (profile->major * 10 + profile->minor <= 80 ? 64 : 128);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetNumGpuCores(nvmlDevice_t device, unsigned int *numCores)
{
    GV_NVML_ENTER();
    return cores(device, numCores);
}

/* The aperture: all of the memory, in a power of two. Nothing is ever mapped through it. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlBAR1Memory_t *bar1Memory)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (bar1Memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    bar1Memory->bar1Total = 256u << 20;
    while (bar1Memory->bar1Total < gv_nvml_device_of(number)->memory_bytes)
        bar1Memory->bar1Total *= 2;
    bar1Memory->bar1Used = 0;
    bar1Memory->bar1Free = bar1Memory->bar1Total;
    return NVML_SUCCESS;
}

GV_NVML_NUMBER(nvmlDeviceGetIndex, unsigned, number)
GV_NVML_NUMBER(nvmlDeviceGetMinorNumber, unsigned, number)
GV_NVML_NUMBER(nvmlDeviceGetBoardId, unsigned, (0x10 + number) << 8)
GV_NVML_NUMBER(nvmlDeviceGetMultiGpuBoard, unsigned, 0)
GV_NVML_NUMBER(nvmlDeviceGetBrand, nvmlBrandType_t, NVML_BRAND_UNKNOWN)
GV_NVML_NUMBER(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, architecture(number))
GV_NVML_NUMBER(nvmlDeviceGetMemoryBusWidth, unsigned, gv_nvml_profile(number)->bus_bits)
GV_NVML_NUMBER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, NVML_FEATURE_ENABLED)
GV_NVML_NUMBER(nvmlDeviceGetDisplayActive, nvmlEnableState_t, NVML_FEATURE_DISABLED)
GV_NVML_NUMBER(nvmlDeviceGetDisplayMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
GV_NVML_NUMBER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, NVML_COMPUTEMODE_DEFAULT)
GV_NVML_NUMBER(nvmlDeviceGetAccountingMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
GV_NVML_NUMBER(nvmlDeviceGetVirtualizationMode, nvmlGpuVirtualizationMode_t, NVML_GPU_VIRTUALIZATION_MODE_NONE)
GV_NVML_NUMBER(nvmlDeviceIsMigDeviceHandle, unsigned, 0)
GV_NVML_NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, 0)
GV_NVML_NUMBER(nvmlDeviceGetNumFans, unsigned, gv_nvml_profile(number)->fans)

GV_EXPORT nvmlReturn_t nvmlUnitGetCount(unsigned int *unitCount)
{
    GV_NVML_ENTER();
    if (gv_nvml_board() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (unitCount == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *unitCount = 0;
    return NVML_SUCCESS;
}
