/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocations, pinned memory, pools, copies and fills of every shape.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <sys/mman.h>

#define MB (1ull << 20)

static void allocations(void)
{
    enum { MANY = 3000 };
    static CUdeviceptr pointers[MANY];
    const size_t before = free_bytes();
    CUdeviceptr base;
    size_t bytes;
    for (int i = 0; i < MANY; i++) {
        OK(cuMemAlloc(&pointers[i], 1 + (size_t)i * 7 % 5000));
        CHECK_EQUAL(pointers[i] % 256, 0);
        OK(cuMemsetD8Async(pointers[i], (unsigned char)i, 1 + (size_t)i * 7 % 5000, NULL));
    }
    for (int i = 0; i < MANY; i += 2)
        OK(cuMemFree(pointers[i]));
    for (int i = 1; i < MANY; i += 2) {
        unsigned char last;
        OK(cuMemGetAddressRange(&base, &bytes, pointers[i] + (size_t)i * 7 % 5000));
        CHECK_EQUAL(base, pointers[i]);
        CHECK_EQUAL(bytes, 1 + (size_t)i * 7 % 5000);
        OK(cuMemcpyDtoH(&last, base + bytes - 1, 1));
        CHECK_EQUAL(last, (unsigned char)i);
        OK(cuMemFree(pointers[i]));
    }
    CHECK_EQUAL(free_bytes(), before);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFree(pointers[0]));
    OK(cuMemFree(0));
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&base, 65 * MB));
    OK(cuMemAlloc(&base, 64 * MB));
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&pointers[0], 1));
    OK(cuMemFree(base));
    OK(cuMemAllocPitch(&base, &bytes, 100, 10, 4));
    CHECK(bytes >= 100 && bytes % 256 == 0);
    OK(cuMemFree(base));
}

static void host_memory(void)
{
    void *pinned, *own = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CUdeviceptr device;
    unsigned flags, type;
    OK(cuMemHostAlloc(&pinned, 1000, CU_MEMHOSTALLOC_PORTABLE));
    OK(cuMemHostGetDevicePointer(&device, pinned, 0));
    OK(cuMemHostGetFlags(&flags, pinned));
    CHECK(flags & CU_MEMHOSTALLOC_PORTABLE);
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, device));
    CHECK_EQUAL(type, CU_MEMORYTYPE_HOST);
    OK(cuMemFreeHost(pinned));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(pinned));
    OK(cuMemHostRegister(own, 65536, 0));
    EXPECT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(own, 65536, 0));
    OK(cuMemHostGetDevicePointer(&device, (char *)own + 5, 0));
    CHECK_EQUAL(device, (uintptr_t)own + 5);
    OK(cuMemHostUnregister(own));
    EXPECT(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(own));
    OK(cuMemHostRegister(own, 65536, 0));
    munmap(own, 65536); /* without unregister: the driver does not know */
    CHECK(mmap(own, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == own);
    EXPECT(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister(own, 65536, 0));
    OK(cuMemHostUnregister(own));
    munmap(own, 65536);
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (CUdeviceptr)&type));
    const size_t before = free_bytes();
    OK(cuMemAllocManaged(&device, 3 * MB, CU_MEM_ATTACH_GLOBAL));
    CHECK_EQUAL(free_bytes(), before); /* it lies on the host */
    *(int *)device = 5;                /* the host may touch it */
    OK(cuMemsetD32(device, 6, 1));
    OK(cuCtxSynchronize());
    CHECK_EQUAL(*(int *)device, 6);
    const CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0};
    OK(cuMemPrefetchAsync(device, 3 * MB, here, 0, NULL));
    OK(cuCtxSynchronize());
    CHECK_EQUAL(free_bytes(), before - 3 * MB);
    OK(cuMemAdvise(device, 3 * MB, CU_MEM_ADVISE_SET_READ_MOSTLY, here));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemPrefetchAsync(device, 4 * MB, here, 0, NULL));
    OK(cuMemFree(device));
    CHECK_EQUAL(free_bytes(), before);
}

static uint64_t pool_value(CUmemoryPool pool, CUmemPool_attribute attribute)
{
    cuuint64_t value = 0;
    OK(cuMemPoolGetAttribute(pool, attribute, &value));
    return value;
}

static void pools(void)
{
    const size_t before = free_bytes();
    CUmemoryPool pool;
    CUstream one, two;
    CUdeviceptr a, b;
    OK(cuStreamCreate(&one, CU_STREAM_NON_BLOCKING));
    OK(cuStreamCreate(&two, CU_STREAM_NON_BLOCKING));
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemAllocAsync(&a, 3 * MB, one));
    CHECK_EQUAL(pool_value(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 3 * MB);
    CHECK(pool_value(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 3 * MB);
    OK(cuMemsetD8Async(a, 1, 3 * MB, one));
    OK(cuMemFreeAsync(a, one));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemFreeAsync(a, one));
    CHECK_EQUAL(pool_value(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT), 0);
    CHECK(free_bytes() < before); /* reserved until the program waits */
    OK(cuStreamSynchronize(one));
    CHECK_EQUAL(free_bytes(), before);
    cuuint64_t keep = UINT64_MAX;
    OK(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &keep));
    OK(cuMemAllocAsync(&a, 3 * MB, one));
    OK(cuMemFreeAsync(a, one));
    OK(cuStreamSynchronize(one));
    CHECK(free_bytes() < before); /* the threshold keeps it */
    OK(cuMemPoolTrimTo(pool, 0));
    CHECK_EQUAL(free_bytes(), before);
    /* Freed behind long work: the same stream may have it at once, another one not. */
    CUmodule module;
    CUfunction spin;
    uint64_t time = 30000000;
    void *arguments[] = {&time};
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&spin, module, "spin"));
    OK(cuMemAllocAsync(&a, 40 * MB, one));
    OK(cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, one, arguments, NULL));
    OK(cuMemFreeAsync(a, one));
    OK(cuMemAllocAsync(&b, 40 * MB, one));
    CHECK_EQUAL(a, b);
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(one));
    OK(cuMemFreeAsync(b, one));
    OK(cuMemAllocAsync(&a, 40 * MB, two)); /* rather than fail, stream two waits for stream one; the program does not */
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(two));
    OK(cuStreamSynchronize(two));
    OK(cuStreamQuery(one));
    OK(cuMemFreeAsync(a, two));
    OK(cuModuleUnload(module));
    OK(cuStreamDestroy(one));
    OK(cuStreamDestroy(two));
    CUmemPoolProps props;
    memset(&props, 0, sizeof props);
    props.allocType = CU_MEM_ALLOCATION_TYPE_PINNED;
    props.location.type = CU_MEM_LOCATION_TYPE_DEVICE;
    OK(cuMemPoolTrimTo(pool, 0));
    OK(cuMemPoolCreate(&pool, &props));
    OK(cuMemAllocFromPoolAsync(&a, 100, pool, NULL));
    OK(cuMemPoolDestroy(pool));
    OK(cuMemFreeAsync(a, NULL));
    OK(cuCtxSynchronize());
    CHECK_EQUAL(free_bytes(), before);
}

static void copies(void)
{
    enum { W = 37, H = 11, D = 3 };
    unsigned char source[D][H][W], back[D][H][W];
    CUdeviceptr device, other;
    size_t pitch;
    for (size_t i = 0; i < sizeof source; i++)
        ((unsigned char *)source)[i] = (unsigned char)(i * 31);
    OK(cuMemAllocPitch(&device, &pitch, W, H * D, 4));
    OK(cuMemAlloc(&other, pitch * H * D));
    CUDA_MEMCPY3D copy;
    memset(&copy, 0, sizeof copy);
    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = source;
    copy.srcPitch = W;
    copy.srcHeight = H;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = device;
    copy.dstPitch = pitch;
    copy.dstHeight = H;
    copy.WidthInBytes = W;
    copy.Height = H;
    copy.Depth = D;
    OK(cuMemcpy3D(&copy));
    OK(cuMemcpyDtoDAsync(other, device, (H * D - 1) * pitch + W, NULL));
    CUDA_MEMCPY2D plane;
    memset(&plane, 0, sizeof plane);
    plane.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    plane.srcDevice = other;
    plane.srcPitch = pitch;
    plane.dstMemoryType = CU_MEMORYTYPE_HOST;
    plane.dstHost = back;
    plane.dstPitch = W;
    plane.WidthInBytes = W;
    plane.Height = H * D;
    OK(cuMemcpy2D(&plane));
    CHECK(memcmp(source, back, sizeof source) == 0);
    uint32_t words[4] = {0};
    OK(cuMemsetD32(device, 0x01020304, 4));
    OK(cuMemsetD16Async(device + 4, 0xabcd, 2, NULL));
    OK(cuMemsetD2D8(device + 8, pitch, 9, 2, 2));
    OK(cuMemcpy((CUdeviceptr)words, device, 16)); /* unified: a host address */
    CHECK(words[0] == 0x01020304 && words[1] == 0xabcdabcd && words[2] == 0x01020909 && words[3] == 0x01020304);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemsetD32(device + 2, 0, 1));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(other, source, pitch * H * D + 1));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(words, (CUdeviceptr)source, 4)); /* no device memory */
    OK(cuMemFree(device));
    OK(cuMemFree(other));
}

static int all_zero(CUdeviceptr device, size_t bytes)
{
    unsigned char *const read = malloc(bytes);
    int zero = 1;
    CHECK(read != NULL);
    OK(cuMemcpyDtoH(read, device, bytes));
    for (size_t i = 0; i < bytes; i++)
        zero &= read[i] == 0;
    free(read);
    return zero;
}

/* Zeros in whole pages of 2 MiB: where something was written and where nothing was, and where nothing may be. */
static void zeros(void)
{
    CUdeviceptr device, area;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = device_memory(0);
    const CUmemAccessDesc reading = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READ);
    OK(cuMemAlloc(&device, 6 * MB));
    OK(cuMemsetD32(device, 0, 6 * MB / 4));
    CHECK(all_zero(device, 6 * MB));
    OK(cuMemsetD8(device + 3 * MB, 9, 1)); /* one byte of the second page */
    OK(cuMemsetD32(device, 0, 6 * MB / 4));
    CHECK(all_zero(device, 6 * MB));
    OK(cuMemsetD8(device, 9, 6 * MB));
    OK(cuMemsetD8(device + 2 * MB, 0, 2 * MB));
    CHECK(!all_zero(device, 1) && all_zero(device + 2 * MB, 2 * MB) && !all_zero(device + 4 * MB, 1));
    OK(cuMemFree(device));

    OK(cuMemAddressReserve(&area, 2 * MB, 0, 0, 0));
    OK(cuMemCreate(&handle, 2 * MB, &prop, 0));
    OK(cuMemMap(area, 2 * MB, 0, handle, 0));
    OK(cuMemSetAccess(area, 2 * MB, &reading, 1));
    OK(cuMemsetD8Async(area, 0, 2 * MB, NULL));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize()); /* the last thing that this context does */
}

int main(void)
{
    use_own_board("64M");
    primary_context();
    allocations();
    host_memory();
    pools();
    copies();
    zeros();
    return 0;
}
