/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of a device: the job's quota is the total, what the job has charged is used, as cuMemGetInfo says.
 */
#include "usage.h"

#define OURS(memory, usage)                                                                                            \
    do {                                                                                                               \
        (memory)->total = (usage).quota;                                                                               \
        (memory)->used = (usage).charged < (usage).quota ? (usage).charged : (usage).quota;                            \
        (memory)->free = (memory)->total - (memory)->used;                                                             \
    } while (0)

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct gv_usage usage;
    const nvmlReturn_t result = GV_NVML(nvmlDeviceGetMemoryInfo)(device, memory);
    if (result == NVML_SUCCESS && gv_usage(device, &usage))
        OURS(memory, usage);
    return result;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct gv_usage usage;
    const nvmlReturn_t result = GV_NVML(nvmlDeviceGetMemoryInfo_v2)(device, memory);
    if (result == NVML_SUCCESS && gv_usage(device, &usage)) {
        OURS(memory, usage);
        memory->reserved = 0; /* what the driver keeps for itself is not in the quota */
    }
    return result;
}
