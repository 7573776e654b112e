/* SPDX-License-Identifier: Apache-2.0
 *
 * A job that always wants the GPU: spin MIB SECONDS GAP_US [dirty]
 *
 * Takes MIB of device memory, fills it, then launches a tiny kernel again and again and waits for each, for SECONDS from its
 * first turn (or until the file named by SPIN_STOP exists). When an iteration takes longer than GAP_US the job was off the GPU: with `dirty` it then writes all of its memory
 * again, so that nothing can be saved by not copying what did not change. Prints
 *     {"turns": [[start_ns, end_ns], ...], "iterations": N, "checked": true}
 * with CLOCK_MONOTONIC times: a turn goes from the first iteration after a gap that completed to the last one before the next.
 * At the end every word of the memory is compared with what was written; a difference ends the program with exit code 4.
 */
#include <string.h>
#include <unistd.h>

#include "driver.h"

enum { TURNS_MAX = 100000, THREADS = 256 };

/* fill: word i = i * 2654435761 + seed, four words a thread; every page is different */
static const char ptx[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".visible .entry fill(.param .u64 p, .param .u32 seed, .param .u32 quads)\n"
    "{\n"
    ".reg .pred %q; .reg .b32 %r<12>; .reg .b64 %d<4>;\n"
    "ld.param.u64 %d0, [p]; ld.param.u32 %r0, [seed]; ld.param.u32 %r1, [quads];\n"
    "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;\n"
    "setp.ge.u32 %q, %r5, %r1;\n"
    "@%q bra DONE;\n"
    "cvta.to.global.u64 %d1, %d0; mul.wide.u32 %d2, %r5, 16; add.s64 %d3, %d1, %d2;\n"
    "shl.b32 %r6, %r5, 2; mul.lo.s32 %r7, %r6, -1640531535; add.s32 %r7, %r7, %r0;\n"
    "add.s32 %r8, %r7, -1640531535; add.s32 %r9, %r8, -1640531535; add.s32 %r10, %r9, -1640531535;\n"
    "st.global.v4.u32 [%d3], {%r7, %r8, %r9, %r10};\n"
    "DONE: ret;\n"
    "}\n"
    ".visible .entry nothing() { ret; }\n";

static void *stream, *fill_kernel, *empty_kernel;

static void fill(device_address address, uint64_t bytes, uint32_t seed)
{
    uint32_t quads = (uint32_t)(bytes / 16);
    void *parameters[] = {&address, &seed, &quads};
    check(launch(fill_kernel, (quads + THREADS - 1) / THREADS, 1, 1, THREADS, 1, 1, 0, stream, parameters, NULL),
          "cuLaunchKernel");
    check(stream_wait(stream), "cuStreamSynchronize");
}

static int intact(device_address address, uint64_t bytes, uint32_t seed)
{
    enum { CHUNK = 4 << 20 };
    uint32_t *const words = malloc(CHUNK);
    uint32_t index = 0;
    if (words == NULL)
        return 0;
    for (uint64_t offset = 0; offset < bytes; offset += CHUNK) {
        const uint64_t size = bytes - offset < CHUNK ? bytes - offset : CHUNK;
        check(copy_out(words, address + offset, size), "cuMemcpyDtoH");
        for (uint64_t i = 0; i < size / 4; i++, index++)
            if (words[i] != index * 2654435761u + seed)
                return 0;
    }
    free(words);
    return 1;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: spin MIB SECONDS GAP_US [dirty]\n");
        return 2;
    }
    const uint64_t bytes = strtoull(argv[1], NULL, 10) << 20, gap = strtoull(argv[3], NULL, 10) * 1000;
    const uint64_t limit = (uint64_t)(strtod(argv[2], NULL) * 1e9);
    const int dirty = argc > 4 && strcmp(argv[4], "dirty") == 0;
    static uint64_t turns[TURNS_MAX][2];
    void *const module = open_driver(ptx);
    device_address address = 0;
    uint32_t seed = 1;
    check(function_get(&fill_kernel, module, "fill"), "cuModuleGetFunction");
    check(function_get(&empty_kernel, module, "nothing"), "cuModuleGetFunction");
    check(stream_create(&stream, 1), "cuStreamCreate");
    check(allocate(&address, bytes), "cuMemAlloc");
    fill(address, bytes, seed);
    printf("ready\n");
    fflush(stdout);

    const char *const stop = getenv("SPIN_STOP");
    const uint64_t began = now_ns();
    uint64_t last = began, iterations = 0;
    size_t turn = 0;
    turns[0][0] = began;
    do {
        check(launch(empty_kernel, 1, 1, 1, 32, 1, 1, 0, stream, NULL, NULL), "cuLaunchKernel");
        check(stream_wait(stream), "cuStreamSynchronize");
        uint64_t now = now_ns();
        if (now - last > gap && turn + 1 < TURNS_MAX) {
            turns[turn][1] = last;
            turns[++turn][0] = now;
            if (dirty) {
                fill(address, bytes, ++seed);
                now = now_ns();
            }
        }
        last = now;
        iterations++;
    } while (last - began < limit && (stop == NULL || iterations % 64 != 0 || access(stop, F_OK) != 0));
    turns[turn][1] = last;

    const int good = intact(address, bytes, seed);
    printf("{\"turns\": [");
    for (size_t i = 0; i <= turn; i++)
        printf("%s[%llu, %llu]", i ? ", " : "", (unsigned long long)turns[i][0], (unsigned long long)turns[i][1]);
    printf("], \"iterations\": %llu, \"checked\": %s}\n", (unsigned long long)iterations, good ? "true" : "false");
    return good ? 0 : 4;
}
