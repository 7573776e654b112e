/* SPDX-License-Identifier: Apache-2.0
 *
 * The hash of pages: the kernel on the soft GPU against its twin on the host, and what a hash must notice.
 */
#include "page_hash.h"

#include <stdarg.h>
#include <string.h>

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "real_driver.h"

#define OK(call) CHECK_EQUAL(call, CUDA_SUCCESS)

void *gv_real[GV_SYMBOL_COUNT]; /* only what page_hash.c calls */
static int logged;

void gv_log(const char *format, ...)
{
    (void)format;
    logged++;
}

enum { PAGES = 40, WORDS = GV_HASH_PAGE_BYTES / 8, FLIPS = 400 };

static uint64_t state = 1;
static uint64_t number(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    return state ^= state << 17;
}

static struct gv_hash_key key;
static uint64_t *page; /* a page of random words */

static struct gv_page_hash hash_of(const void *content)
{
    struct gv_page_hash hash;
    gv_page_hash_host(content, &key, &hash);
    return hash;
}

static int same(const struct gv_page_hash *a, const struct gv_page_hash *b)
{
    return a->hash[0] == b->hash[0] && a->hash[1] == b->hash[1];
}

/* --- what it notices -------------------------------------------------------------------------------------------------------- */

static void single_bits(void)
{
    const struct gv_page_hash whole = hash_of(page);
    int changed[128] = {0};
    for (int i = 0; i < FLIPS; i++) {
        const uint64_t at = number() % WORDS, bit = 1ull << number() % 64;
        page[at] ^= bit;
        const struct gv_page_hash other = hash_of(page);
        page[at] ^= bit;
        CHECK(whole.hash[0] != other.hash[0] && whole.hash[1] != other.hash[1]); /* certain, in each half */
        for (int b = 0; b < 128; b++)
            changed[b] += (int)((whole.hash[b / 64] ^ other.hash[b / 64]) >> b % 64 & 1);
    }
    for (int b = 0; b < 128; b++) /* a fair coin leaves this range once in 10^9 */
        CHECK(changed[b] > FLIPS / 2 - 65 && changed[b] < FLIPS / 2 + 65);
}

/* Words of one lane lie GV_HASH_LANES apart: changes there meet in one chain. */
static void pairs(void)
{
    static const uint64_t patterns[] = {
        1ull << 63, 1ull << 31, 0x8000000080000000ull, 1ull << 34, 1ull << 26, 1ull << 63 | 1 << 5, ~0ull, 1};
    const struct gv_page_hash whole = hash_of(page);
    for (int first = 0; first < 8; first++) {
        for (int second = 0; second < 8; second++) {
            const uint64_t at = number() % (WORDS - GV_HASH_LANES);
            page[at] ^= patterns[first];
            page[at + GV_HASH_LANES] ^= patterns[second];
            const struct gv_page_hash other = hash_of(page);
            page[at] ^= patterns[first];
            page[at + GV_HASH_LANES] ^= patterns[second];
            CHECK(whole.hash[0] != other.hash[0] && whole.hash[1] != other.hash[1]);
        }
    }
}

static void exchanges(void)
{
    const uint64_t distances[] = {1, GV_HASH_LANES, 7 * GV_HASH_LANES, WORDS / GV_HASH_WARPS};
    const struct gv_page_hash whole = hash_of(page);
    for (int i = 0; i < 4; i++) {
        const uint64_t a = number() % (WORDS - distances[i]), b = a + distances[i], kept = page[a];
        page[a] = page[b];
        page[b] = kept;
        const struct gv_page_hash other = hash_of(page);
        page[b] = page[a];
        page[a] = kept;
        CHECK(!same(&whole, &other));
    }
}

static void the_key_counts(void)
{
    const struct gv_page_hash one = hash_of(page);
    uint8_t secret[GV_HASH_KEY_BYTES] = {0};
    CHECK(key.word % 2 == 1 && key.chain[0] % 2 == 1 && key.chain[1] % 2 == 1);
    for (int bit = 0; bit < 8 * GV_HASH_KEY_BYTES; bit += 17) {
        const struct gv_hash_key before = key;
        secret[bit / 8] ^= (uint8_t)(1 << bit % 8);
        gv_hash_key_make(secret, &key);
        const struct gv_page_hash other = hash_of(page);
        CHECK(one.hash[0] != other.hash[0] && one.hash[1] != other.hash[1]);
        key = before;
    }
}

static void zeros(uint64_t *content)
{
    memset(content, 0, GV_HASH_PAGE_BYTES);
    CHECK(hash_of(content).any == 0);
    for (int i = 0; i < 64; i++) {
        const uint64_t at = number() % WORDS;
        content[at] = 1ull << i;
        CHECK(hash_of(content).any != 0);
        content[at] = 0;
    }
}

/* --- the kernel ------------------------------------------------------------------------------------------------------------- */

static void fill_real(void)
{
#define USE(symbol) gv_real[GV_INDEX_##symbol] = (void *)symbol
    USE(cuCtxGetCurrent);
    USE(cuModuleLoadData);
    USE(cuModuleGetFunction);
    USE(cuModuleUnload);
    USE(cuStreamCreate);
    USE(cuStreamDestroy_v2);
    USE(cuEventCreate);
    USE(cuEventDestroy_v2);
    USE(cuEventRecord);
    USE(cuEventSynchronize);
    USE(cuMemHostAlloc);
    USE(cuMemHostGetDevicePointer_v2);
    USE(cuMemFreeHost);
    USE(cuLaunchKernel);
#undef USE
}

/* Pages of all kinds, hashed in an order that makes runs of all lengths, more of them than one launch takes. */
static void same_as_the_twin(void)
{
    CUdeviceptr memory, pages[PAGES];
    const struct gv_page_hash *hashes;
    OK(cuMemAlloc_v2(&memory, (size_t)PAGES * GV_HASH_PAGE_BYTES));
    for (int i = 0; i < PAGES; i++) {
        const uint64_t kept = page[5];
        if (i % 5 == 0)
            page[5] = number();
        pages[i] = memory + (CUdeviceptr)((i < 20 ? i : (i * 7 + 3) % 20 + 20)) * GV_HASH_PAGE_BYTES;
        if (i % 8 == 3)
            OK(cuMemsetD8_v2(pages[i], 0, GV_HASH_PAGE_BYTES));
        else
            OK(cuMemcpyHtoD_v2(pages[i], page, GV_HASH_PAGE_BYTES));
        page[5] = kept;
    }
    for (uint32_t count = PAGES; count != 0; count /= 3) {
        OK(gv_page_hash_submit(count % GV_HASH_BATCHES, pages, count, &key));
        OK(gv_page_hash_wait(count % GV_HASH_BATCHES, &hashes));
        for (uint32_t i = 0; i < count; i++) {
            struct gv_page_hash expected;
            gv_page_hash_host((const void *)pages[i], &key, &expected); /* of a soft GPU the host may read it */
            CHECK(same(&hashes[i], &expected));
            CHECK_EQUAL(hashes[i].any, expected.any);
        }
    }
    OK(cuMemFree_v2(memory));
}

static void another_context(CUcontext first)
{
    CUcontext second;
    OK(cuCtxCreate_v2(&second, 0, 0));
    CHECK_EQUAL(gv_page_hash_load(), 1);
    same_as_the_twin();
    OK(cuCtxDestroy_v2(second));
    gv_page_hash_context_ended(second);
    OK(cuCtxSetCurrent(first));
    CHECK_EQUAL(gv_page_hash_load(), 1);
    same_as_the_twin();
    CHECK_EQUAL(logged, 0);
}

static CUresult refuse_module(CUmodule *module, const void *image)
{
    (void)module;
    (void)image;
    return CUDA_ERROR_UNSUPPORTED_PTX_VERSION;
}

static void without_the_kernel(CUcontext context)
{
    gv_page_hash_context_ended(context);
    gv_real[GV_INDEX_cuModuleLoadData] = (void *)refuse_module;
    CHECK_EQUAL(gv_page_hash_load(), 0);
    CHECK_EQUAL(gv_page_hash_load(), 0);
    CHECK_EQUAL(logged, 1);
    CHECK_EQUAL(gv_page_hash_submit(0, NULL, 0, &key), CUDA_ERROR_INVALID_CONTEXT);
    fill_real();
    CHECK_EQUAL(gv_page_hash_load(), 0); /* not tried again */
    gv_page_hash_forget();
    CHECK_EQUAL(gv_page_hash_load(), 1);
}

/* The soft GPU keeps the events of a context that was destroyed until they are destroyed, which nobody may do any more. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) { return "leak:cuEvent\n"; }

static char board[64];
static void remove_board(void) { unlink(board); }

int main(void)
{
    const uint8_t secret[GV_HASH_KEY_BYTES] = "sixteen secrets";
    snprintf(board, sizeof board, "/dev/shm/gpuvirt-test-%d", (int)getpid());
    setenv("GPUVIRT_SOFTGPU_BOARD", board, 1);
    setenv("GPUVIRT_SOFTGPU_MEMORY", "256M", 1);
    atexit(remove_board);
    gv_hash_key_make(secret, &key);
    page = malloc(2 * GV_HASH_PAGE_BYTES);
    CHECK(page != NULL);
    for (int i = 0; i < WORDS; i++)
        page[i] = number();

    single_bits();
    pairs();
    exchanges();
    the_key_counts();
    zeros(page + WORDS);

    fill_real();
    CUcontext context;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxSetCurrent(context));
    CHECK_EQUAL(gv_page_hash_load(), 1);
    same_as_the_twin();
    another_context(context);
    without_the_kernel(context);
    return 0;
}
