/* SPDX-License-Identifier: Apache-2.0
 *
 * Prints what the hot paths of the soft driver cost. Figures only; run by hand.
 */
#include "cuda_check.h"
#include "kernels.h"

static double each(uint64_t start, int count) { return (double)(now_ns() - start) / count; }

int main(void)
{
    use_own_board("256M");
    primary_context();
    CUmodule module;
    CUfunction nothing;
    CUstream stream;
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&nothing, module, "nothing"));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    enum { MANY = 100000 };
    for (int i = 0; i < 1000; i++)
        OK(cuLaunchKernel(nothing, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    OK(cuStreamSynchronize(stream));
    uint64_t start = now_ns();
    for (int i = 0; i < MANY; i++)
        OK(cuLaunchKernel(nothing, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
    const double submit = each(start, MANY);
    OK(cuStreamSynchronize(stream));
    printf("launch of one block            %8.0f ns submitted, %.0f ns done\n", submit, each(start, MANY));
    start = now_ns();
    for (int i = 0; i < 2000; i++) {
        OK(cuLaunchKernel(nothing, 1, 1, 1, 1, 1, 1, 0, stream, NULL, NULL));
        OK(cuStreamSynchronize(stream));
    }
    printf("launch and wait                %8.0f ns\n", each(start, 2000));
    size_t free_now, total;
    start = now_ns();
    for (int i = 0; i < MANY; i++)
        cuMemGetInfo(&free_now, &total);
    printf("cuMemGetInfo                   %8.0f ns\n", each(start, MANY));
    CUdeviceptr pointer;
    start = now_ns();
    for (int i = 0; i < MANY; i++) {
        OK(cuMemAlloc(&pointer, 1000));
        OK(cuMemFree(pointer));
    }
    printf("cuMemAlloc + cuMemFree, 1 kB   %8.0f ns\n", each(start, MANY));
    start = now_ns();
    for (int i = 0; i < MANY; i++) {
        OK(cuMemAllocAsync(&pointer, 1000, stream));
        OK(cuMemFreeAsync(pointer, stream));
    }
    printf("the same, async                %8.0f ns\n", each(start, MANY));
    CUmemGenericAllocationHandle handle;
    const CUmemAllocationProp prop = device_memory(0);
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr reserved;
    OK(cuMemAddressReserve(&reserved, 2 << 20, 0, 0, 0));
    pointer = reserved;
    OK(cuMemCreate(&handle, 2 << 20, &prop, 0));
    start = now_ns();
    for (int i = 0; i < 10000; i++) {
        OK(cuMemMap(pointer, 2 << 20, 0, handle, 0));
        OK(cuMemSetAccess(pointer, 2 << 20, &access, 1));
        OK(cuMemUnmap(pointer, 2 << 20));
    }
    printf("map + access + unmap of 2 MiB  %8.0f ns\n", each(start, 10000));
    start = now_ns();
    for (int i = 0; i < 10000; i++) {
        CUmemGenericAllocationHandle other;
        OK(cuMemCreate(&other, 2 << 20, &prop, 0));
        OK(cuMemRelease(other));
    }
    printf("create + release of 2 MiB      %8.0f ns\n", each(start, 10000));
    void *host = malloc(64 << 20);
    memset(host, 1, 64 << 20);
    OK(cuMemAlloc(&pointer, 64 << 20));
    OK(cuMemcpyHtoD(pointer, host, 64 << 20));
    start = now_ns();
    OK(cuMemcpyHtoD(pointer, host, 64 << 20));
    printf("cuMemcpyHtoD of 64 MiB         %8.2f GB/s\n", (double)(64 << 20) / each(start, 1));
    start = now_ns();
    for (int i = 0; i < MANY; i++)
        OK(cuMemcpyHtoD(pointer, host, 4));
    printf("cuMemcpyHtoD of 4 bytes        %8.0f ns\n", each(start, MANY));
    double faults = 0;
    for (int i = 0; i < 20; i++) { /* the mapping has no access yet; the copy runs in this thread */
        OK(cuMemMap(pointer = reserved, 2 << 20, 0, handle, 0));
        start = now_ns();
        EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemcpyHtoD(pointer, host, 4));
        faults += each(start, 20);
        OK(cuMemUnmap(pointer, 2 << 20));
        OK(cuDevicePrimaryCtxReset(0));
    }
    printf("fault -> sticky error          %8.0f ns\n", faults);
    free(host);
    return 0;
}
