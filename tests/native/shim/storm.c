/* SPDX-License-Identifier: Apache-2.0
 *
 * A program that does everything at once: threads that allocate in both ways, launch, copy, check every word, free, destroy
 * streams with work in them, end and are followed by others, in the primary context or in contexts of their own.
 *
 *     storm SECONDS SEED MEBIBYTES THREADS [own]     own: contexts of their own too
 *
 * Says `result: OK operations=N`; exits 3 when a call fails, 4 when a word is wrong.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "must.h"

/* words[i] = words[i] * 1664525 + 1013904223 + i */
static const char mix_ptx[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry mix(.param .u64 words, .param .u32 count)\n{\n"
    " .reg .pred %p; .reg .b32 %r<8>; .reg .b64 %rd<5>;\n"
    " ld.param.u64 %rd1, [words]; ld.param.u32 %r1, [count]; cvta.to.global.u64 %rd2, %rd1;\n"
    " mov.u32 %r2, %ntid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;\n"
    " setp.ge.u32 %p, %r5, %r1; @%p bra DONE;\n"
    " mul.wide.u32 %rd3, %r5, 4; add.s64 %rd4, %rd2, %rd3; ld.global.u32 %r6, [%rd4];\n"
    " mad.lo.s32 %r7, %r6, 1664525, 1013904223; add.s32 %r7, %r7, %r5; st.global.u32 [%rd4], %r7;\n"
    "DONE: ret;\n}\n";

enum { BLOCKS = 12, STREAMS = 3, THREADS_MAX = 32 };

/* Word i is seed * a + b + c * i: what any number of passes makes of the seed. */
struct block {
    CUdeviceptr address;
    uint32_t words, seed, a, b, c;
    int pooled, stream; /* index of the stream that all its work is given to */
};

struct worker {
    pthread_t thread;
    uint64_t random;
    int own;
    CUfunction mix;
    CUstream streams[STREAMS];
    struct block blocks[BLOCKS];
    uint32_t *host;
};

static CUdevice device;
static CUcontext primary;
static double ends;
static uint64_t room; /* bytes of one worker */
static uint32_t largest_words;
static uint64_t operations;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static uint32_t chance(struct worker *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(w->random >> 33) % below;
}

static uint64_t held(const struct worker *w)
{
    uint64_t bytes = 0;
    for (int i = 0; i < BLOCKS; i++)
        if (w->blocks[i].address != 0)
            bytes += w->blocks[i].words * 4ull;
    return bytes;
}

/* The last of the streams is the thread's own default stream. */
static int per_thread(int stream) { return stream == STREAMS - 1; }

static void mix(struct worker *w, struct block *block)
{
    void *arguments[] = {&block->address, &block->words};
    const unsigned int blocks = (block->words + 255) / 256;
    if (per_thread(block->stream))
        OK(cuLaunchKernel_ptsz(w->mix, blocks, 1, 1, 256, 1, 1, 0, NULL, arguments, NULL));
    else
        OK(cuLaunchKernel(w->mix, blocks, 1, 1, 256, 1, 1, 0, w->streams[block->stream], arguments, NULL));
    block->a *= 1664525u;
    block->b = block->b * 1664525u + 1013904223u;
    block->c = block->c * 1664525u + 1u;
}

static void allocate(struct worker *w, struct block *block)
{
    static const uint32_t sizes[] = {64, 4096, 70000, 262144, 524288, 1048576};
    const uint32_t words = chance(w, 2) ? sizes[chance(w, 6)] : 1 + chance(w, largest_words);
    const uint64_t bytes = words * 4ull;
    if (words > largest_words || held(w) + bytes > room)
        return;
    *block = (struct block){.words = words, .seed = chance(w, 1u << 30), .a = 1, .stream = (int)chance(w, STREAMS)};
    block->pooled = chance(w, 2) != 0;
    if (!block->pooled)
        OK(cuMemAlloc_v2(&block->address, bytes));
    else if (per_thread(block->stream))
        OK(cuMemAllocAsync_ptsz(&block->address, bytes, NULL));
    else
        OK(cuMemAllocAsync(&block->address, bytes, w->streams[block->stream]));
    if (per_thread(block->stream))
        OK(cuMemsetD32Async_ptsz(block->address, block->seed, words, NULL));
    else
        OK(cuMemsetD32Async(block->address, block->seed, words, w->streams[block->stream]));
}

static void check(struct worker *w, const struct block *block)
{
    const uint64_t bytes = block->words * 4ull;
    memset(w->host, 0xee, bytes);
    if (per_thread(block->stream)) {
        OK(cuMemcpyDtoHAsync_v2_ptsz(w->host, block->address, bytes, NULL));
        OK(cuStreamSynchronize_ptsz(NULL));
    } else {
        OK(cuMemcpyDtoHAsync_v2(w->host, block->address, bytes, w->streams[block->stream]));
        OK(cuStreamSynchronize(w->streams[block->stream]));
    }
    for (uint32_t i = 0; i < block->words; i++) {
        const uint32_t expected = block->seed * block->a + block->b + block->c * i;
        if (w->host[i] != expected) {
            printf("result: WRONG word %u of %u at %llx: %08x, not %08x (pooled %d, stream %d)\n", i, block->words,
                   (unsigned long long)block->address, w->host[i], expected, block->pooled, block->stream);
            fflush(stdout);
            _Exit(4);
        }
    }
}

static void release(struct worker *w, struct block *block)
{
    if (!block->pooled || chance(w, 8) == 0)
        OK(cuMemFree_v2(block->address));
    else if (per_thread(block->stream))
        OK(cuMemFreeAsync_ptsz(block->address, NULL));
    else
        OK(cuMemFreeAsync(block->address, w->streams[block->stream]));
    block->address = 0;
}

/* Another block of the same stream gets the content of this one. */
static void copy(struct worker *w, struct block *from)
{
    struct block *to = &w->blocks[chance(w, BLOCKS)];
    if (to == from || to->address == 0 || to->words != from->words || to->stream != from->stream)
        return;
    if (per_thread(from->stream))
        OK(cuMemcpyDtoDAsync_v2_ptsz(to->address, from->address, from->words * 4ull, NULL));
    else
        OK(cuMemcpyDtoDAsync_v2(to->address, from->address, from->words * 4ull, w->streams[from->stream]));
    to->seed = from->seed;
    to->a = from->a;
    to->b = from->b;
    to->c = from->c;
}

/* A stream with work in it is destroyed; its blocks that were freed in its order may not be had by others before that is done. */
static void renew_stream(struct worker *w)
{
    const int stream = (int)chance(w, STREAMS - 1);
    for (int i = 0; i < BLOCKS; i++) {
        struct block *block = &w->blocks[i];
        if (block->address == 0 || block->stream != stream)
            continue;
        mix(w, block);
        if (block->pooled) {
            OK(cuMemFreeAsync(block->address, w->streams[stream]));
            block->address = 0;
        } else {
            release(w, block);
        }
    }
    OK(cuStreamDestroy_v2(w->streams[stream]));
    OK(cuStreamCreate(&w->streams[stream], chance(w, 2) ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
}

static void work(struct worker *w)
{
    for (uint32_t left = 40 + chance(w, 200); left-- > 0 && now() < ends;) {
        struct block *block = &w->blocks[chance(w, BLOCKS)];
        __atomic_fetch_add(&operations, 1, __ATOMIC_RELAXED);
        if (chance(w, 60) == 0)
            renew_stream(w);
        else if (block->address == 0)
            allocate(w, block);
        else if (chance(w, 6) == 0)
            release(w, block);
        else if (chance(w, 5) == 0)
            check(w, block);
        else if (chance(w, 4) == 0)
            copy(w, block);
        else
            mix(w, block);
        if (chance(w, 200) == 0)
            OK(cuCtxSynchronize());
    }
}

static void *live(void *argument)
{
    struct worker *w = argument;
    CUcontext context = primary;
    CUmodule module;
    memset(w->blocks, 0, sizeof w->blocks);
    if (w->own)
        OK(cuCtxCreate_v2(&context, 0, device));
    else
        OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&module, mix_ptx));
    OK(cuModuleGetFunction(&w->mix, module, "mix"));
    for (int i = 0; i < STREAMS - 1; i++)
        OK(cuStreamCreate(&w->streams[i], i == 0 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT));
    work(w);
    for (int i = 0; i < BLOCKS; i++)
        if (w->blocks[i].address != 0)
            check(w, &w->blocks[i]);
    const int leave_all = w->own && chance(w, 2); /* the context takes its memory and its work along */
    for (int i = 0; i < BLOCKS && !leave_all; i++)
        if (w->blocks[i].address != 0)
            release(w, &w->blocks[i]);
    if (leave_all)
        for (int i = 0; i < BLOCKS; i++)
            if (w->blocks[i].address != 0)
                mix(w, &w->blocks[i]);
    for (int i = 0; i < STREAMS - 1 && !leave_all; i++)
        OK(cuStreamDestroy_v2(w->streams[i]));
    if (w->own)
        OK(cuCtxDestroy_v2(context));
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc < 5) {
        fprintf(stderr, "usage: storm SECONDS SEED MEBIBYTES THREADS [own]\n");
        return 2;
    }
    static struct worker workers[THREADS_MAX];
    const int threads = atoi(argv[4]) < THREADS_MAX ? atoi(argv[4]) : THREADS_MAX;
    const int own = argc > 5 && strcmp(argv[5], "own") == 0;
    room = ((uint64_t)atoi(argv[3]) << 20) / (uint64_t)threads;
    largest_words = (uint32_t)(room / 16);
    OK(cuInit(0));
    OK(cuDeviceGet(&device, 0));
    OK(cuDevicePrimaryCtxRetain(&primary, device));
    OK(cuCtxSetCurrent(primary));
    CUmodule first;
    OK(cuModuleLoadData(&first, mix_ptx)); /* the slow one; the time counts from here */
    OK(cuModuleUnload(first));
    ends = now() + atof(argv[1]);
    for (int i = 0; i < threads; i++) {
        workers[i].random = (uint64_t)atoi(argv[2]) * 1000003u + (uint64_t)i;
        workers[i].host = malloc(largest_words * 4ull);
        workers[i].own = own && i % 2;
        if (workers[i].host == NULL || pthread_create(&workers[i].thread, NULL, live, &workers[i]) != 0)
            return 2;
    }
    printf("ready\n");
    fflush(stdout);
    for (int i = 0, going = threads; going > 0; i = (i + 1) % threads) {
        if (workers[i].host == NULL)
            continue;
        pthread_join(workers[i].thread, NULL);
        if (now() < ends && pthread_create(&workers[i].thread, NULL, live, &workers[i]) == 0)
            continue; /* the next one, in a thread of its own */
        free(workers[i].host);
        workers[i].host = NULL;
        going--;
    }
    OK(cuDevicePrimaryCtxRelease_v2(device));
    printf("result: OK operations=%llu\n", (unsigned long long)operations);
    return 0;
}
