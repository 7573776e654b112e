/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's accounting (when an administrator has switched it on) by process: only the living processes of the job, under the
 * numbers that the asking process knows. The driver knows them by their numbers on the host.
 */
#include "usage.h"

#include <stddef.h>

static const struct gv_usage_process *process_of(const struct gv_usage *usage, unsigned int pid)
{
    for (uint32_t i = 0; i < usage->count; i++)
        if (usage->processes[i].pid == pid)
            return &usage->processes[i];
    return NULL;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t device, unsigned int *count, unsigned int *pids)
{
    struct gv_usage usage;
    unsigned int none = 0;
    if (count == NULL || (*count > 0 && pids == NULL) || !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetAccountingPids)(device, count, pids);
    const nvmlReturn_t asked = GV_NVML(nvmlDeviceGetAccountingPids)(device, &none, NULL);
    if (asked != NVML_SUCCESS && asked != NVML_ERROR_INSUFFICIENT_SIZE)
        return asked; /* not supported, or switched off */
    const unsigned int room = *count;
    *count = usage.count;
    if (usage.count > 0 && (room < usage.count || pids == NULL))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (uint32_t i = 0; i < usage.count; i++)
        pids[i] = usage.processes[i].pid;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t device, unsigned int pid, nvmlAccountingStats_t *stats)
{
    struct gv_usage usage;
    if (stats == NULL || !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetAccountingStats)(device, pid, stats);
    const struct gv_usage_process *const process = process_of(&usage, pid);
    const nvmlReturn_t result =
        GV_NVML(nvmlDeviceGetAccountingStats)(device, process != NULL ? process->host_pid : 0, stats);
    if (result == NVML_SUCCESS && process == NULL)
        return NVML_ERROR_NOT_FOUND;
    if (result == NVML_SUCCESS)
        stats->maxMemoryUsage = process->peak_bytes;
    return result;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetAccountingStats_v2(nvmlDevice_t device, nvmlAccountingStats_v2_t *stats)
{
    struct gv_usage usage;
    if (stats == NULL || !gv_usage(device, &usage))
        return GV_NVML(nvmlDeviceGetAccountingStats_v2)(device, stats);
    const unsigned int pid = stats->pid;
    const struct gv_usage_process *const process = process_of(&usage, pid);
    stats->pid = process != NULL ? process->host_pid : 0;
    const nvmlReturn_t result = GV_NVML(nvmlDeviceGetAccountingStats_v2)(device, stats);
    stats->pid = pid;
    if (result == NVML_SUCCESS && process == NULL)
        return NVML_ERROR_NOT_FOUND;
    if (result == NVML_SUCCESS)
        stats->maxMemoryUsage = process->peak_bytes;
    return result;
}
