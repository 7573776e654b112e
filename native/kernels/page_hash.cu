/* SPDX-License-Identifier: Apache-2.0
 *
 * Hashes pages of device memory: 128 keyed bits, and whether any bit is set, in one pass. page_hash.ptx is what `make generate`
 * writes of this file; gv_page_hash_host (native/shim/page_hash_host.c) gives the same result on the host.
 *
 * One block hashes one page, one warp a slice of it; lane l takes the words l, l + 32, ... of the slice. So a warp reads whole
 * lines, and 32 lanes side by side are whole vectors on the soft GPU. A lane has two chains. Each step is one to one in the
 * chain and in the word, so that a single word that differs always shows. Multiplication carries differences upwards only, the
 * shift brings them down again: by another distance in each chain, so that no two words that make one chain forget a
 * difference do so in the other. The mixed ends of all chains are added up.
 */
typedef unsigned int u32;
typedef unsigned long long u64;

enum { PAGE = 2 << 20, LANES = 32, WARPS = 8, ROWS = PAGE / 8 / LANES / WARPS, AT_ONCE = 8, RUNS = 16 };

/* As struct gv_hash_runs (native/shim/page_hash.h). */
struct runs {
    u64 address[RUNS];
    u32 first[RUNS];
};

/* As struct gv_hash_key. */
struct key {
    u64 word, chain[2]; /* multipliers, odd */
    u64 seed[2], lane;
};

/* The page of this block. Found by parameters alone, so that the soft GPU sees that it is the same for all lanes. */
__device__ __forceinline__ const u64 *page_of(const struct runs &runs)
{
    u64 page = 0;
#pragma unroll
    for (int i = 0; i < RUNS; i++)
        if (blockIdx.x >= runs.first[i])
            page = runs.address[i] + (u64)(blockIdx.x - runs.first[i]) * PAGE;
    return (const u64 *)page;
}

__device__ __forceinline__ u64 added_up(u64 value)
{
    for (int distance = LANES / 2; distance != 0; distance /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

/* Blocks of LANES x WARPS threads, one for each page. Of a result the first two words are the hash, the third is 0 for a page
 * without a set bit. */
extern "C" __global__ void __launch_bounds__(LANES *WARPS) gv_page_hash(struct runs runs, struct key key, u64 *results)
{
    const u64 *words = page_of(runs) + (u64)threadIdx.y * ROWS * LANES + threadIdx.x;
    u64 a = key.seed[0] + key.lane * (threadIdx.y * LANES + threadIdx.x), b = key.seed[1] ^ a, any = 0;

    for (int row = 0; row < ROWS; row += AT_ONCE) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            const u64 word = words[(row + i) * LANES], spread = word * key.word;
            any |= word;
            a ^= spread;
            a = (a ^ a >> 32) * key.chain[0];
            b += spread;
            b = (b ^ b >> 29) * key.chain[1];
        }
        __syncwarp(); /* nothing on a GPU; the soft GPU runs the lanes side by side from one to the next */
    }

    __shared__ u64 ends[3][WARPS];
    a = added_up((a ^ a >> 31) * key.chain[1]);
    b = added_up((b ^ b >> 33) * key.chain[0]);
    any = __any_sync(0xffffffffu, any != 0);
    if (threadIdx.x == 0) {
        ends[0][threadIdx.y] = a;
        ends[1][threadIdx.y] = b;
        ends[2][threadIdx.y] = any;
    }
    __syncthreads();
    if (threadIdx.y == 0 && threadIdx.x < 3) {
        u64 sum = 0;
        for (int i = 0; i < WARPS; i++)
            sum += ends[threadIdx.x][i];
        results[blockIdx.x * 3ull + threadIdx.x] = sum;
    }
}
