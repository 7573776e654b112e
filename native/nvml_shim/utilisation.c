/* SPDX-License-Identifier: Apache-2.0
 *
 * How busy each process of the job kept the GPU in the last seconds, by the daemon's books. What the device as a whole did
 * (nvmlDeviceGetUtilizationRates) is the driver's to say, neighbours included.
 */
#include "usage.h"

#include <stddef.h>

struct sample {
    unsigned int pid, percent;
};

/* Processes with some use; none when the caller has seen an answer as new as this one. */
static unsigned int samples_of(const struct gv_usage *usage, unsigned long long seen_us, unsigned long long now_us,
                               struct sample samples[GV_USAGE_PROCESSES])
{
    unsigned int found = 0;
    for (uint32_t i = 0; i < usage->count && now_us > seen_us; i++) {
        const struct gv_usage_process *const process = &usage->processes[i];
        if (process->window_ns == 0 || process->recent_ns == 0)
            continue;
        const uint64_t percent =
            (process->recent_ns / 1000 * 100 + process->window_ns / 2000) / (process->window_ns / 1000 + 1);
        samples[found++] = (struct sample){process->pid, percent > 100 ? 100 : (unsigned int)percent};
    }
    return found;
}

/* memUtil is how long memory was read or written: the daemon does not know it, so it is the same figure. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, nvmlProcessUtilizationSample_t *utilization,
                                                       unsigned int *processSamplesCount,
                                                       unsigned long long lastSeenTimeStamp)
{
    struct gv_usage usage;
    struct sample samples[GV_USAGE_PROCESSES];
    if (processSamplesCount == NULL || !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetProcessUtilization)(device, utilization, processSamplesCount, lastSeenTimeStamp);
    const unsigned long long now_us = gv_wall_us();
    const unsigned int found = samples_of(&usage, lastSeenTimeStamp, now_us, samples), room = *processSamplesCount;
    *processSamplesCount = found;
    if (found == 0)
        return NVML_ERROR_NOT_FOUND;
    if (utilization == NULL || room < found)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < found; i++)
        utilization[i] = (nvmlProcessUtilizationSample_t){
            .pid = samples[i].pid, .timeStamp = now_us, .smUtil = samples[i].percent, .memUtil = samples[i].percent};
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetProcessesUtilizationInfo(nvmlDevice_t device,
                                                             nvmlProcessesUtilizationInfo_t *procesesUtilInfo)
{
    struct gv_usage usage;
    struct sample samples[GV_USAGE_PROCESSES];
    if (procesesUtilInfo == NULL || procesesUtilInfo->version != nvmlProcessesUtilizationInfo_v1 ||
        !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetProcessesUtilizationInfo)(device, procesesUtilInfo);
    const unsigned long long now_us = gv_wall_us();
    const unsigned int found = samples_of(&usage, procesesUtilInfo->lastSeenTimeStamp, now_us, samples);
    const unsigned int room = procesesUtilInfo->processSamplesCount;
    procesesUtilInfo->processSamplesCount = found;
    if (found == 0)
        return NVML_ERROR_NOT_FOUND;
    if (procesesUtilInfo->procUtilArray == NULL || room < found)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < found; i++)
        procesesUtilInfo->procUtilArray[i] = (nvmlProcessUtilizationInfo_v1_t){
            .timeStamp = now_us, .pid = samples[i].pid, .smUtil = samples[i].percent, .memUtil = samples[i].percent};
    return NVML_SUCCESS;
}
