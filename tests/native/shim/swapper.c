/* SPDX-License-Identifier: Apache-2.0
 *
 * A program whose memory is worth swapping: reads and checks every word of it, writes what changes, again and again.
 *
 *     swapper MEBIBYTES SEED
 *
 * In pieces of 4 MiB: one is zero for ever, one keeps what it once got, two are always equal; of the others, which change at
 * every step, one is from a pool and one is a mapping of the program's own. Says `ready`, `step N`; SIGUSR1: `paused` at the
 * end of the step, until SIGUSR2; SIGTERM: a last check, then `result: OK steps=N`. Exits 3 when a call fails, 4 when a word is
 * wrong.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "must.h"

enum { PIECE = 4 << 20, WORDS = PIECE / 8, PIECES_MAX = 256, ZERO = 0, CLEAN = 1, TWIN = 3, POOL = 4, OWN = 5 };

static CUdeviceptr pieces[PIECES_MAX];
static CUmemGenericAllocationHandle handle;
static uint64_t *host;
static uint64_t seed;
static volatile sig_atomic_t ended, pausing;

static void told(int number)
{
    ended |= number == SIGTERM;
    pausing = number == SIGUSR1;
}

/* Word i of a piece at a step is key + i * odd. */
static uint64_t key_of(int piece, uint64_t step)
{
    const uint64_t words[] = {seed, (uint64_t)(piece == TWIN ? TWIN - 1 : piece), piece == CLEAN ? 0 : step};
    uint64_t key = 0x9E3779B97F4A7C15ull;
    for (int i = 0; i < 3; i++) {
        key = (key ^ words[i]) * 0xD6E8FEB86659FD93ull;
        key ^= key >> 32;
    }
    return key;
}
static uint64_t odd_of(int piece) { return piece == ZERO ? 0 : 0xC2B2AE3D27D4EB4Full; }

static void put(int piece, uint64_t step)
{
    const uint64_t key = piece == ZERO ? 0 : key_of(piece, step), odd = odd_of(piece);
    for (uint64_t i = 0; i < WORDS; i++)
        host[i] = key + i * odd;
    OK(cuMemcpyHtoD_v2(pieces[piece], host, PIECE));
}

static void check(int piece, uint64_t step)
{
    const uint64_t key = piece == ZERO ? 0 : key_of(piece, step), odd = odd_of(piece);
    uint64_t wrong = 0;
    OK(cuMemcpyDtoH_v2(host, pieces[piece], PIECE));
    for (uint64_t i = 0; i < WORDS; i++)
        wrong |= host[i] ^ (key + i * odd);
    if (wrong == 0)
        return;
    for (uint64_t i = 0; i < WORDS; i++) {
        if (host[i] == key + i * odd)
            continue;
        printf("result: WRONG piece %d word %llu step %llu\n", piece, (unsigned long long)i, (unsigned long long)step);
        fflush(stdout);
        _Exit(4);
    }
}

static void take(int count)
{
    CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = 0}};
    CUmemAccessDesc access = {.location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    for (int piece = 0; piece < count; piece++) {
        if (piece == POOL) {
            OK(cuMemAllocAsync(&pieces[piece], PIECE, NULL));
        } else if (piece == OWN) {
            OK(cuMemAddressReserve(&pieces[piece], PIECE, 0, 0, 0));
            OK(cuMemCreate(&handle, PIECE, &properties, 0));
            OK(cuMemMap(pieces[piece], PIECE, 0, handle, 0));
            OK(cuMemSetAccess(pieces[piece], PIECE, &access, 1));
        } else {
            OK(cuMemAlloc_v2(&pieces[piece], PIECE));
        }
        put(piece, 0);
    }
}

static void give(int count)
{
    for (int piece = 0; piece < count; piece++) {
        if (piece == POOL) {
            OK(cuMemFreeAsync(pieces[piece], NULL));
        } else if (piece == OWN) {
            OK(cuMemUnmap(pieces[piece], PIECE));
            OK(cuMemRelease(handle));
            OK(cuMemAddressFree(pieces[piece], PIECE));
        } else {
            OK(cuMemFree_v2(pieces[piece]));
        }
    }
}

static void wait_while_paused(void)
{
    for (int said = 0; pausing && !ended; said = 1) {
        if (!said)
            puts("paused");
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const int count = atoi(argv[1]) / (PIECE >> 20);
    seed = strtoull(argv[2], NULL, 10);
    host = malloc(PIECE);
    if (host == NULL || count > PIECES_MAX)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 0; i < 3; i++)
        signal((int[]){SIGTERM, SIGUSR1, SIGUSR2}[i], told);
    CUcontext context;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    take(count);
    puts("ready");
    uint64_t step = 0;
    for (; !ended; step++) {
        wait_while_paused();
        for (int piece = 0; piece < count; piece++) {
            check(piece, step);
            if (piece > CLEAN)
                put(piece, step + 1);
        }
        printf("step %llu\n", (unsigned long long)step);
    }
    for (int piece = 0; piece < count; piece++)
        check(piece, step);
    give(count);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    printf("result: OK steps=%llu\n", (unsigned long long)step);
    return 0;
}
