/* SPDX-License-Identifier: Apache-2.0
 *
 * The twin of native/kernels/page_hash.cu, step by step the same. Lanes side by side, for the compiler's vectors.
 */
#include "page_hash.h"

#include <string.h>

enum { ROWS = GV_HASH_PAGE_BYTES / 8 / GV_HASH_LANES / GV_HASH_WARPS };

/* splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014), each number mixed with the other half
 * of the secret. */
static uint64_t next_number(uint64_t *state, uint64_t other)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    x ^= (x >> 31) ^ other;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return x ^ x >> 31;
}

void gv_hash_key_make(const uint8_t secret[GV_HASH_KEY_BYTES], struct gv_hash_key *key)
{
    uint64_t halves[2];
    memcpy(halves, secret, sizeof halves);
    key->word = next_number(&halves[0], halves[1]) | 1;
    key->chain[0] = next_number(&halves[0], halves[1]) | 1;
    key->chain[1] = next_number(&halves[0], halves[1]) | 1;
    key->seed[0] = next_number(&halves[0], halves[1]);
    key->seed[1] = next_number(&halves[0], halves[1]);
    key->lane = next_number(&halves[0], halves[1]) | 1;
}

struct lanes {
    uint64_t a[GV_HASH_LANES], b[GV_HASH_LANES], any[GV_HASH_LANES];
};

static void take_slice(const uint64_t *words, const struct gv_hash_key *key, struct lanes *lanes)
{
    for (int row = 0; row < ROWS; row++, words += GV_HASH_LANES) {
        for (int lane = 0; lane < GV_HASH_LANES; lane++) {
            const uint64_t word = words[lane], spread = word * key->word;
            const uint64_t a = lanes->a[lane] ^ spread, b = lanes->b[lane] + spread;
            lanes->any[lane] |= word;
            lanes->a[lane] = (a ^ a >> 32) * key->chain[0];
            lanes->b[lane] = (b ^ b >> 29) * key->chain[1];
        }
    }
}

void gv_page_hash_host(const void *page, const struct gv_hash_key *key, struct gv_page_hash *hash)
{
    *hash = (struct gv_page_hash){.any = 0};
    for (int warp = 0; warp < GV_HASH_WARPS; warp++) {
        struct lanes lanes = {.any = {0}};
        for (int lane = 0; lane < GV_HASH_LANES; lane++) {
            lanes.a[lane] = key->seed[0] + key->lane * (uint64_t)(warp * GV_HASH_LANES + lane);
            lanes.b[lane] = key->seed[1] ^ lanes.a[lane];
        }
        take_slice((const uint64_t *)page + (uint64_t)warp * ROWS * GV_HASH_LANES, key, &lanes);
        uint64_t any = 0;
        for (int lane = 0; lane < GV_HASH_LANES; lane++) {
            hash->hash[0] += (lanes.a[lane] ^ lanes.a[lane] >> 31) * key->chain[1];
            hash->hash[1] += (lanes.b[lane] ^ lanes.b[lane] >> 33) * key->chain[0];
            any |= lanes.any[lane];
        }
        hash->any += any != 0;
    }
}
