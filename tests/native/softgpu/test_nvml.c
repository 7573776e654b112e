/* SPDX-License-Identifier: Apache-2.0
 *
 * The soft NVML tells what the soft driver did: same device, memory, processes, utilisation.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <nvml.h>

#define NVML(call) CHECK_EQUAL(call, NVML_SUCCESS)

static nvmlDevice_t device;

static unsigned long long used(void)
{
    nvmlMemory_t memory;
    NVML(nvmlDeviceGetMemoryInfo(device, &memory));
    CHECK_EQUAL(memory.total, 64 << 20);
    CHECK_EQUAL(memory.free + memory.used, memory.total);
    return memory.used;
}

int main(void)
{
    char text[96], uuid[96];
    unsigned count = 9;
    use_own_board("64M");
    CHECK_EQUAL(nvmlDeviceGetCount(&count), NVML_ERROR_UNINITIALIZED);
    NVML(nvmlInit());
    NVML(nvmlDeviceGetCount(&count));
    CHECK_EQUAL(count, 1);
    for (unsigned error = 0; error <= NVML_ERROR_RESET_TYPE_NOT_SUPPORTED; error++)
        CHECK(strcmp(nvmlErrorString((nvmlReturn_t)error), "Unknown Error") != 0);
    CHECK(strcmp(nvmlErrorString((nvmlReturn_t)998), "Unknown Error") == 0);
    CHECK_EQUAL(nvmlDeviceGetHandleByIndex(1, &device), NVML_ERROR_INVALID_ARGUMENT);
    NVML(nvmlDeviceGetHandleByIndex(0, &device));
    CHECK_EQUAL(used(), 0);
    nvmlProcessInfo_t info;
    count = 0;
    NVML(nvmlDeviceGetComputeRunningProcesses(device, &count, NULL));
    CHECK_EQUAL(count, 0);

    primary_context();
    CUuuid id;
    CUdeviceptr at;
    OK(cuDeviceGetUuid(&id, 0));
    NVML(nvmlDeviceGetUUID(device, uuid, sizeof uuid));
    const unsigned char *u = (const unsigned char *)id.bytes;
    snprintf(text, sizeof text, "GPU-%02x%02x%02x%02x-", u[0], u[1], u[2], u[3]);
    CHECK(strncmp(uuid, text, strlen(text)) == 0);
    CHECK_EQUAL(nvmlDeviceGetUUID(device, uuid, 5), NVML_ERROR_INSUFFICIENT_SIZE);
    nvmlDevice_t same;
    NVML(nvmlDeviceGetHandleByUUID(uuid, &same));
    CHECK(same == device);
    OK(cuDeviceGetPCIBusId(text, sizeof text, 0));
    NVML(nvmlDeviceGetHandleByPciBusId(text, &same));
    CHECK(same == device);

    OK(cuMemAlloc(&at, 10 << 20));
    CHECK_EQUAL(used(), 10 << 20);
    count = 0;
    CHECK_EQUAL(nvmlDeviceGetComputeRunningProcesses(device, &count, NULL), NVML_ERROR_INSUFFICIENT_SIZE);
    CHECK_EQUAL(count, 1);
    NVML(nvmlDeviceGetComputeRunningProcesses(device, &count, &info));
    CHECK_EQUAL(info.pid, getpid());
    CHECK_EQUAL(info.usedGpuMemory, 10 << 20);
    NVML(nvmlSystemGetProcessName(info.pid, text, sizeof text));
    CHECK(strstr(text, "test_nvml") != NULL);

    CUmodule module;
    CUfunction spin;
    uint64_t time = 700000000;
    void *arguments[] = {&time};
    nvmlUtilization_t rates;
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&spin, module, "spin"));
    NVML(nvmlDeviceGetUtilizationRates(device, &rates));
    CHECK(rates.gpu <= 5);
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    usleep(650000);
    NVML(nvmlDeviceGetUtilizationRates(device, &rates)); /* while it runs */
    CHECK(rates.gpu >= 80);
    OK(cuCtxSynchronize());
    OK(cuMemFree(at));
    OK(cuDevicePrimaryCtxRelease(0));
    CHECK_EQUAL(used(), 0);
    count = 1;
    NVML(nvmlDeviceGetComputeRunningProcesses(device, &count, &info));
    CHECK_EQUAL(count, 0); /* no context any more */
    nvmlMemory_v2_t wrong = {.version = 1};
    CHECK_EQUAL(nvmlDeviceGetMemoryInfo_v2(device, &wrong), NVML_ERROR_ARGUMENT_VERSION_MISMATCH);
    unsigned speed;
    CHECK_EQUAL(nvmlDeviceGetFanSpeed(device, &speed), NVML_ERROR_NOT_SUPPORTED);
    NVML(nvmlShutdown());
    CHECK_EQUAL(nvmlShutdown(), NVML_ERROR_UNINITIALIZED);
    return 0;
}
