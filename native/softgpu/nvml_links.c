/* SPDX-License-Identifier: Apache-2.0
 *
 * NVML: PCIe, and how devices lie to each other. There is no NVLink.
 */
#include "nvml_device.h"

#include <sched.h>
#include <string.h>

GV_NVML_NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, unsigned, gv_nvml_profile(number)->pcie_generation)
GV_NVML_NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, unsigned, gv_nvml_profile(number)->pcie_generation)
GV_NVML_NUMBER(nvmlDeviceGetGpuMaxPcieLinkGeneration, unsigned, gv_nvml_profile(number)->pcie_generation)
GV_NVML_NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, gv_nvml_profile(number)->pcie_width)
GV_NVML_NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, gv_nvml_profile(number)->pcie_width)
GV_NVML_NUMBER(nvmlDeviceGetPcieReplayCounter, unsigned, 0)

/* MT/s of a lane, in Mbit/s as NVML has it; generations 1 to 5. */
static unsigned lane_mbps(unsigned number)
{
    static const unsigned speeds[] = {0, 2500, 5000, 8000, 16000, 32000};
    const unsigned generation = gv_nvml_profile(number)->pcie_generation;
    return generation < sizeof speeds / sizeof speeds[0] ? speeds[generation] : 0;
}
GV_NVML_NUMBER(nvmlDeviceGetPcieSpeed, unsigned, lane_mbps(number))

static unsigned link_max(unsigned number)
{
    static const unsigned speeds[] = {NVML_PCIE_LINK_MAX_SPEED_INVALID,   NVML_PCIE_LINK_MAX_SPEED_2500MBPS,
                                      NVML_PCIE_LINK_MAX_SPEED_5000MBPS,  NVML_PCIE_LINK_MAX_SPEED_8000MBPS,
                                      NVML_PCIE_LINK_MAX_SPEED_16000MBPS, NVML_PCIE_LINK_MAX_SPEED_32000MBPS};
    return speeds[gv_nvml_profile(number)->pcie_generation];
}
GV_NVML_NUMBER(nvmlDeviceGetPcieLinkMaxSpeed, unsigned, link_max(number))

/* KB/s over the last 100 ms. The device transmits what programs copy from it. */
GV_EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, nvmlPcieUtilCounter_t counter,
                                                   unsigned int *value)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (value == NULL || (unsigned)counter >= NVML_PCIE_UTIL_COUNT)
        return NVML_ERROR_INVALID_ARGUMENT;
    const int direction = counter == NVML_PCIE_UTIL_TX_BYTES; /* 1: from the device */
    *value = (unsigned)(gv_model_link_rate(gv_nvml_device_of(number), direction, 100000000u) / 1000);
    return NVML_SUCCESS;
}

/* ---- devices to each other: in one machine, each behind its own root ---- */

static nvmlReturn_t two(nvmlDevice_t first, nvmlDevice_t second, unsigned *a, unsigned *b)
{
    const nvmlReturn_t result = gv_nvml_device(first, a);
    return result != NVML_SUCCESS ? result : gv_nvml_device(second, b);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t device1, nvmlDevice_t device2,
                                              nvmlGpuP2PCapsIndex_t p2pIndex, nvmlGpuP2PStatus_t *p2pStatus)
{
    GV_NVML_ENTER();
    unsigned a, b;
    const nvmlReturn_t result = two(device1, device2, &a, &b);
    if (result != NVML_SUCCESS)
        return result;
    if (p2pStatus == NULL || a == b || (unsigned)p2pIndex >= NVML_P2P_CAPS_INDEX_UNKNOWN)
        return NVML_ERROR_INVALID_ARGUMENT;
    *p2pStatus = p2pIndex == NVML_P2P_CAPS_INDEX_NVLINK ? NVML_P2P_STATUS_NOT_SUPPORTED : NVML_P2P_STATUS_OK;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetTopologyCommonAncestor(nvmlDevice_t device1, nvmlDevice_t device2,
                                                           nvmlGpuTopologyLevel_t *pathInfo)
{
    GV_NVML_ENTER();
    unsigned a, b;
    const nvmlReturn_t result = two(device1, device2, &a, &b);
    if (result != NVML_SUCCESS)
        return result;
    if (pathInfo == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *pathInfo = a == b ? NVML_TOPOLOGY_INTERNAL : NVML_TOPOLOGY_NODE;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t device1, nvmlDevice_t device2, int *onSameBoard)
{
    GV_NVML_ENTER();
    unsigned a, b;
    const nvmlReturn_t result = two(device1, device2, &a, &b);
    if (result != NVML_SUCCESS)
        return result;
    if (onSameBoard == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *onSameBoard = a == b;
    return NVML_SUCCESS;
}

/* All devices of `board`, less one (-1: none). */
static nvmlReturn_t list_devices(unsigned *count, nvmlDevice_t *devices, int except)
{
    const unsigned all = gv_nvml_board()->device_count, found = all - (except >= 0);
    const unsigned room = devices != NULL ? *count : 0;
    *count = found;
    if (devices == NULL)
        return NVML_SUCCESS;
    if (room < found)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    for (unsigned number = 0; number < all; number++)
        if ((int)number != except)
            nvmlDeviceGetHandleByIndex_v2(number, devices++);
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetTopologyNearestGpus(nvmlDevice_t device, nvmlGpuTopologyLevel_t level,
                                                        unsigned int *count, nvmlDevice_t *deviceArray)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (level == NVML_TOPOLOGY_NODE)
        return list_devices(count, deviceArray, (int)number);
    *count = 0;
    return NVML_SUCCESS;
}

GV_EXPORT nvmlReturn_t nvmlSystemGetTopologyGpuSet(unsigned int cpuNumber, unsigned int *count,
                                                   nvmlDevice_t *deviceArray)
{
    GV_NVML_ENTER();
    (void)cpuNumber; /* all processors are as near */
    if (gv_nvml_board() == NULL)
        return NVML_ERROR_UNINITIALIZED;
    return count == NULL ? NVML_ERROR_INVALID_ARGUMENT : list_devices(count, deviceArray, -1);
}

GV_EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int cpuSetSize, unsigned long *cpuSet)
{
    GV_NVML_ENTER();
    GV_NVML_DEVICE(device, number);
    (void)number;
    cpu_set_t all;
    if (cpuSet == NULL || cpuSetSize == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (sched_getaffinity(0, sizeof all, &all) != 0)
        return NVML_ERROR_UNKNOWN;
    memset(cpuSet, 0, cpuSetSize * sizeof *cpuSet);
    for (unsigned cpu = 0; cpu < cpuSetSize * 8 * sizeof *cpuSet && cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all))
            cpuSet[cpu / (8 * sizeof *cpuSet)] |= 1ul << (cpu % (8 * sizeof *cpuSet));
    return NVML_SUCCESS;
}
