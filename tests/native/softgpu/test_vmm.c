/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual memory management: the rules of cuda.h, and accounts.
 */
#include "cuda_check.h"

#define GRAIN (2ull << 20)

static CUmemAllocationProp prop;
static CUmemAccessDesc full, none;

static CUmemGenericAllocationHandle create(size_t bytes)
{
    CUmemGenericAllocationHandle handle;
    OK(cuMemCreate(&handle, bytes, &prop, 0));
    return handle;
}

static void arguments(void)
{
    CUdeviceptr area;
    CUmemGenericAllocationHandle handle;
    size_t grain;
    OK(cuMemGetAllocationGranularity(&grain, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    CHECK_EQUAL(grain, GRAIN);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAddressReserve(&area, 1000, 0, 0, 0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAddressReserve(&area, GRAIN, 3 << 20, 0, 0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemCreate(&handle, GRAIN / 2, &prop, 0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemCreate(&handle, 0, &prop, 0));
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemCreate(&handle, 1ull << 40, &prop, 0));
    CUmemAllocationProp other = prop;
    other.location.id = 7;
    EXPECT(CUDA_ERROR_INVALID_DEVICE, cuMemCreate(&handle, GRAIN, &other, 0));
    OK(cuMemAddressReserve(&area, 4 * GRAIN, 1 << 26, 0, 0));
    CHECK_EQUAL(area % (1 << 26), 0);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(area, 2 * GRAIN));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(area + GRAIN, 3 * GRAIN));
    OK(cuMemAddressFree(area, 4 * GRAIN));
    CUdeviceptr again;
    OK(cuMemAddressReserve(&again, 4 * GRAIN, 0, area, 0)); /* the hint is free */
    CHECK_EQUAL(again, area);
    OK(cuMemAddressFree(again, 4 * GRAIN));
}

static void mapping(void)
{
    CUdeviceptr area;
    OK(cuMemAddressReserve(&area, 8 * GRAIN, 0, 0, 0));
    CUmemGenericAllocationHandle a = create(GRAIN), b = create(2 * GRAIN);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemMap(area, GRAIN, GRAIN, b, 0));       /* offset */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemMap(area + 4096, GRAIN, 0, a, 0));    /* alignment */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemMap(area + 8 * GRAIN, GRAIN, 0, a, 0)); /* outside */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemMap(area + 7 * GRAIN, 2 * GRAIN, 0, b, 0));
    OK(cuMemMap(area, GRAIN, 0, a, 0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemMap(area, GRAIN, 0, b, 0)); /* taken */
    OK(cuMemMap(area + GRAIN, 2 * GRAIN, 0, b, 0));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemSetAccess(area, 4 * GRAIN, &full, 1)); /* not all mapped */
    unsigned long long access = 99;
    OK(cuMemGetAccess(&access, &full.location, area));
    CHECK_EQUAL(access, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    OK(cuMemSetAccess(area, 3 * GRAIN, &full, 1)); /* spans both */
    OK(cuMemGetAccess(&access, &full.location, area + 2 * GRAIN));
    CHECK_EQUAL(access, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(area + GRAIN, GRAIN)); /* a part */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemAddressFree(area, 8 * GRAIN)); /* in use */
    uint32_t value = 7, back = 0;
    OK(cuMemcpyHtoD(area + GRAIN, &value, 4));
    OK(cuMemMap(area + 4 * GRAIN, 2 * GRAIN, 0, b, 0)); /* aliases */
    OK(cuMemSetAccess(area + 4 * GRAIN, 2 * GRAIN, &full, 1));
    OK(cuMemcpyDtoH(&back, area + 4 * GRAIN, 4));
    CHECK_EQUAL(back, 7);
    OK(cuMemUnmap(area + GRAIN, 2 * GRAIN));
    OK(cuMemUnmap(area + 4 * GRAIN, 2 * GRAIN));
    OK(cuMemMap(area + 6 * GRAIN, 2 * GRAIN, 0, b, 0)); /* the old content is there */
    OK(cuMemSetAccess(area + 6 * GRAIN, 2 * GRAIN, &full, 1));
    OK(cuMemcpyDtoH(&back, area + 6 * GRAIN, 4));
    CHECK_EQUAL(back, 7);
    OK(cuMemUnmap(area + 6 * GRAIN, 2 * GRAIN));
    OK(cuMemUnmap(area, GRAIN));
    OK(cuMemRelease(a));
    OK(cuMemRelease(b));
    a = create(2 * GRAIN); /* new memory is clean */
    OK(cuMemMap(area, 2 * GRAIN, 0, a, 0));
    OK(cuMemSetAccess(area, 2 * GRAIN, &full, 1));
    OK(cuMemcpyDtoH(&back, area, 4));
    CHECK_EQUAL(back, 0);
    OK(cuMemUnmap(area, 2 * GRAIN));
    OK(cuMemRelease(a));
    OK(cuMemAddressFree(area, 8 * GRAIN));
}

static void life_of_a_handle(void)
{
    const size_t before = free_bytes();
    CUdeviceptr area;
    CUmemGenericAllocationHandle handle = create(4 * GRAIN), same;
    CHECK_EQUAL(free_bytes(), before - 4 * GRAIN);
    OK(cuMemAddressReserve(&area, 4 * GRAIN, 0, 0, 0));
    OK(cuMemMap(area, 4 * GRAIN, 0, handle, 0));
    OK(cuMemRelease(handle)); /* lives on by its mapping */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemRelease(handle));
    CHECK_EQUAL(free_bytes(), before - 4 * GRAIN);
    OK(cuMemRetainAllocationHandle(&same, (void *)(area + GRAIN)));
    CHECK_EQUAL(same, handle);
    OK(cuMemUnmap(area, 4 * GRAIN));
    CHECK_EQUAL(free_bytes(), before - 4 * GRAIN); /* by the handle */
    OK(cuMemRelease(same));
    CHECK_EQUAL(free_bytes(), before);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemRetainAllocationHandle(&same, (void *)area));
    OK(cuMemAddressFree(area, 4 * GRAIN));
}

static void export_and_import(void)
{
    const size_t before = free_bytes();
    CUmemGenericAllocationHandle handle = create(GRAIN), imported;
    int fd = -1;
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0)); /* not asked for */
    OK(cuMemRelease(handle));
    CUmemAllocationProp shareable = prop;
    shareable.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    OK(cuMemCreate(&handle, GRAIN, &shareable, 0));
    OK(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    OK(cuMemImportFromShareableHandle(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    CHECK_EQUAL(free_bytes(), before - GRAIN); /* one memory, charged once */
    CUdeviceptr area;
    uint32_t value = 11, back = 0;
    OK(cuMemAddressReserve(&area, 2 * GRAIN, 0, 0, 0));
    OK(cuMemMap(area, GRAIN, 0, handle, 0));
    OK(cuMemMap(area + GRAIN, GRAIN, 0, imported, 0));
    OK(cuMemSetAccess(area, 2 * GRAIN, &full, 1));
    OK(cuMemcpyHtoD(area, &value, 4));
    OK(cuMemcpyDtoH(&back, area + GRAIN, 4));
    CHECK_EQUAL(back, 11);
    OK(cuMemUnmap(area, 2 * GRAIN)); /* both, whole */
    OK(cuMemRelease(handle));
    CHECK_EQUAL(free_bytes(), before - GRAIN);
    OK(cuMemRelease(imported));
    CHECK_EQUAL(free_bytes(), before);
    OK(cuMemAddressFree(area, 2 * GRAIN));
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuMemImportFromShareableHandle(&imported, (void *)(intptr_t)0, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
}

/* A touch without access or mapping: error 700, for good, of this context. */
static void forbidden_access(void)
{
    CUdeviceptr area;
    uint32_t value = 1;
    for (int round = 0; round < 3; round++) {
        CUmemGenericAllocationHandle handle = create(GRAIN);
        OK(cuMemAddressReserve(&area, GRAIN, 0, 0, 0));
        OK(cuMemMap(area, GRAIN, 0, handle, 0));
        if (round == 1) { /* readable, not writable */
            const CUmemAccessDesc read_only = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READ);
            OK(cuMemSetAccess(area, GRAIN, &read_only, 1));
            OK(cuMemcpyDtoH(&value, area, 4));
        } else if (round == 2) { /* taken away again */
            OK(cuMemSetAccess(area, GRAIN, &full, 1));
            OK(cuMemcpyHtoD(area, &value, 4));
            OK(cuMemSetAccess(area, GRAIN, &none, 1));
        }
        OK(cuMemsetD8(area, 1, 16)); /* asynchronous: the error comes later */
        EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
        EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemAlloc(&area, 4));
        OK(cuMemUnmap(area, GRAIN)); /* mappings are not of the context */
        OK(cuMemRelease(handle));
        OK(cuMemAddressFree(area, GRAIN));
        OK(cuDevicePrimaryCtxReset(0));
        OK(cuCtxSynchronize());
    }
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoD(area, &value, 4)); /* of no reservation: not known at all */
}

int main(void)
{
    use_own_board("64M");
    primary_context();
    prop = device_memory(0);
    full = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    none = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_NONE);
    arguments();
    mapping();
    life_of_a_handle();
    export_and_import();
    forbidden_access();
    return 0;
}
