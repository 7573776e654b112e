/* SPDX-License-Identifier: Apache-2.0
 *
 * What a job sees of its GPU, asked in two ways: by functions that the program is linked with, and by the pattern of PyTorch's
 * c10 (dlopen, dlsym of unversioned names, the device by its PCI address). Prints one line a way.
 */
#include <dlfcn.h>
#include <nvml.h>
#include <stdio.h>
#include <stdlib.h>

static void must(int good, const char *what)
{
    if (!good) {
        printf("failed: %s\n", what);
        exit(1);
    }
}

static void linked(char bus[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE])
{
    nvmlDevice_t device;
    nvmlMemory_t memory;
    nvmlPciInfo_t pci;
    unsigned count = 64;
    nvmlProcessInfo_t infos[64];
    must(nvmlInit_v2() == NVML_SUCCESS, "nvmlInit_v2");
    must(nvmlDeviceGetHandleByIndex_v2(0, &device) == NVML_SUCCESS, "nvmlDeviceGetHandleByIndex_v2");
    must(nvmlDeviceGetMemoryInfo(device, &memory) == NVML_SUCCESS, "nvmlDeviceGetMemoryInfo");
    must(nvmlDeviceGetComputeRunningProcesses(device, &count, infos) == NVML_SUCCESS, "processes");
    must(nvmlDeviceGetPciInfo_v3(device, &pci) == NVML_SUCCESS, "nvmlDeviceGetPciInfo_v3");
    printf("linked: total %llu used %llu processes %u", memory.total >> 20, memory.used >> 20, count);
    for (unsigned i = 0; i < count; i++)
        printf(" %u:%llu", infos[i].pid, infos[i].usedGpuMemory >> 20);
    printf("\n");
    snprintf(bus, NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE, "%s", pci.busId);
    nvmlShutdown();
}

static void as_c10(const char *bus)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_LAZY | RTLD_NOLOAD);
    must(library != NULL, "dlopen");
    nvmlReturn_t (*init)(void) = (nvmlReturn_t (*)(void))dlsym(library, "nvmlInit_v2");
    nvmlReturn_t (*handle)(const char *, nvmlDevice_t *) =
        (nvmlReturn_t (*)(const char *, nvmlDevice_t *))dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2");
    /* The unversioned symbol: the struct of version 1. */
    nvmlReturn_t (*list)(nvmlDevice_t, unsigned *, nvmlProcessInfo_v1_t *) = (nvmlReturn_t (*)(
        nvmlDevice_t, unsigned *, nvmlProcessInfo_v1_t *))dlsym(library, "nvmlDeviceGetComputeRunningProcesses");
    must(init != NULL && handle != NULL && list != NULL, "dlsym");
    nvmlDevice_t device;
    unsigned size = 1, asked = 0;
    nvmlProcessInfo_v1_t *infos = NULL;
    must(init() == NVML_SUCCESS, "nvmlInit_v2");
    must(handle(bus, &device) == NVML_SUCCESS, "nvmlDeviceGetHandleByPciBusId_v2");
    nvmlReturn_t result;
    do {
        infos = realloc(infos, size * sizeof *infos);
        asked = size;
        result = list(device, &asked, infos);
        size *= 2;
    } while (result == NVML_ERROR_INSUFFICIENT_SIZE);
    must(result == NVML_SUCCESS, "nvmlDeviceGetComputeRunningProcesses");
    printf("c10: processes %u", asked);
    for (unsigned i = 0; i < asked; i++)
        printf(" %u:%llu", infos[i].pid, infos[i].usedGpuMemory >> 20);
    printf("\n");
    free(infos);
    dlclose(library);
}

int main(void)
{
    char bus[NVML_DEVICE_PCI_BUS_ID_BUFFER_SIZE];
    linked(bus);
    as_c10(bus);
    return 0;
}
