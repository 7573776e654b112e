/* SPDX-License-Identifier: Apache-2.0
 *
 * The functions of NVML that the shim answers itself, by file. All others are forwarded by one jump (generated).
 */
/* library.c: it returns a text and not an error, so a missing library needs an answer of its own */
GV_HOOK(nvmlErrorString)
/* memory.c */
GV_HOOK(nvmlDeviceGetMemoryInfo)
GV_HOOK(nvmlDeviceGetMemoryInfo_v2)
/* processes.c */
GV_HOOK(nvmlDeviceGetComputeRunningProcesses)
GV_HOOK(nvmlDeviceGetComputeRunningProcesses_v2)
GV_HOOK(nvmlDeviceGetComputeRunningProcesses_v3)
GV_HOOK(nvmlDeviceGetGraphicsRunningProcesses)
GV_HOOK(nvmlDeviceGetGraphicsRunningProcesses_v2)
GV_HOOK(nvmlDeviceGetGraphicsRunningProcesses_v3)
GV_HOOK(nvmlDeviceGetMPSComputeRunningProcesses)
GV_HOOK(nvmlDeviceGetMPSComputeRunningProcesses_v2)
GV_HOOK(nvmlDeviceGetMPSComputeRunningProcesses_v3)
GV_HOOK(nvmlDeviceGetRunningProcessDetailList)
/* utilisation.c */
GV_HOOK(nvmlDeviceGetProcessUtilization)
GV_HOOK(nvmlDeviceGetProcessesUtilizationInfo)
/* accounting.c */
GV_HOOK(nvmlDeviceGetAccountingPids)
GV_HOOK(nvmlDeviceGetAccountingStats)
GV_HOOK(nvmlDeviceGetAccountingStats_v2)
