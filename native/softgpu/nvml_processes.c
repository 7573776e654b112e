/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: which processes use a device, and how much of the engine each had.
 */
#include "nvml_device.h"

#include <string.h>

/* Fills `infos` of `size` bytes each; all versions of the struct begin with pid and used memory. */
static nvmlReturn_t list_processes(nvmlDevice_t device, unsigned *count, void *infos, size_t size)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    static const unsigned none = 0xffffffffu; /* no MIG instance */
    struct gv_board_user users[GV_BOARD_PROCESSES];
    if (count == NULL || (*count > 0 && infos == NULL))
        return NVML_ERROR_INVALID_ARGUMENT;
    const uint32_t found = gv_board_users(gv_nvml_board(), number, users, GV_BOARD_PROCESSES);
    if (found > *count || infos == NULL) {
        const bool none_at_all = found == 0;
        *count = found;
        return none_at_all ? NVML_SUCCESS : NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (uint32_t i = 0; i < found; i++) {
        nvmlProcessInfo_t info;
        memset(&info, 0, sizeof info);
        info.pid = users[i].pid;
        info.usedGpuMemory = users[i].bytes;
        info.gpuInstanceId = none;
        info.computeInstanceId = none;
        memcpy((char *)infos + i * size, &info, size);
    }
    *count = found;
    return NVML_SUCCESS;
}

static nvmlReturn_t no_processes(nvmlDevice_t device, unsigned *count)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = 0;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *infoCount,
                                                               nvmlProcessInfo_t *infos)
{
    GV_NVML_ENTER();
    return list_processes(device, infoCount, infos, sizeof *infos);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *infoCount,
                                                               nvmlProcessInfo_v2_t *infos)
{
    GV_NVML_ENTER();
    return list_processes(device, infoCount, infos, sizeof *infos);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *infoCount,
                                                            nvmlProcessInfo_v1_t *infos)
{
    GV_NVML_ENTER();
    return list_processes(device, infoCount, infos, sizeof *infos);
}

#define NO_PROCESSES(function, type)                                                                                   \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, unsigned int *infoCount, type *infos)                         \
    {                                                                                                                  \
        GV_NVML_ENTER();                                                                                               \
        (void)infos;                                                                                                   \
        return no_processes(device, infoCount);                                                                        \
    }
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v3, nvmlProcessInfo_t)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses_v2, nvmlProcessInfo_v2_t)
NO_PROCESSES(nvmlDeviceGetGraphicsRunningProcesses, nvmlProcessInfo_v1_t)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v3, nvmlProcessInfo_t)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses_v2, nvmlProcessInfo_v2_t)
NO_PROCESSES(nvmlDeviceGetMPSComputeRunningProcesses, nvmlProcessInfo_v1_t)

GV_EXPORT nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t device, nvmlProcessDetailList_t *plist)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (plist == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (plist->version != nvmlProcessDetailList_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    struct gv_board_user users[GV_BOARD_PROCESSES];
    const uint32_t found = plist->mode == 0 ? gv_board_users(gv_nvml_board(), number, users, GV_BOARD_PROCESSES) : 0;
    const unsigned room = plist->numProcArrayEntries;
    plist->numProcArrayEntries = found;
    if (found > room || (found > 0 && plist->procArray == NULL))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < found; i++)
        plist->procArray[i] = (nvmlProcessDetail_v1_t){.pid = users[i].pid,
                                                       .usedGpuMemory = users[i].bytes,
                                                       .gpuInstanceId = 0xffffffffu,
                                                       .computeInstanceId = 0xffffffffu};
    return NVML_SUCCESS;
}

/* ---- utilisation ---- */

/* One process's share of the engine over the whole samples after `after_us` (since 1970; 0: all there are). */
struct share {
    unsigned pid, percent;
    unsigned long long until_us;
};

static unsigned shares(unsigned number, unsigned long long after_us, struct share *list, unsigned room)
{
    struct gv_board *board = gv_nvml_board();
    const struct gv_board_device *device = &board->devices[number];
    const uint64_t now = gv_board_now_ns(), running = now / GV_BOARD_SAMPLE_NS;
    uint64_t first = running - (GV_BOARD_SAMPLES - 2);
    while (first < running && gv_nvml_wall_us((first + 1) * GV_BOARD_SAMPLE_NS) <= after_us)
        first++;
    if (first == running)
        return 0;
    const uint64_t start = first * GV_BOARD_SAMPLE_NS, end = running * GV_BOARD_SAMPLE_NS;
    const uint32_t owner = __atomic_load_n(&device->engine_owner, __ATOMIC_ACQUIRE);
    gv_board_reap(board, 0);
    unsigned count = 0;
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        const struct gv_board_account *account = &board->processes[record].accounts[number];
        const uint32_t pid = __atomic_load_n(&board->processes[record].pid, __ATOMIC_ACQUIRE);
        uint64_t busy = 0;
        for (uint64_t sample = first; sample < running && pid != 0; sample++)
            if (__atomic_load_n(&account->samples[sample % GV_BOARD_SAMPLES].number, __ATOMIC_ACQUIRE) ==
                (uint32_t)sample)
                busy +=
                    __atomic_load_n(&account->samples[sample % GV_BOARD_SAMPLES].busy_us, __ATOMIC_RELAXED) * 1000ull;
        if (pid != 0 && owner == (uint32_t)record + 1) { /* a turn that goes on is not in the samples yet */
            const uint64_t since = __atomic_load_n(&device->engine_since_ns, __ATOMIC_RELAXED);
            busy += since < end ? end - (since > start ? since : start) : 0;
        }
        if (busy == 0)
            continue;
        const uint64_t percent = (busy * 100 + (end - start) / 2) / (end - start);
        if (count < room)
            list[count] = (struct share){pid, percent > 100 ? 100 : (unsigned)percent, gv_nvml_wall_us(end)};
        count++;
    }
    return count;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                       unsigned int *processSamplesCount,
                                                       unsigned long long lastSeenTimeStamp)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (processSamplesCount == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct share list[GV_BOARD_PROCESSES];
    const unsigned found = shares(number, lastSeenTimeStamp, list, GV_BOARD_PROCESSES);
    if (utilization == NULL || found > *processSamplesCount) {
        *processSamplesCount = found;
        return found == 0 ? NVML_ERROR_NOT_FOUND : NVML_ERROR_INSUFFICIENT_SIZE;
    }
    *processSamplesCount = found;
    for (unsigned i = 0; i < found; i++)
        utilization[i] = (nvmlProcessUtilizationSample_t){
            .pid = list[i].pid, .timeStamp = list[i].until_us, .smUtil = list[i].percent, .memUtil = list[i].percent};
    return found == 0 ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                             nvmlProcessesUtilizationInfo_t *procesesUtilInfo)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (procesesUtilInfo == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (procesesUtilInfo->version != nvmlProcessesUtilizationInfo_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    struct share list[GV_BOARD_PROCESSES];
    const unsigned found = shares(number, procesesUtilInfo->lastSeenTimeStamp, list, GV_BOARD_PROCESSES);
    const unsigned room = procesesUtilInfo->processSamplesCount;
    procesesUtilInfo->processSamplesCount = found;
    if (found == 0)
        return NVML_ERROR_NOT_FOUND;
    if (procesesUtilInfo->procUtilArray == NULL || found > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < found; i++)
        procesesUtilInfo->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){
            .timeStamp = list[i].until_us, .pid = list[i].pid, .smUtil = list[i].percent, .memUtil = list[i].percent};
    return NVML_SUCCESS;
}

/* The device's own samples: one for each 50 ms. */
static bool sample_value(unsigned number, nvmlSamplingType_t type, unsigned utilisation, unsigned *value)
{
    switch (type) {
    case NVML_GPU_UTILIZATION_SAMPLES:
    case NVML_MEMORY_UTILIZATION_SAMPLES:
        *value = utilisation;
        return true;
    case NVML_TOTAL_POWER_SAMPLES:
        *value = gv_nvml_power_mw(number, utilisation);
        return true;
    case NVML_PROCESSOR_CLK_SAMPLES:
        *value = gv_nvml_sm_mhz(number, utilisation);
        return true;
    case NVML_MEMORY_CLK_SAMPLES:
        *value = gv_nvml_profile(number)->memory_clock_khz / 1000;
        return true;
    default:
        return false; /* there is no encoder, decoder, ... */
    }
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, nvmlSamplingType_t type,
                                            unsigned long long lastSeenTimeStamp, nvmlValueType_t *sampleValType,
                                            unsigned int *sampleCount, nvmlSample_t *samples)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (sampleValType == NULL || sampleCount == NULL || (samples != NULL && *sampleCount == 0) ||
        (unsigned)type >= NVML_SAMPLINGTYPE_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    unsigned value;
    if (!sample_value(number, type, 0, &value))
        return NVML_ERROR_NOT_SUPPORTED;
    *sampleValType = NVML_VALUE_TYPE_UNSIGNED_INT;
    const uint64_t running = gv_board_now_ns() / GV_BOARD_BUCKET_NS;
    const unsigned room = *sampleCount;
    unsigned found = 0;
    for (uint64_t bucket = running - (GV_BOARD_BUCKETS - 2); bucket < running; bucket++) {
        const unsigned long long end = gv_nvml_wall_us((bucket + 1) * GV_BOARD_BUCKET_NS);
        if (end <= lastSeenTimeStamp || (samples != NULL && found == room))
            continue;
        if (samples != NULL) {
            sample_value(number, type, gv_board_bucket_busy(gv_nvml_device_of(number), bucket), &value);
            samples[found].timeStamp = end;
            samples[found].sampleValue.uiVal = value;
        }
        found++;
    }
    *sampleCount = found;
    return found == 0 ? NVML_ERROR_NOT_FOUND : NVML_SUCCESS;
}
