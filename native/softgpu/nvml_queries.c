/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: memory and events.
 */
#include "nvml_device.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    GV_NVML_DEVICE(device, number);
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct gv_board *board = gv_nvml_board();
    gv_board_reap(board, 0);
    const struct gv_board_device *const own = &board->devices[number];
    /* As version 1 has it: what the driver keeps counts as used. */
    memory->total = own->memory_bytes + own->model.reserved_bytes;
    memory->used = gv_board_used(board, number) + own->model.reserved_bytes;
    memory->free = memory->used < memory->total ? memory->total - memory->used : 0;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    GV_NVML_DEVICE(device, number);
    nvmlMemory_t plain;
    const nvmlReturn_t result = nvmlDeviceGetMemoryInfo(device, &plain);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const unsigned long long kept = gv_nvml_device_of(number)->model.reserved_bytes;
    memory->total = plain.total;
    memory->reserved = kept;
    memory->free = plain.free;
    memory->used = plain.used - kept;
    return NVML_SUCCESS;
}

GV_NVML_NUMBER(nvmlDeviceGetSupportedEventTypes, unsigned long long, nvmlEventTypeXidCriticalError)

/* Events: sets exist and are waited for, but a soft device raises no Xid yet, so a wait ends by time. */
struct nvmlEventSet_st {
    char unused;
};
static struct nvmlEventSet_st event_set;

GV_EXPORT nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    if (gv_nvml_board() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (set == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *set = &event_set;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    return set == &event_set ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

GV_EXPORT nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long eventTypes, nvmlEventSet_t set)
{
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (set != &event_set)
        return NVML_ERROR_INVALID_ARGUMENT;
    return eventTypes & ~nvmlEventTypeXidCriticalError ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    if (gv_nvml_board() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (set != &event_set || data == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct timespec duration = {timeoutms / 1000, (long)(timeoutms % 1000) * 1000000};
    nanosleep(&duration, NULL);
    return NVML_ERROR_TIMEOUT;
}

GV_EXPORT nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, nvmlEventData_t *data, unsigned int timeoutms)
{
    return nvmlEventSetWait_v2(set, data, timeoutms);
}
