/* SPDX-License-Identifier: Apache-2.0
 *
 * Does to device memory what it is told on standard input, a line each, and answers each with a line: tests/integration/
 * test_memory_model.py knows what the content has to be.
 *
 *     a SLOT KIND BYTES VALUE   allocates (KIND d: cuMemAlloc, p: from the pool, m: a mapping of its own) and fills with VALUE
 *     f SLOT                    frees
 *     w SLOT VALUE              writes word i = VALUE + i * ODD from the host
 *     s SLOT FIRST COUNT VALUE  sets words
 *     c TO AT FROM AT COUNT     copies words
 *     k SLOT COUNT              word i = word i * 1664525 + 1013904223 + i, by a kernel
 *     r SLOT                    digest of all words
 *     i                         free and total bytes
 *
 * Answers: `ok [NUMBER...]`; `oom` to an allocation; anything else is a mistake. It ends with its input.
 */
#include <cuda.h>

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "must.h"

enum { SLOTS = 256, BLOCK = 256, STAGE = 4 << 20 };
#define ODD 0x9E3779B1u

static const char kernel_text[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry mix(.param .u64 words, .param .u32 count)\n{\n"
    "    .reg .pred %p;\n    .reg .b32 %r<8>;\n    .reg .b64 %rd<5>;\n"
    "    ld.param.u64 %rd1, [words];\n    ld.param.u32 %r1, [count];\n"
    "    cvta.to.global.u64 %rd2, %rd1;\n    mov.u32 %r2, %ntid.x;\n"
    "    mov.u32 %r3, %ctaid.x;\n    mov.u32 %r4, %tid.x;\n"
    "    mad.lo.s32 %r5, %r2, %r3, %r4;\n    setp.ge.u32 %p, %r5, %r1;\n    @%p bra DONE;\n"
    "    mul.wide.u32 %rd3, %r5, 4;\n    add.s64 %rd4, %rd2, %rd3;\n"
    "    ld.global.u32 %r6, [%rd4];\n    mad.lo.s32 %r7, %r6, 1664525, 1013904223;\n"
    "    add.s32 %r7, %r7, %r5;\n    st.global.u32 [%rd4], %r7;\nDONE:\n    ret;\n}\n";

static struct item {
    CUdeviceptr at;
    uint64_t bytes;
    char kind;
    CUmemGenericAllocationHandle handle;
} items[SLOTS];
static CUfunction mix;
static CUstream stream;
static CUdevice device;
static uint32_t *stage;
static uint64_t granularity;

static CUmemAllocationProp plain(void)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

static CUresult map_own(struct item *item)
{
    const CUmemAllocationProp properties = plain();
    const CUmemAccessDesc access = {.location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    item->bytes = (item->bytes + granularity - 1) / granularity * granularity;
    const CUresult result = cuMemCreate(&item->handle, item->bytes, &properties, 0);
    if (result != CUDA_SUCCESS)
        return result;
    OK(cuMemAddressReserve(&item->at, item->bytes, 0, 0, 0));
    OK(cuMemMap(item->at, item->bytes, 0, item->handle, 0));
    OK(cuMemSetAccess(item->at, item->bytes, &access, 1));
    return CUDA_SUCCESS;
}

static void allocate(struct item *item, char kind, uint64_t bytes, uint32_t value)
{
    *item = (struct item){.bytes = bytes, .kind = kind};
    const CUresult result = kind == 'd'   ? cuMemAlloc(&item->at, bytes)
                            : kind == 'p' ? cuMemAllocAsync(&item->at, bytes, stream)
                                          : map_own(item);
    if (result == CUDA_ERROR_OUT_OF_MEMORY) {
        puts("oom");
        return;
    }
    OK(result);
    OK(cuMemsetD32Async(item->at, value, item->bytes / 4, stream));
    printf("ok %" PRIu64 "\n", item->bytes);
}

static void release(struct item *item)
{
    if (item->kind == 'd') {
        OK(cuMemFree(item->at));
    } else if (item->kind == 'p') {
        OK(cuMemFreeAsync(item->at, stream));
    } else {
        OK(cuStreamSynchronize(stream));
        OK(cuMemUnmap(item->at, item->bytes));
        OK(cuMemAddressFree(item->at, item->bytes));
        OK(cuMemRelease(item->handle));
    }
    puts("ok");
}

static void write_all(const struct item *item, uint32_t value)
{
    for (uint64_t done = 0; done < item->bytes / 4; done += STAGE / 4) {
        const uint64_t left = item->bytes / 4 - done, count = left < STAGE / 4 ? left : STAGE / 4;
        for (uint64_t i = 0; i < count; i++)
            stage[i] = value + (uint32_t)(done + i) * ODD;
        OK(cuMemcpyHtoDAsync(item->at + done * 4, stage, count * 4, stream));
        OK(cuStreamSynchronize(stream));
    }
    puts("ok");
}

static void digest(const struct item *item)
{
    uint64_t sum = 0;
    for (uint64_t done = 0; done < item->bytes / 4; done += STAGE / 4) {
        const uint64_t left = item->bytes / 4 - done, count = left < STAGE / 4 ? left : STAGE / 4;
        OK(cuMemcpyDtoHAsync(stage, item->at + done * 4, count * 4, stream));
        OK(cuStreamSynchronize(stream));
        for (uint64_t i = 0; i < count; i++)
            sum += stage[i] * (2 * (done + i) + 1);
    }
    printf("ok %" PRIu64 "\n", sum);
}

static void launch(const struct item *item, uint32_t count)
{
    CUdeviceptr at = item->at;
    void *arguments[] = {&at, &count};
    OK(cuLaunchKernel(mix, (count + BLOCK - 1) / BLOCK, 1, 1, BLOCK, 1, 1, 0, stream, arguments, NULL));
    puts("ok");
}

static void obey(const char *line)
{
    unsigned a, b;
    uint64_t x, y, count;
    uint32_t value;
    char kind;
    size_t left, total;
    if (sscanf(line, "a %u %c %" SCNu64 " %" SCNu32, &a, &kind, &x, &value) == 4) {
        allocate(&items[a], kind, x, value);
    } else if (sscanf(line, "f %u", &a) == 1) {
        release(&items[a]);
    } else if (sscanf(line, "w %u %" SCNu32, &a, &value) == 2) {
        write_all(&items[a], value);
    } else if (sscanf(line, "s %u %" SCNu64 " %" SCNu64 " %" SCNu32, &a, &x, &count, &value) == 4) {
        OK(cuMemsetD32Async(items[a].at + x * 4, value, count, stream));
        puts("ok");
    } else if (sscanf(line, "c %u %" SCNu64 " %u %" SCNu64 " %" SCNu64, &a, &x, &b, &y, &count) == 5) {
        OK(cuMemcpyDtoDAsync(items[a].at + x * 4, items[b].at + y * 4, count * 4, stream));
        puts("ok");
    } else if (sscanf(line, "k %u %" SCNu32, &a, &value) == 2) {
        launch(&items[a], value);
    } else if (sscanf(line, "r %u", &a) == 1) {
        digest(&items[a]);
    } else if (line[0] == 'i') {
        OK(cuStreamSynchronize(stream));
        OK(cuMemGetInfo(&left, &total));
        printf("ok %zu %zu\n", left, total);
    } else {
        printf("error: not understood: %s", line);
    }
    fflush(stdout);
}

int main(void)
{
    CUcontext context;
    CUmodule module;
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    OK(cuDevicePrimaryCtxRetain(&context, device));
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, kernel_text));
    OK(cuModuleGetFunction(&mix, module, "mix"));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    OK(cuMemHostAlloc((void **)&stage, STAGE, 0));
    const CUmemAllocationProp properties = plain();
    size_t size;
    OK(cuMemGetAllocationGranularity(&size, &properties, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    granularity = size;
    puts("ok");
    fflush(stdout);
    char line[256];
    while (fgets(line, sizeof line, stdin) != NULL)
        obey(line);
    return 0;
}
