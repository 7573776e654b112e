/* SPDX-License-Identifier: Apache-2.0
 *
 * A job with memory of a certain kind, for switches: pages MIB SECONDS GAP_US KIND
 *
 * Launches a tiny kernel again and again and waits for each, for SECONDS or until the file named by PAGES_STOP exists. When a launch call takes longer than GAP_US the job was
 * off the GPU; a turn begins. In each turn a kernel compares every word with what was written and (by KIND) writes:
 *
 *     dirty   all of it, every page with other content than before and than every other page
 *     clean   nothing
 *     zero    all of it, zeros
 *     same    all of it; all pages of 2 MiB are equal, and other than before
 *     fresh   nothing: it takes MIB of new memory, launches once, gives it back and lets the other job go on for REST_MS
 *
 * Says "ready" when the memory is first written, at the end prints {"turns": [[start_ns, end_ns], ...], "checked": true}, CLOCK_MONOTONIC: from the first launch of a turn that went through
 * to the end of the last one (fresh: from its end to when the memory was given back). A wrong word ends the program with exit code 4.
 */
#include <string.h>
#include <unistd.h>

#include "driver.h"

enum { TURNS_MAX = 4096, THREADS = 256, REST_MS = 400, PAGE_WORDS = (2 << 20) / 4 };
#define FACTOR 2654435761u

/* word i = (i & mask) * factor + seed; four words a thread. compare counts quads that differ. */
#define EACH_QUAD                                                                                                      \
    ".reg .pred %q; .reg .b32 %r<20>; .reg .b64 %d<6>;\n"                                                              \
    "ld.param.u64 %d0, [p]; ld.param.u32 %r0, [seed]; ld.param.u32 %r1, [quads];\n"                                    \
    "ld.param.u32 %r12, [mask]; ld.param.u32 %r13, [factor];\n"                                                        \
    "mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;\n"               \
    "setp.ge.u32 %q, %r5, %r1;\n"                                                                                      \
    "@%q bra DONE;\n"                                                                                                  \
    "cvta.to.global.u64 %d1, %d0; mul.wide.u32 %d2, %r5, 16; add.s64 %d3, %d1, %d2;\n"                                 \
    "shl.b32 %r6, %r5, 2; and.b32 %r6, %r6, %r12; mul.lo.s32 %r7, %r6, %r13; add.s32 %r7, %r7, %r0;\n"                 \
    "shr.u32 %r11, %r5, 30; shr.u32 %r18, %r12, 30; and.b32 %r11, %r11, %r18;\n"                                       \
    "mad.lo.s32 %r7, %r11, 305419897, %r7;\n" /* a page 16 GiB further on is another one, too */                       \
    "add.s32 %r8, %r7, %r13; add.s32 %r9, %r8, %r13; add.s32 %r10, %r9, %r13;\n"
#define PARAMETERS ".param .u64 p, .param .u32 seed, .param .u32 quads, .param .u32 mask, .param .u32 factor"

static const char ptx[] =
    ".version 7.0\n.target sm_75\n.address_size 64\n"
    ".visible .entry fill(" PARAMETERS ")\n{\n" EACH_QUAD "st.global.v4.u32 [%d3], {%r7, %r8, %r9, %r10};\n"
    "DONE: ret;\n}\n"
    ".visible .entry compare(" PARAMETERS ", .param .u64 wrong)\n{\n" EACH_QUAD
    "ld.global.v4.u32 {%r14, %r15, %r16, %r17}, [%d3];\n"
    "xor.b32 %r14, %r14, %r7; xor.b32 %r15, %r15, %r8; xor.b32 %r16, %r16, %r9;\n"
    "xor.b32 %r17, %r17, %r10; or.b32 %r14, %r14, %r15; or.b32 %r16, %r16, %r17;\n"
    "or.b32 %r14, %r14, %r16; setp.eq.u32 %q, %r14, 0;\n"
    "@%q bra DONE;\n"
    "ld.param.u64 %d4, [wrong]; cvta.to.global.u64 %d5, %d4; red.global.add.u32 [%d5], 1;\n"
    "DONE: ret;\n}\n"
    ".visible .entry rewrite(" PARAMETERS ", .param .u64 wrong, .param .u32 more)\n{\n" EACH_QUAD
    "ld.global.v4.u32 {%r14, %r15, %r16, %r17}, [%d3];\n"
    "xor.b32 %r14, %r14, %r7; xor.b32 %r15, %r15, %r8; xor.b32 %r16, %r16, %r9;\n"
    "xor.b32 %r17, %r17, %r10; or.b32 %r14, %r14, %r15; or.b32 %r16, %r16, %r17;\n"
    "or.b32 %r14, %r14, %r16; setp.eq.u32 %q, %r14, 0;\n"
    "@%q bra STORE;\n"
    "ld.param.u64 %d4, [wrong]; cvta.to.global.u64 %d5, %d4; red.global.add.u32 [%d5], 1;\n"
    "STORE: ld.param.u32 %r19, [more]; add.s32 %r7, %r7, %r19; add.s32 %r8, %r8, %r19;\n"
    "add.s32 %r9, %r9, %r19; add.s32 %r10, %r10, %r19;\n"
    "st.global.v4.u32 [%d3], {%r7, %r8, %r9, %r10};\n"
    "DONE: ret;\n}\n"
    ".visible .entry nothing() { ret; }\n";

static struct {
    uint32_t seed, mask, factor;
} content = {.mask = ~0u, .factor = FACTOR};
static void *stream, *fill_kernel, *compare_kernel, *rewrite_kernel, *empty_kernel;
static device_address wrong;
static uint64_t turns[TURNS_MAX][2];
static size_t turn;

static uint64_t gap, last; /* when the last work that we waited for had ended */
static int came_back;

static void begin_turn(uint64_t start)
{
    if (turn + 1 < TURNS_MAX) {
        turns[turn][1] = last;
        turns[++turn][0] = start;
    }
    came_back = 1;
}

/* Launches and waits. A call that took long has waited for the GPU. */
static void run(void *kernel, unsigned blocks, unsigned threads, void **parameters)
{
    const uint64_t before = now_ns();
    check(launch(kernel, blocks, 1, 1, threads, 1, 1, 0, stream, parameters, NULL), "cuLaunchKernel");
    const uint64_t after = now_ns();
    if (gap != 0 && after - before > gap)
        begin_turn(after);
    check(stream_wait(stream), "cuStreamSynchronize");
    last = now_ns();
}

static void go(void *kernel, device_address address, uint64_t bytes, uint32_t more)
{
    uint32_t quads = (uint32_t)(bytes / 16);
    void *parameters[] = {&address, &content.seed, &quads, &content.mask, &content.factor, &wrong, &more};
    run(kernel, (quads + THREADS - 1) / THREADS, THREADS, parameters);
}

/* Asked each millisecond at most. */
static int stopped(void)
{
    static uint64_t asked;
    const char *const file = getenv("PAGES_STOP");
    if (file == NULL || now_ns() - asked < 1000000)
        return 0;
    asked = now_ns();
    return access(file, F_OK) == 0;
}

/* In one launch, so that no turn ends between looking and writing. */
static void rewrite(const char *kind, device_address address, uint64_t bytes)
{
    const uint32_t more = strcmp(kind, "dirty") == 0 || strcmp(kind, "same") == 0;
    go(strcmp(kind, "clean") == 0 ? compare_kernel : rewrite_kernel, address, bytes, more);
    content.seed += more;
}

static void hold(const char *kind, uint64_t bytes, uint64_t limit, uint64_t off_the_gpu)
{
    device_address address;
    content.seed = strcmp(kind, "zero") == 0 ? 0 : (uint32_t)getpid() & 0xffff;
    check(allocate(&address, bytes), "cuMemAlloc");
    go(fill_kernel, address, bytes, 0);
    const uint64_t began = turns[0][0] = last;
    gap = off_the_gpu; /* from now on */
    printf("ready\n");
    fflush(stdout);
    while (last - began < limit && !stopped()) {
        run(empty_kernel, 1, 32, NULL);
        if (came_back) {
            came_back = 0;
            rewrite(kind, address, bytes);
        }
    }
    turns[turn][1] = last;
    gap = 0; /* what is compared for the end is no turn */
    go(compare_kernel, address, bytes, 0);
}

static void come_and_go(uint64_t bytes, uint64_t limit)
{
    const uint64_t began = now_ns();
    turn = (size_t)-1;
    while (now_ns() - began < limit && turn + 1 < TURNS_MAX && !stopped()) {
        device_address address;
        check(allocate(&address, bytes), "cuMemAlloc");
        run(empty_kernel, 1, 32, NULL);
        turns[++turn][0] = last;
        check(release(address), "cuMemFree");
        turns[turn][1] = now_ns();
        usleep(REST_MS * 1000);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: pages MIB SECONDS GAP_US dirty|clean|zero|same|fresh\n");
        return 2;
    }
    const uint64_t bytes = strtoull(argv[1], NULL, 10) << 20, away = strtoull(argv[3], NULL, 10) * 1000;
    const uint64_t limit = (uint64_t)(strtod(argv[2], NULL) * 1e9);
    const char *const kind = argv[4];
    void *const module = open_driver(ptx);
    uint32_t count = 0;
    check(function_get(&fill_kernel, module, "fill"), "cuModuleGetFunction");
    check(function_get(&compare_kernel, module, "compare"), "cuModuleGetFunction");
    check(function_get(&rewrite_kernel, module, "rewrite"), "cuModuleGetFunction");
    check(function_get(&empty_kernel, module, "nothing"), "cuModuleGetFunction");
    check(stream_create(&stream, 1), "cuStreamCreate");
    check(allocate(&wrong, sizeof count), "cuMemAlloc");
    check(fill_later(wrong, 0, sizeof count, stream), "cuMemsetD8Async");
    check(stream_wait(stream), "cuStreamSynchronize");
    if (strcmp(kind, "zero") == 0)
        content.factor = content.mask = 0;
    if (strcmp(kind, "same") == 0)
        content.mask = PAGE_WORDS - 1;
    if (strcmp(kind, "fresh") == 0)
        come_and_go(bytes, limit);
    else
        hold(kind, bytes, limit, away);
    check(copy_out(&count, wrong, sizeof count), "cuMemcpyDtoH");
    printf("{\"turns\": [");
    for (size_t i = 0; i <= turn; i++)
        printf("%s[%llu, %llu]", i ? ", " : "", (unsigned long long)turns[i][0], (unsigned long long)turns[i][1]);
    printf("], \"checked\": %s}\n", count == 0 ? "true" : "false");
    return count == 0 ? 0 : 4;
}
