/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: nvmlDeviceGetFieldValues, which answers many questions at once. A field that is not known here is not supported,
 * in its own result, as on cards without it.
 */
#include "nvml_device.h"

static nvmlReturn_t put(nvmlFieldValue_t *field, nvmlValueType_t type, unsigned long long value)
{
    field->valueType = type;
    if (type == NVML_VALUE_TYPE_UNSIGNED_INT)
        field->value.uiVal = (unsigned)value;
    else if (type == NVML_VALUE_TYPE_SIGNED_INT)
        field->value.siVal = (int)value;
    else
        field->value.ullVal = value;
    return NVML_SUCCESS;
}

static nvmlReturn_t ecc_count(nvmlFieldValue_t *field, nvmlDevice_t device, nvmlMemoryErrorType_t error,
                              nvmlEccCounterType_t counter)
{
    unsigned long long count = 0;
    const nvmlReturn_t result = nvmlDeviceGetTotalEccErrors(device, error, counter, &count);
    return result == NVML_SUCCESS ? put(field, NVML_VALUE_TYPE_UNSIGNED_LONG_LONG, count) : result;
}

static nvmlReturn_t ecc_mode(nvmlFieldValue_t *field, nvmlDevice_t device)
{
    nvmlEnableState_t current = NVML_FEATURE_DISABLED, pending = NVML_FEATURE_DISABLED;
    const nvmlReturn_t result = nvmlDeviceGetEccMode(device, &current, &pending);
    if (result != NVML_SUCCESS)
        return result;
    return put(field, NVML_VALUE_TYPE_UNSIGNED_INT, field->fieldId == NVML_FI_DEV_ECC_CURRENT ? current : pending);
}

static nvmlReturn_t answer(nvmlDevice_t device, unsigned number, nvmlFieldValue_t *field)
{
    const struct gv_profile *profile = gv_nvml_profile(number);
    const struct gv_board_link *links = gv_nvml_device_of(number)->model.link;
    const nvmlValueType_t small = NVML_VALUE_TYPE_UNSIGNED_INT, large = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    const int margin = (int)profile->slowdown_c;
    switch (field->fieldId) {
    case NVML_FI_DEV_ECC_CURRENT:
    case NVML_FI_DEV_ECC_PENDING:
        return ecc_mode(field, device);
    case NVML_FI_DEV_ECC_SBE_VOL_TOTAL:
        return ecc_count(field, device, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_VOLATILE_ECC);
    case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
        return ecc_count(field, device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC);
    case NVML_FI_DEV_ECC_SBE_AGG_TOTAL:
        return ecc_count(field, device, NVML_MEMORY_ERROR_TYPE_CORRECTED, NVML_AGGREGATE_ECC);
    case NVML_FI_DEV_ECC_DBE_AGG_TOTAL:
        return ecc_count(field, device, NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_AGGREGATE_ECC);
    case NVML_FI_DEV_PERF_POLICY_POWER:
    case NVML_FI_DEV_PERF_POLICY_THERMAL:
        return put(field, large, 0); /* nothing is ever held back */
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
    case NVML_FI_DEV_ENERGY:
        return put(field, large, gv_nvml_energy_mj(number));
    case NVML_FI_DEV_NVLINK_LINK_COUNT:
    case NVML_FI_DEV_C2C_LINK_COUNT:
        return put(field, small, 0);
    case NVML_FI_DEV_PCIE_REPLAY_COUNTER:
        return put(field, small, 0);
    case NVML_FI_DEV_POWER_AVERAGE:
        return put(field, small, gv_nvml_power_mw(number, gv_board_utilisation(gv_nvml_board(), number, 1000000000u)));
    case NVML_FI_DEV_POWER_INSTANT:
        return put(field, small, gv_nvml_power_mw(number, gv_board_utilisation(gv_nvml_board(), number, 100000000u)));
    case NVML_FI_DEV_POWER_MIN_LIMIT:
        return put(field, small, profile->limit_least_mw);
    case NVML_FI_DEV_POWER_MAX_LIMIT:
    case NVML_FI_DEV_POWER_DEFAULT_LIMIT:
    case NVML_FI_DEV_POWER_CURRENT_LIMIT:
    case NVML_FI_DEV_POWER_REQUESTED_LIMIT:
        return put(field, small, profile->limit_mw);
    case NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT: /* as degrees below the slowdown */
        return put(field, NVML_VALUE_TYPE_SIGNED_INT, (unsigned long long)(margin - (int)profile->shutdown_c));
    case NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT:
        return put(field, NVML_VALUE_TYPE_SIGNED_INT, 0);
    case NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT:
        return put(field, NVML_VALUE_TYPE_SIGNED_INT, 2);
    case NVML_FI_DEV_PCIE_COUNT_TX_BYTES:
        return put(field, large, __atomic_load_n(&links[1].bytes, __ATOMIC_RELAXED));
    case NVML_FI_DEV_PCIE_COUNT_RX_BYTES:
        return put(field, large, __atomic_load_n(&links[0].bytes, __ATOMIC_RELAXED));
    case NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED:
        return put(field, small, 0);
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int valuesCount, nvmlFieldValue_t *values)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (valuesCount <= 0 || values == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < valuesCount; i++) {
        const uint64_t start = gv_board_now_ns();
        values[i].nvmlReturn = values[i].fieldId == 0 || values[i].fieldId >= NVML_FI_MAX
                                   ? NVML_ERROR_INVALID_ARGUMENT
                                   : answer(device, number, &values[i]);
        values[i].timestamp = (long long)gv_nvml_wall_us(start);
        values[i].latencyUsec = (long long)(gv_board_now_ns() - start) / 1000;
    }
    return NVML_SUCCESS;
}
