/* SPDX-License-Identifier: Apache-2.0
 *
 * Processes on a device: those of the job, with the bytes that they charge. All of them are compute processes, also under an
 * MPS server; neighbours are not shown.
 */
#include "usage.h"

#include <string.h>

enum { NO_INSTANCE = 0xffffffff }; /* not a MIG device */

/* Has the driver a list at all? Errors of the device stay; a list that it may not show or does not keep, we have. */
static int has_list(nvmlReturn_t asked)
{
    return asked == NVML_SUCCESS || asked == NVML_ERROR_INSUFFICIENT_SIZE || asked == NVML_ERROR_NOT_SUPPORTED ||
           asked == NVML_ERROR_NO_PERMISSION;
}

/* All versions of the struct are the newest one, cut off at `size`. */
static nvmlReturn_t list(const struct gv_usage *usage, unsigned int *count, void *infos, size_t size)
{
    if (*count < usage->count || infos == NULL) {
        const int any = usage->count > 0;
        *count = usage->count;
        return any ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS;
    }
    for (uint32_t i = 0; i < usage->count; i++) {
        nvmlProcessInfo_t info;
        memset(&info, 0, sizeof info);
        info.pid = usage->processes[i].pid;
        info.usedGpuMemory = usage->processes[i].charged_bytes;
        info.gpuInstanceId = info.computeInstanceId = (unsigned int)NO_INSTANCE;
        memcpy((char *)infos + i * size, &info, size);
    }
    *count = usage->count;
    return NVML_SUCCESS;
}

/*
 * The driver is asked for the number only, so that an invalid handle or a lost device gives its own error. `infos` may be NULL
 * when the count is 0.
 */
#define COMPUTE(function, type)                                                                                        \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                         \
    {                                                                                                                  \
        struct gv_usage usage;                                                                                         \
        unsigned int none = 0;                                                                                         \
        if (infoCount == NULL || (*infoCount > 0 && infos == NULL) || !gv_usage(device, &usage))                       \
            return GV_NVML(function)(device, infoCount, infos);                                                        \
        const nvmlReturn_t asked = GV_NVML(function)(device, &none, NULL);                                             \
        return has_list(asked) ? list(&usage, infoCount, infos, sizeof *infos) : asked;                                \
    }
COMPUTE(nvmlDeviceGetComputeRunningProcesses, nvmlProcessInfo_v1_t)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
COMPUTE(nvmlDeviceGetComputeRunningProcesses_v3, nvmlProcessInfo_t)

#define NONE(function, type)                                                                                           \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                         \
    {                                                                                                                  \
        struct gv_usage usage;                                                                                         \
        unsigned int none = 0;                                                                                         \
        if (infoCount == NULL || (*infoCount > 0 && infos == NULL) || !gv_usage(device, &usage))                       \
            return GV_NVML(function)(device, infoCount, infos);                                                        \
        const nvmlReturn_t asked = GV_NVML(function)(device, &none, NULL);                                             \
        if (!has_list(asked) || asked == NVML_ERROR_NOT_SUPPORTED)                                                     \
            return asked;                                                                                              \
        *infoCount = 0;                                                                                                \
        return NVML_SUCCESS;                                                                                           \
    }
NONE(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
NONE(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
NONE(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
NONE(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)
NONE(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
NONE(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)

GV_EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    struct gv_usage usage;
    if (plist == NULL || plist->version != nvmlProcessDetailList_v1 || plist->mode >= NVML_PROCESS_MODE_MAX ||
        !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetRunningProcessDetailList)(device, plist);
    nvmlProcessDetailList_t count = {.version = plist->version, .mode = plist->mode};
    const nvmlReturn_t asked = GV_NVML(nvmlDeviceGetRunningProcessDetailList)(device, &count);
    if (!has_list(asked))
        return asked;
    const int compute = plist->mode == NVML_PROCESS_MODE_COMPUTE || plist->mode == NVML_PROCESS_MODE_ALL;
    const uint32_t found = compute ? usage.count : 0;
    const unsigned int room = plist->numProcArrayEntries;
    plist->numProcArrayEntries = found;
    if (found > 0 && (room < found || plist->procArray == NULL))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < found; i++)
        plist->procArray[i] = (nvmlProcessDetail_v1_t){.pid = usage.processes[i].pid,
                                                       .usedGpuMemory = usage.processes[i].charged_bytes,
                                                       .gpuInstanceId = (unsigned int)NO_INSTANCE,
                                                       .computeInstanceId = (unsigned int)NO_INSTANCE};
    return NVML_SUCCESS;
}
