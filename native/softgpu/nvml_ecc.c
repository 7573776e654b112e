/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: ECC counters, retired pages, remapped rows. They change when somebody asks for such a fault (fault_tools.c); all of
 * it is in device memory.
 */
#include "nvml_device.h"

#include <unistd.h>

static struct gv_board_device_faults *faults_of(unsigned number) { return &gv_nvml_board()->devices[number].faults; }

GV_EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, nvmlEnableState_t *current, nvmlEnableState_t *pending)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (current == NULL || pending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *current = *pending = NVML_FEATURE_ENABLED;
    return NVML_SUCCESS;
}

static nvmlReturn_t count(unsigned number, nvmlMemoryErrorType_t type, nvmlEccCounterType_t counter,
                          unsigned long long *errors)
{
    if (errors == NULL || (unsigned)type >= NVML_MEMORY_ERROR_TYPE_COUNT ||
        (unsigned)counter >= NVML_ECC_COUNTER_TYPE_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct gv_board *board = gv_nvml_board();
    gv_board_lock(board);
    *errors = faults_of(number)->ecc[type == NVML_MEMORY_ERROR_TYPE_UNCORRECTED][counter == NVML_AGGREGATE_ECC];
    gv_board_unlock(board);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, nvmlMemoryErrorType_t errorType,
                                                   nvmlEccCounterType_t counterType, unsigned long long *eccCounts)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    return count(number, errorType, counterType, eccCounts);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t device, nvmlMemoryErrorType_t errorType,
                                                       nvmlEccCounterType_t counterType,
                                                       nvmlMemoryLocation_t locationType, unsigned long long *counts)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if ((unsigned)locationType >= NVML_MEMORY_LOCATION_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    const nvmlReturn_t result = count(number, errorType, counterType, counts);
    if (result == NVML_SUCCESS && locationType != NVML_MEMORY_LOCATION_DEVICE_MEMORY)
        *counts = 0;
    return result;
}

GV_EXPORT nvmlReturn_t nvmlDeviceClearEccErrorCounts(nvmlDevice_t device, nvmlEccCounterType_t counterType)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if ((unsigned)counterType >= NVML_ECC_COUNTER_TYPE_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (geteuid() != 0)
        return NVML_ERROR_NO_PERMISSION;
    struct gv_board *board = gv_nvml_board();
    gv_board_lock(board);
    for (int kind = 0; kind < 2; kind++)
        faults_of(number)->ecc[kind][counterType == NVML_AGGREGATE_ECC] = 0;
    gv_board_unlock(board);
    return NVML_SUCCESS;
}

/* Addresses are made up: one page after the other from the start of memory. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetRetiredPages(nvmlDevice_t device, nvmlPageRetirementCause_t cause,
                                                 unsigned int *pageCount, unsigned long long *addresses)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (pageCount == NULL || (unsigned)cause >= NVML_PAGE_RETIREMENT_CAUSE_COUNT ||
        (*pageCount > 0 && addresses == NULL))
        return NVML_ERROR_INVALID_ARGUMENT;
    const unsigned room = *pageCount;
    *pageCount = __atomic_load_n(
        &faults_of(number)->retired_pages[cause == NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR], __ATOMIC_RELAXED);
    if (*pageCount > room)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *pageCount; i++)
        addresses[i] = (i + 1ull) << 16;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t device, nvmlEnableState_t *isPending)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (isPending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *isPending = NVML_FEATURE_DISABLED;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t device, unsigned int *corrRows, unsigned int *uncRows,
                                                 unsigned int *isPending, unsigned int *failureOccurred)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (corrRows == NULL || uncRows == NULL || isPending == NULL || failureOccurred == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct gv_board *board = gv_nvml_board();
    const struct gv_board_device_faults *faults = faults_of(number);
    gv_board_lock(board);
    *corrRows = faults->remapped_rows[0];
    *uncRows = faults->remapped_rows[1];
    *isPending = faults->remap_pending;
    *failureOccurred = faults->remap_failed;
    gv_board_unlock(board);
    return NVML_SUCCESS;
}
