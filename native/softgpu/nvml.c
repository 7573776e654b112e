/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: start and end, the system, finding devices.
 */
#include "header_version.h"
#include "nvml_device.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

struct nvmlDevice_st {
    unsigned number;
};
static struct nvmlDevice_st devices[GV_BOARD_DEVICES]; /* the address is the handle */
static atomic_int users;                               /* nvmlInit minus nvmlShutdown */

int gv_nvml_missing(const char *symbol);

int gv_nvml_missing(const char *symbol)
{
    gv_log_detail("%s is not implemented: NVML_ERROR_NOT_SUPPORTED", symbol);
    return NVML_ERROR_NOT_SUPPORTED;
}

struct gv_board *gv_nvml_board(void) { return atomic_load(&users) > 0 ? gv_board_open() : NULL; }

nvmlReturn_t gv_nvml_device(nvmlDevice_t device, unsigned *number)
{
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (device < devices || device >= devices + board->device_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *number = (unsigned)(device - devices);
    return __atomic_load_n(&board->devices[*number].faults.lost, __ATOMIC_ACQUIRE) ? NVML_ERROR_GPU_IS_LOST
                                                                                   : NVML_SUCCESS;
}

nvmlDevice_t gv_nvml_handle(unsigned number) { return &devices[number]; }

GV_EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    GV_NVML_ENTER();
    (void)flags; /* NO_GPUS, NO_ATTACH: ours attaches to nothing */
    if (gv_board_open() == NULL)
        return NVML_ERROR_DRIVER_NOT_LOADED;
    atomic_fetch_add(&users, 1);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
GV_EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

GV_EXPORT nvmlReturn_t nvmlShutdown(void)
{
    GV_NVML_ENTER();
    int before = atomic_load(&users);
    do {
        if (before <= 0)
            return NVML_ERROR_UNINITIALIZED;
    } while (!atomic_compare_exchange_weak(&users, &before, before - 1));
    return NVML_SUCCESS;
}

GV_EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const words[] = {
        [NVML_SUCCESS] = "Success",
        [NVML_ERROR_UNINITIALIZED] = "Uninitialized",
        [NVML_ERROR_INVALID_ARGUMENT] = "Invalid Argument",
        [NVML_ERROR_NOT_SUPPORTED] = "Not Supported",
        [NVML_ERROR_NO_PERMISSION] = "Insufficient Permissions",
        [NVML_ERROR_ALREADY_INITIALIZED] = "Already Initialized",
        [NVML_ERROR_NOT_FOUND] = "Not Found",
        [NVML_ERROR_INSUFFICIENT_SIZE] = "Insufficient Size",
        [NVML_ERROR_INSUFFICIENT_POWER] = "Insufficient External Power",
        [NVML_ERROR_DRIVER_NOT_LOADED] = "Driver Not Loaded",
        [NVML_ERROR_TIMEOUT] = "Timeout",
        [NVML_ERROR_IRQ_ISSUE] = "Interrupt Request Issue",
        [NVML_ERROR_LIBRARY_NOT_FOUND] = "NVML Shared Library Not Found",
        [NVML_ERROR_FUNCTION_NOT_FOUND] = "Function Not Found",
        [NVML_ERROR_CORRUPTED_INFOROM] = "Corrupted infoROM",
        [NVML_ERROR_GPU_IS_LOST] = "GPU is lost",
        [NVML_ERROR_RESET_REQUIRED] = "GPU requires restart",
        [NVML_ERROR_OPERATING_SYSTEM] = "The operating system has blocked the request.",
        [NVML_ERROR_LIB_RM_VERSION_MISMATCH] = "RM has detected an NVML/RM version mismatch.",
        [NVML_ERROR_IN_USE] = "In use by another client",
        [NVML_ERROR_MEMORY] = "Insufficient Memory",
        [NVML_ERROR_NO_DATA] = "No data",
        [NVML_ERROR_VGPU_ECC_NOT_SUPPORTED] = "vGPU Not Supported With ECC Enabled",
        [NVML_ERROR_INSUFFICIENT_RESOURCES] = "Insufficient Resources",
        [NVML_ERROR_FREQ_NOT_SUPPORTED] = "Frequency Not Supported",
        [NVML_ERROR_ARGUMENT_VERSION_MISMATCH] = "Argument Version Mismatch",
        [NVML_ERROR_DEPRECATED] = "Deprecated",
        [NVML_ERROR_NOT_READY] = "Not Ready",
        [NVML_ERROR_GPU_NOT_FOUND] = "No GPUs Found",
        [NVML_ERROR_INVALID_STATE] = "Invalid State",
        [NVML_ERROR_RESET_TYPE_NOT_SUPPORTED] = "Reset Type Not Supported",
    };
    return (unsigned)result < sizeof words / sizeof *words ? words[result] : "Unknown Error";
}

GV_EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    GV_NVML_ENTER();
    return gv_nvml_board() == NULL ? NVML_ERROR_UNINITIALIZED : gv_nvml_give("595.00-softgpu", version, length);
}

GV_EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    GV_NVML_ENTER();
    return gv_nvml_board() == NULL ? NVML_ERROR_UNINITIALIZED : gv_nvml_give("13.595.00-softgpu", version, length);
}

GV_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *cudaDriverVersion)
{
    GV_NVML_ENTER();
    if (cudaDriverVersion == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *cudaDriverVersion = GV_HEADER_VERSION;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *cudaDriverVersion)
{
    return nvmlSystemGetCudaDriverVersion(cudaDriverVersion);
}

GV_EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    GV_NVML_ENTER();
    char path[64], text[512];
    if (gv_nvml_board() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (name == NULL || length == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return NVML_ERROR_NOT_FOUND;
    const ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    text[got > 0 ? got : 0] = '\0'; /* arguments are separated by NUL: this is the first */
    snprintf(name, length, "%s", text);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *deviceCount)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (deviceCount == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *deviceCount = board->device_count;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *deviceCount) { return nvmlDeviceGetCount_v2(deviceCount); }

GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (device == NULL || index >= board->device_count)
        return NVML_ERROR_INVALID_ARGUMENT;
    *device = &devices[index];
    return gv_nvml_device(*device, &index);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

static void uuid_text(const struct gv_board *board, unsigned number, char text[41])
{
    const uint8_t *u = board->devices[number].uuid;
    snprintf(text, 41, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1], u[2],
             u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    char text[41];
    uuid_text(gv_nvml_board(), number, text);
    return gv_nvml_give(text, uuid, length);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (uuid == NULL || device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned number = 0; number < board->device_count; number++) {
        char text[41];
        uuid_text(board, number, text);
        if (strcasecmp(text, uuid) == 0) {
            *device = &devices[number];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

/* The same addresses as the soft driver: bus 0x10 + number. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)
{
    GV_NVML_ENTER();
    const struct gv_board *board = gv_nvml_board();
    unsigned domain, bus, slot;
    if (board == NULL)
        return NVML_ERROR_UNINITIALIZED;
    if (pciBusId == NULL || device == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (sscanf(pciBusId, "%x:%x:%x", &domain, &bus, &slot) != 3 &&
        (domain = 0, sscanf(pciBusId, "%x:%x", &bus, &slot) != 2))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (domain != 0 || slot != 0 || bus < 0x10 || bus - 0x10 >= board->device_count)
        return NVML_ERROR_NOT_FOUND;
    *device = &devices[bus - 0x10];
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *pciBusId, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(pciBusId, device);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (pci == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    memset(pci, 0, sizeof *pci);
    pci->bus = 0x10 + number;
    pci->pciDeviceId = gv_nvml_profile(number)->pci_device;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "0000:%02X:00.0", pci->bus);
    snprintf(pci->busId, sizeof pci->busId, "00000000:%02X:00.0", pci->bus);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    GV_NVML_ENTER();
    nvmlPciInfo_t all;
    const nvmlReturn_t result = nvmlDeviceGetPciInfo_v3(device, &all);
    if (result == NVML_SUCCESS && pci != NULL)
        memcpy(pci, &all, offsetof(nvmlPciInfo_t, busId)); /* older callers have no room for the rest */
    return result;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    return nvmlDeviceGetPciInfo_v2(device, pci);
}
