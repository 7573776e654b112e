/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: what a device is doing. Memory, processes and utilisation come from the board; temperature and power are models that
 * follow utilisation; what a soft device does not have (fans, ECC, MIG) is not supported, as on cards without it.
 */
#include "nvml_device.h"

#include <string.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_NS 500000000ull /* NVML samples over 1/6 to 1 s */
enum { IDLE_MW = 50000, BUSY_MW = 250000, LIMIT_MW = 300000, IDLE_C = 30, BUSY_C = 60 };

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    struct gv_board *board = gv_nvml_board();
    gv_board_reap(board, 0);
    memory->total = board->devices[number].memory_bytes;
    memory->used = gv_board_used(board, number);
    memory->free = memory->used < memory->total ? memory->total - memory->used : 0;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    GV_NVML_ENTER();
    nvmlMemory_t plain;
    const nvmlReturn_t result = nvmlDeviceGetMemoryInfo(device, &plain);
    if (result != NVML_SUCCESS)
        return result;
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != nvmlMemory_v2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    memory->total = plain.total;
    memory->reserved = 0;
    memory->free = plain.free;
    memory->used = plain.used;
    return NVML_SUCCESS;
}

/* Fills `infos` of `size` bytes each; all versions of the struct begin with pid and used memory. */
static nvmlReturn_t list_processes(nvmlDevice_t device, unsigned *count, void *infos, size_t size)
{
    GV_NVML_DEVICE(device, number);
    static const unsigned none = 0xffffffffu; /* no MIG instance */
    struct gv_board_user users[GV_BOARD_PROCESSES];
    if (count == NULL || (*count > 0 && infos == NULL))
        return NVML_ERROR_INVALID_ARGUMENT;
    const uint32_t found = gv_board_users(gv_nvml_board(), number, users, GV_BOARD_PROCESSES);
    if (found > *count) {
        *count = found;
        return NVML_ERROR_INSUFFICIENT_SIZE;
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

static unsigned utilisation(unsigned number) { return gv_board_utilisation(gv_nvml_board(), number, SAMPLE_NS); }

GV_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (utilization == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    utilization->gpu = utilisation(number);
    utilization->memory = utilization->gpu; /* kernels use memory while they run; nothing finer is measured */
    return NVML_SUCCESS;
}

/* A device query that answers with one number. */
#define NUMBER(function, type, value)                                                                                  \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, type *answer)                                                 \
    {                                                                                                                  \
        GV_NVML_ENTER();                                                                                               \
        GV_NVML_DEVICE(device, number);                                                                                \
        if (answer == NULL)                                                                                            \
            return NVML_ERROR_INVALID_ARGUMENT;                                                                        \
        (void)number;                                                                                                  \
        *answer = (type)(value);                                                                                       \
        return NVML_SUCCESS;                                                                                           \
    }
NUMBER(nvmlDeviceGetIndex, unsigned, number)
NUMBER(nvmlDeviceGetMinorNumber, unsigned, number)
NUMBER(nvmlDeviceGetBoardId, unsigned, (0x10 + number) << 8)
NUMBER(nvmlDeviceGetMultiGpuBoard, unsigned, 0)
NUMBER(nvmlDeviceGetBrand, nvmlBrandType_t, NVML_BRAND_UNKNOWN)
NUMBER(nvmlDeviceGetArchitecture, nvmlDeviceArchitecture_t, NVML_DEVICE_ARCH_UNKNOWN)
NUMBER(nvmlDeviceGetPersistenceMode, nvmlEnableState_t, NVML_FEATURE_ENABLED)
NUMBER(nvmlDeviceGetPerformanceState, nvmlPstates_t, NVML_PSTATE_0)
NUMBER(nvmlDeviceGetPowerState, nvmlPstates_t, NVML_PSTATE_0)
NUMBER(nvmlDeviceGetDisplayActive, nvmlEnableState_t, NVML_FEATURE_DISABLED)
NUMBER(nvmlDeviceGetDisplayMode, nvmlEnableState_t, NVML_FEATURE_DISABLED)
NUMBER(nvmlDeviceGetComputeMode, nvmlComputeMode_t, NVML_COMPUTEMODE_DEFAULT)
NUMBER(nvmlDeviceIsMigDeviceHandle, unsigned, 0)
NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, 0)
NUMBER(nvmlDeviceGetPowerUsage, unsigned, IDLE_MW + (BUSY_MW - IDLE_MW) * utilisation(number) / 100)
NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, LIMIT_MW)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, LIMIT_MW)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, LIMIT_MW)

GV_EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (major == NULL || minor == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *major = 9;
    *minor = 0;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType,
                                                unsigned int *temp)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (temp == NULL || sensorType != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    *temp = IDLE_C + (BUSY_C - IDLE_C) * utilisation(number) / 100;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    GV_NVML_ENTER();
    unsigned degrees;
    if (temperature == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (temperature->version != nvmlTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    const nvmlReturn_t result = nvmlDeviceGetTemperature(device, temperature->sensorType, &degrees);
    if (result == NVML_SUCCESS)
        temperature->temperature = (int)degrees;
    return result;
}

static nvmlReturn_t idle_unit(nvmlDevice_t device, unsigned *utilization, unsigned *period)
{
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (utilization == NULL || period == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *utilization = 0; /* there is no encoder or decoder */
    *period = 167000;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                                       unsigned int *samplingPeriodUs)
{
    GV_NVML_ENTER();
    return idle_unit(device, utilization, samplingPeriodUs);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *utilization,
                                                       unsigned int *samplingPeriodUs)
{
    GV_NVML_ENTER();
    return idle_unit(device, utilization, samplingPeriodUs);
}
