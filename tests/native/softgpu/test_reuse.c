/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles whose memory was another's before: it looks new, whatever looks at it first, and nothing that was written is lost.
 */
#include "cuda_check.h"
#include "kernels.h"

#define GRAIN (2ull << 20)
enum { PIECES = 4, WORDS = (2 << 20) / 4 };
#define BYTES (PIECES * GRAIN)

static CUdeviceptr area;
static CUmemGenericAllocationHandle handle;
static CUstream stream;
static CUfunction store_kernel;
static CUmemAllocationProp prop;
static CUmemAccessDesc full;
static uint32_t *seen; /* BYTES */

static void take(void)
{
    OK(cuMemCreate(&handle, BYTES, &prop, 0));
    OK(cuMemMap(area, BYTES, 0, handle, 0));
    OK(cuMemSetAccess(area, BYTES, &full, 1));
}

static void give(void)
{
    OK(cuMemUnmap(area, BYTES));
    OK(cuMemRelease(handle));
}

/* Every byte of a handle is written, which then goes: the next has its memory. */
static void leave_bytes(void)
{
    take();
    OK(cuMemsetD32(area, 0xdeadbeef, BYTES / 4));
    OK(cuCtxSynchronize());
    give();
}

/* What is seen of piece `number` from word `first` on is `value`. */
static void is(int number, size_t first, size_t count, uint32_t value)
{
    for (size_t i = first; i < first + count; i++)
        if (seen[(size_t)number * WORDS + i] != value)
            FAIL("piece %d, word %zu: %x, not %x", number, i, seen[(size_t)number * WORDS + i], value);
}

static void look(void) { OK(cuMemcpyDtoH(seen, area, BYTES)); }

static void read_first(void)
{
    leave_bytes();
    take();
    look();
    for (int i = 0; i < PIECES; i++)
        is(i, 0, WORDS, 0);
    give();
}

/* Some of a piece is written: the rest of it is new. */
static void written_in_part(void)
{
    leave_bytes();
    take();
    OK(cuMemsetD32Async(area, 7, WORDS, stream));                                 /* one piece, all of it */
    OK(cuMemsetD32Async(area + GRAIN + GRAIN / 2, 8, WORDS, stream));             /* halves of two */
    OK(cuMemsetD2D32Async(area + 3 * GRAIN, GRAIN / 2, 9, WORDS / 4, 2, stream)); /* rows, with gaps */
    OK(cuStreamSynchronize(stream));
    look();
    is(0, 0, WORDS, 7);
    is(1, 0, WORDS / 2, 0);
    is(1, WORDS / 2, WORDS / 2, 8);
    is(2, 0, WORDS / 2, 8);
    is(2, WORDS / 2, WORDS / 2, 0);
    is(3, 0, WORDS / 4, 9);
    is(3, WORDS / 4, WORDS / 4, 0);
    is(3, WORDS / 2, WORDS / 4, 9);
    is(3, 3 * WORDS / 4, WORDS / 4, 0);
    give();
}

static void copied(void)
{
    leave_bytes();
    take();
    OK(cuMemcpyDtoDAsync(area + GRAIN, area, GRAIN, stream)); /* its source is new, so is what comes of it */
    for (size_t i = 0; i < WORDS; i++)
        seen[i] = (uint32_t)i;
    OK(cuMemcpyHtoDAsync(area + 2 * GRAIN, seen, GRAIN, stream));
    OK(cuMemcpyDtoDAsync(area + 3 * GRAIN + 4, area + 2 * GRAIN, GRAIN - 8, stream)); /* all but two words */
    OK(cuStreamSynchronize(stream));
    look();
    is(0, 0, WORDS, 0);
    is(1, 0, WORDS, 0);
    for (uint32_t i = 0; i < WORDS; i++)
        is(2, i, 1, i);
    is(3, 0, 1, 0);
    for (uint32_t i = 0; i < WORDS - 2; i++)
        is(3, i + 1, 1, i);
    is(3, WORDS - 1, 1, 0);
    give();
}

static void a_kernel_looks(void)
{
    leave_bytes();
    take();
    OK(cuMemsetD32Async(area, 5, WORDS, stream));
    CUdeviceptr to = area + GRAIN + 64;
    uint32_t value = 6;
    void *parameters[] = {&to, &value};
    OK(cuLaunchKernel(store_kernel, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
    OK(cuStreamSynchronize(stream));
    look();
    is(0, 0, WORDS, 5);
    is(1, 0, 16, 0);
    is(1, 16, 1, 6);
    is(1, 17, WORDS - 17, 0);
    is(2, 0, 2 * WORDS, 0);
    give();
}

/* Another mapping, or another process, sees what the first one does. */
static void seen_from_elsewhere(void)
{
    CUdeviceptr other;
    OK(cuMemAddressReserve(&other, 2 * BYTES, 0, 0, 0));
    leave_bytes();
    OK(cuMemCreate(&handle, BYTES, &prop, 0));
    OK(cuMemMap(area, BYTES, 0, handle, 0));
    OK(cuMemMap(other, BYTES, 0, handle, 0)); /* neither has had access */
    OK(cuMemSetAccess(other, BYTES, &full, 1));
    OK(cuMemsetD32(other + GRAIN, 3, WORDS));
    OK(cuMemSetAccess(area, BYTES, &full, 1));
    look();
    is(0, 0, WORDS, 0);
    is(1, 0, WORDS, 3);
    OK(cuMemUnmap(other, BYTES));
    int fd;
    CUmemGenericAllocationHandle imported;
    OK(cuMemExportToShareableHandle(&fd, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0));
    OK(cuMemImportFromShareableHandle(&imported, (void *)(intptr_t)fd, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR));
    close(fd);
    OK(cuMemMap(other + BYTES, BYTES, 0, imported, 0));
    OK(cuMemSetAccess(other + BYTES, BYTES, &full, 1));
    OK(cuMemcpyDtoH(seen, other + BYTES, BYTES));
    is(1, 0, WORDS, 3);
    is(2, 0, 2 * WORDS, 0);
    OK(cuMemUnmap(other + BYTES, BYTES));
    OK(cuMemRelease(imported));
    OK(cuMemAddressFree(other, 2 * BYTES));
    give();
}

/* A handle that is mapped nowhere for a while keeps its content; parts of handles and what never had access can be mapped. */
static void mapped_again(void)
{
    leave_bytes();
    take();
    OK(cuMemsetD32(area + GRAIN, 4, WORDS));
    OK(cuCtxSynchronize()); /* a memset may still run when the call has returned */
    for (int i = 0; i < 3; i++) {
        OK(cuMemUnmap(area, BYTES));
        OK(cuMemMap(area, BYTES, 0, handle, 0));
        if (i == 1)
            continue; /* it goes without ever having had access */
        OK(cuMemSetAccess(area, BYTES, &full, 1));
        look();
        is(0, 0, WORDS, 0);
        is(1, 0, WORDS, 4);
    }
    OK(cuMemUnmap(area, BYTES));
    OK(cuMemMap(area, 2 * GRAIN, 0, handle, 0)); /* a part */
    OK(cuMemSetAccess(area, 2 * GRAIN, &full, 1));
    OK(cuMemcpyDtoH(seen, area, 2 * GRAIN));
    is(1, 0, WORDS, 4);
    OK(cuMemUnmap(area, 2 * GRAIN));
    OK(cuMemRelease(handle));
}

/* Memory that is out of use can be touched by nobody, though it is kept. */
static void out_of_use(void)
{
    leave_bytes();
    OK(cuMemsetD8Async(area, 1, 16, stream));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(stream));
    OK(cuDevicePrimaryCtxReset(0));
}

int main(void)
{
    CUmodule module;
    use_own_board("64M");
    primary_context();
    prop = device_memory(0);
    prop.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
    full = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    seen = malloc(BYTES);
    CHECK(seen != NULL);
    OK(cuMemAddressReserve(&area, BYTES, 0, 0, 0));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuModuleLoadData(&module, kernels));
    OK(cuModuleGetFunction(&store_kernel, module, "store"));
    read_first();
    written_in_part();
    copied();
    a_kernel_looks();
    seen_from_elsewhere();
    mapped_again();
    out_of_use();
    free(seen);
    return 0;
}
