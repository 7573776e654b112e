/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: memory.
 */
#include "nvml_device.h"

#include <string.h>

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    GV_NVML_ENTER();
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
    GV_NVML_ENTER();
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
