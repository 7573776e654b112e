// SPDX-License-Identifier: Apache-2.0
// Operations of a warp. Launched with 32 threads; row k of `out` is the result k of each lane.
#define ROW(k) out[(k) * 32 + threadIdx.x]

KERNEL void shuffles(const int *in, int *out)
{
    const int v = in[threadIdx.x];
    ROW(0) = __shfl_xor_sync(~0u, v, 5);
    ROW(1) = __shfl_up_sync(~0u, v, 2, 16);
    ROW(2) = __shfl_down_sync(~0u, v, 3, 8);
    ROW(3) = __shfl_sync(~0u, v, threadIdx.x * 7, 32);
    const double d = __shfl_xor_sync(~0u, v * 0.5, 1);
    ROW(4) = (int)(2 * d);
    const long long wide = __shfl_down_sync(~0u, (long long)v << 33, 1);
    ROW(5) = (int)(wide >> 33);
    if (threadIdx.x & 1) // half of the warp
        ROW(6) = __shfl_xor_sync(0xaaaaaaaau, v, 2);
    else
        ROW(6) = __shfl_sync(0x55555555u, v, 4);
}

KERNEL void votes(const int *in, unsigned *out)
{
    const int v = in[threadIdx.x];
    ROW(0) = __ballot_sync(~0u, v & 1);
    ROW(1) = __any_sync(~0u, v == in[3]) + 2 * __all_sync(~0u, v == in[3]) + 4 * __all_sync(~0u, v > -1000);
    ROW(2) = v & 2 ? __ballot_sync(__activemask(), v & 4) : __activemask();
    ROW(3) = __match_any_sync(~0u, v & 3);
    ROW(4) = __match_any_sync(~0u, (unsigned long long)(v & 1) << 40);
    int same;
    ROW(5) = __match_all_sync(~0u, v >> 31 & 0, &same) + same;
    ROW(6) = __match_all_sync(~0u, v, &same) + same;
    if (threadIdx.x < 20) {
        if (threadIdx.x & 4)
            return; // who has ended holds nobody up
        ROW(7) = __ballot_sync(__activemask(), 1);
    }
    unsigned lanes[5];
    asm("mov.u32 %0, %%lanemask_lt;" : "=r"(lanes[0]));
    asm("mov.u32 %0, %%lanemask_ge;" : "=r"(lanes[1]));
    asm("mov.u32 %0, %%laneid;" : "=r"(lanes[2]));
    ROW(8) = lanes[0] ^ lanes[1];
    ROW(9) = lanes[2];
}

KERNEL void reductions(const int *in, int *out)
{
    const int v = in[threadIdx.x];
#if __CUDA_ARCH__ >= 800
    ROW(0) = __reduce_add_sync(~0u, v);
    ROW(1) = __reduce_min_sync(~0u, v);
    ROW(2) = __reduce_max_sync(~0u, v);
    ROW(3) = __reduce_max_sync(~0u, (unsigned)v);
    ROW(4) = __reduce_and_sync(~0u, (unsigned)v);
    ROW(5) = __reduce_or_sync(~0u, (unsigned)v);
    ROW(6) = __reduce_xor_sync(~0u, (unsigned)v);
    ROW(7) = threadIdx.x < 8 ? __reduce_add_sync(0xffu, v) : 0;
#endif
    auto tile = cg::tiled_partition<8>(cg::this_thread_block());
    ROW(8) = cg::reduce(tile, v, cg::plus<int>());
    ROW(9) = cg::inclusive_scan(tile, v);
    ROW(10) = cg::labeled_partition(tile, v & 1).size();
    ROW(11) = cg::binary_partition(tile, v & 2).thread_rank();
    if (v & 4)
        ROW(12) = cg::coalesced_threads().thread_rank();
}
