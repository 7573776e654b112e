/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: clocks. The memory's is constant; the others' are at their highest while the engine is in use.
 */
#include "nvml_device.h"

enum { IDLE_MHZ = 345 };

unsigned gv_nvml_sm_mhz(unsigned number, unsigned utilisation)
{
    const unsigned most = gv_nvml_profile(number)->clock_khz / 1000;
    return utilisation > 0 || most < IDLE_MHZ ? most : IDLE_MHZ;
}

static unsigned most_mhz(unsigned number, nvmlClockType_t type)
{
    const struct gv_profile *profile = gv_nvml_profile(number);
    return (type == NVML_CLOCK_MEM ? profile->memory_clock_khz : profile->clock_khz) / 1000;
}

static unsigned now_mhz(unsigned number, nvmlClockType_t type)
{
    return type == NVML_CLOCK_MEM ? most_mhz(number, type) : gv_nvml_sm_mhz(number, gv_nvml_utilisation(number));
}

static nvmlReturn_t clock_of(nvmlDevice_t device, nvmlClockType_t type, unsigned *clock,
                             unsigned (*read)(unsigned, nvmlClockType_t))
{
    GV_NVML_DEVICE(device, number);
    if (clock == NULL || (unsigned)type >= NVML_CLOCK_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    *clock = read(number, type);
    return NVML_SUCCESS;
}

#define CLOCK(function, read)                                                                                          \
    GV_EXPORT nvmlReturn_t function(nvmlDevice_t device, nvmlClockType_t type, unsigned int *clock)                    \
    {                                                                                                                  \
        GV_NVML_ENTER();                                                                                               \
        return clock_of(device, type, clock, read);                                                                    \
    }
CLOCK(nvmlDeviceGetClockInfo, now_mhz)
CLOCK(nvmlDeviceGetMaxClockInfo, most_mhz)
CLOCK(nvmlDeviceGetMaxCustomerBoostClock, most_mhz)
CLOCK(nvmlDeviceGetApplicationsClock, most_mhz)
CLOCK(nvmlDeviceGetDefaultApplicationsClock, most_mhz)

GV_EXPORT nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, nvmlClockType_t clockType, nvmlClockId_t clockId,
                                          unsigned int *clockMHz)
{
    GV_NVML_ENTER();
    if ((unsigned)clockId >= NVML_CLOCK_ID_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    return clock_of(device, clockType, clockMHz, clockId == NVML_CLOCK_ID_CURRENT ? now_mhz : most_mhz);
}

/* The one clock that there is. */
static nvmlReturn_t only(unsigned *count, unsigned *clocks, unsigned mhz)
{
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    const unsigned room = clocks != NULL ? *count : 0;
    *count = 1;
    if (room < 1)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    clocks[0] = mhz;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t device, unsigned int *count,
                                                          unsigned int *clocksMHz)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    return only(count, clocksMHz, most_mhz(number, NVML_CLOCK_MEM));
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t device, unsigned int memoryClockMHz,
                                                            unsigned int *count, unsigned int *clocksMHz)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (memoryClockMHz != most_mhz(number, NVML_CLOCK_MEM))
        return NVML_ERROR_NOT_FOUND;
    return only(count, clocksMHz, most_mhz(number, NVML_CLOCK_GRAPHICS));
}

#define REASONS (nvmlClocksEventReasonGpuIdle | nvmlClocksEventReasonNone)
#define REASON_NOW (gv_nvml_utilisation(number) > 0 ? nvmlClocksEventReasonNone : nvmlClocksEventReasonGpuIdle)
GV_NVML_NUMBER(nvmlDeviceGetSupportedClocksEventReasons, unsigned long long, REASONS)
GV_NVML_NUMBER(nvmlDeviceGetSupportedClocksThrottleReasons, unsigned long long, REASONS)
GV_NVML_NUMBER(nvmlDeviceGetCurrentClocksEventReasons, unsigned long long, REASON_NOW)
GV_NVML_NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, REASON_NOW)
GV_NVML_NUMBER(nvmlDeviceGetPerformanceState, nvmlPstates_t, NVML_PSTATE_0)
GV_NVML_NUMBER(nvmlDeviceGetPowerState, nvmlPstates_t, NVML_PSTATE_0)
GV_NVML_NUMBER(nvmlDeviceGetAdaptiveClockInfoStatus, unsigned, NVML_ADAPTIVE_CLOCKING_INFO_STATUS_DISABLED)
