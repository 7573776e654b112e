/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that takes device memory in every way that gives some, and looks at it before it has written a byte.
 *
 *     looker fill MEBIBYTES     fills it with a pattern, which no other tenant may ever see: `holds`; on SIGTERM it checks it
 *     looker look MEBIBYTES     every byte must be 0: `looked at N MiB`; once more at each SIGUSR1: `again N MiB`
 *
 * `result: OK` at the end; exits 3 when a call fails, 4 when a word is wrong.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "must.h"

enum { PIECE = 2 << 20, SMALL = 512, SMALL_COUNT = 64, PIECES_MAX = 1024, ROW = 4096, KINDS = 5 };
#define PATTERN 0x5EC2E75Au

static struct piece {
    const char *kind;
    CUdeviceptr address;
    size_t bytes;
} pieces[PIECES_MAX];
static int count;

static CUdeviceptr map(size_t bytes)
{
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    const CUmemAccessDesc access = {.location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemGenericAllocationHandle handle;
    CUdeviceptr address;
    OK(cuMemAddressReserve(&address, bytes, 0, 0, 0));
    OK(cuMemCreate(&handle, bytes, &properties, 0));
    OK(cuMemMap(address, bytes, 0, handle, 0));
    OK(cuMemSetAccess(address, bytes, &access, 1));
    return address;
}

static void take(int way, size_t bytes)
{
    struct piece *const piece = &pieces[count++];
    size_t pitch;
    piece->bytes = bytes;
    switch (way) {
    case 0:
        piece->kind = "plain";
        OK(cuMemAlloc_v2(&piece->address, bytes));
        break;
    case 1:
        piece->kind = "pool";
        OK(cuMemAllocAsync(&piece->address, bytes, NULL));
        break;
    case 2:
        piece->kind = "mapped";
        piece->address = map(bytes);
        break;
    case 3:
        piece->kind = "pitched";
        OK(cuMemAllocPitch_v2(&piece->address, &pitch, ROW, bytes / ROW, 4));
        break;
    default:
        piece->kind = "managed";
        OK(cuMemAllocManaged(&piece->address, bytes, CU_MEM_ATTACH_GLOBAL));
    }
}

static void check(uint32_t wanted)
{
    static uint32_t words[PIECE / 4];
    for (int i = 0; i < count; i++) {
        memset(words, ~(int)(wanted & 0xff), sizeof words); /* so that a copy that does nothing is seen */
        OK(cuMemcpyDtoH_v2(words, pieces[i].address, pieces[i].bytes));
        for (size_t word = 0; word < pieces[i].bytes / 4; word++) {
            if (words[word] == wanted)
                continue;
            printf("result: WRONG %s memory: word %zu is %08x\n", pieces[i].kind, word, words[word]);
            fflush(stdout);
            _Exit(4);
        }
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const int fills = strcmp(argv[1], "fill") == 0, mebibytes = atoi(argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGUSR1);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    CUcontext context;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    for (int i = 0; i < SMALL_COUNT; i++)
        take(0, SMALL);
    for (int i = 0; i < mebibytes / (PIECE >> 20); i++)
        take(i % KINDS, PIECE);
    OK(cuStreamSynchronize(NULL));
    if (fills) {
        for (int i = 0; i < count; i++)
            OK(cuMemsetD32_v2(pieces[i].address, PATTERN, pieces[i].bytes / 4));
        OK(cuCtxSynchronize());
        puts("holds");
    } else {
        check(0);
        printf("looked at %d MiB\n", mebibytes);
    }
    for (int number = 0; number != SIGTERM;) {
        sigwait(&signals, &number);
        check(fills ? PATTERN : 0);
        if (number == SIGUSR1)
            printf("again %d MiB\n", mebibytes);
    }
    puts("result: OK");
    return 0;
}
