/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: utilisation, temperature and power. Utilisation is measured; the others are models that follow it: power at once,
 * temperature with a time constant of 20 s. What a soft device does not have (fans, encoders) is not supported.
 */
#include "nvml_device.h"

#include <math.h>
#include <time.h>

#define WARMING_NS 20e9
enum { TOP_POWER_PERCENT = 85 }; /* of the limit, when the engine is always busy */

unsigned long long gv_nvml_wall_us(uint64_t monotonic_ns)
{
    static _Atomic uint64_t known; /* microseconds between the clocks; one value, so that equal times stay equal */
    uint64_t offset = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (offset == 0) {
        struct timespec wall;
        clock_gettime(CLOCK_REALTIME, &wall);
        offset = (uint64_t)wall.tv_sec * 1000000u + (uint64_t)wall.tv_nsec / 1000u - gv_board_now_ns() / 1000u;
        __atomic_store_n(&known, offset, __ATOMIC_RELAXED);
    }
    return monotonic_ns / 1000u + offset;
}

unsigned gv_nvml_utilisation(unsigned number)
{
    return gv_board_utilisation(gv_nvml_board(), number, GV_NVML_SAMPLE_NS);
}

unsigned gv_nvml_power_mw(unsigned number, unsigned utilisation)
{
    const struct gv_profile *profile = gv_nvml_profile(number);
    const unsigned top = profile->limit_mw / 100 * TOP_POWER_PERCENT;
    return profile->idle_mw + (unsigned)((uint64_t)(top - profile->idle_mw) * utilisation / 100);
}

unsigned long long gv_nvml_energy_mj(unsigned number)
{
    const uint64_t busy_ms = gv_board_busy_ns(gv_nvml_device_of(number)) / 1000000u;
    const uint64_t ms = (gv_board_now_ns() - gv_nvml_board()->made_ns) / 1000000u;
    const uint64_t extra = gv_nvml_power_mw(number, 100) - gv_nvml_profile(number)->idle_mw;
    return (ms * gv_nvml_profile(number)->idle_mw + busy_ms * extra) / 1000u;
}

unsigned gv_nvml_temperature(unsigned number)
{
    struct gv_board *board = gv_nvml_board();
    struct gv_board_model *model = &board->devices[number].model;
    const int64_t cold = model->profile.idle_c * 1000, rise = (model->profile.busy_c - model->profile.idle_c) * 1000;
    gv_board_lock(board);
    const uint64_t now = gv_board_now_ns(), busy = gv_board_busy_ns(&board->devices[number]);
    if (model->heat_at_ns == 0) {
        model->heat_at_ns = board->made_ns;
        model->heat_milli_c = cold;
    }
    const double passed = (double)(now - model->heat_at_ns);
    if (now > model->heat_at_ns && busy >= model->heat_busy_ns) {
        const double load = fmin((double)(busy - model->heat_busy_ns) / passed, 1.0);
        const double target = (double)cold + load * (double)rise;
        model->heat_milli_c = (int64_t)(target + ((double)model->heat_milli_c - target) * exp(-passed / WARMING_NS));
        model->heat_at_ns = now;
        model->heat_busy_ns = busy;
    }
    const unsigned degrees = (unsigned)((model->heat_milli_c + 500) / 1000);
    gv_board_unlock(board);
    return degrees;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *utilization)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (utilization == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    utilization->gpu = gv_nvml_utilisation(number);
    utilization->memory = utilization->gpu; /* kernels use memory while they run; nothing finer is measured */
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetDynamicPstatesInfo(nvmlDevice_t device,
                                                       nvmlGpuDynamicPstatesInfo_t *pDynamicPstatesInfo)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (pDynamicPstatesInfo == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *pDynamicPstatesInfo = (nvmlGpuDynamicPstatesInfo_t){.flags = 0};
    pDynamicPstatesInfo->utilization[NVML_GPU_UTILIZATION_DOMAIN_GPU].bIsPresent = 1;
    pDynamicPstatesInfo->utilization[NVML_GPU_UTILIZATION_DOMAIN_GPU].percentage = gv_nvml_utilisation(number);
    return NVML_SUCCESS;
}

/* ---- temperature ---- */

GV_EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, nvmlTemperatureSensors_t sensorType,
                                                unsigned int *temp)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (temp == NULL || sensorType != NVML_TEMPERATURE_GPU)
        return NVML_ERROR_INVALID_ARGUMENT;
    *temp = gv_nvml_temperature(number);
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

GV_EXPORT nvmlReturn_t nvmlDeviceGetTemperatureThreshold(nvmlDevice_t device, nvmlTemperatureThresholds_t thresholdType,
                                                         unsigned int *temp)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (temp == NULL || (unsigned)thresholdType >= NVML_TEMPERATURE_THRESHOLD_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    const struct gv_profile *profile = gv_nvml_profile(number);
    switch (thresholdType) {
    case NVML_TEMPERATURE_THRESHOLD_SHUTDOWN:
        *temp = profile->shutdown_c;
        return NVML_SUCCESS;
    case NVML_TEMPERATURE_THRESHOLD_SLOWDOWN:
        *temp = profile->slowdown_c;
        return NVML_SUCCESS;
    case NVML_TEMPERATURE_THRESHOLD_GPU_MAX:
        *temp = profile->slowdown_c - 2;
        return NVML_SUCCESS;
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetMarginTemperature(nvmlDevice_t device, nvmlMarginTemperature_t *marginTempInfo)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (marginTempInfo == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (marginTempInfo->version != nvmlMarginTemperature_v1)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    marginTempInfo->marginTemperature = (int)gv_nvml_profile(number)->slowdown_c - (int)gv_nvml_temperature(number);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetThermalSettings(nvmlDevice_t device, unsigned int sensorIndex,
                                                    nvmlGpuThermalSettings_t *pThermalSettings)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (pThermalSettings == NULL || (sensorIndex != 0 && sensorIndex != NVML_THERMAL_TARGET_ALL))
        return NVML_ERROR_INVALID_ARGUMENT;
    *pThermalSettings = (nvmlGpuThermalSettings_t){.count = 1};
    pThermalSettings->sensor[0].controller = NVML_THERMAL_CONTROLLER_GPU_INTERNAL;
    pThermalSettings->sensor[0].defaultMaxTemp = (int)gv_nvml_profile(number)->shutdown_c;
    pThermalSettings->sensor[0].currentTemp = (int)gv_nvml_temperature(number);
    pThermalSettings->sensor[0].target = NVML_THERMAL_TARGET_GPU;
    return NVML_SUCCESS;
}

/* ---- power ---- */

GV_NVML_NUMBER(nvmlDeviceGetPowerUsage, unsigned, gv_nvml_power_mw(number, gv_nvml_utilisation(number)))
GV_NVML_NUMBER(nvmlDeviceGetTotalEnergyConsumption, unsigned long long, gv_nvml_energy_mj(number))
GV_NVML_NUMBER(nvmlDeviceGetPowerManagementMode, nvmlEnableState_t, NVML_FEATURE_ENABLED)
GV_NVML_NUMBER(nvmlDeviceGetPowerManagementLimit, unsigned, gv_nvml_profile(number)->limit_mw)
GV_NVML_NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, unsigned, gv_nvml_profile(number)->limit_mw)
GV_NVML_NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, gv_nvml_profile(number)->limit_mw)
GV_NVML_NUMBER(nvmlDeviceGetPowerSource, nvmlPowerSource_t, NVML_POWER_SOURCE_AC)

GV_EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *minLimit,
                                                                    unsigned int *maxLimit)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (minLimit == NULL || maxLimit == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *minLimit = gv_nvml_profile(number)->limit_least_mw;
    *maxLimit = gv_nvml_profile(number)->limit_mw;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetViolationStatus(nvmlDevice_t device, nvmlPerfPolicyType_t perfPolicyType,
                                                    nvmlViolationTime_t *violTime)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    if (violTime == NULL || (unsigned)perfPolicyType >= NVML_PERF_POLICY_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    violTime->referenceTime = gv_nvml_wall_us(gv_board_now_ns());
    violTime->violationTime = 0; /* nothing is ever held back */
    return NVML_SUCCESS;
}
