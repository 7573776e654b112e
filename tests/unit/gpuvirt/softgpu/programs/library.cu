// SPDX-License-Identifier: Apache-2.0
// What real programs pull in: cooperative groups, device heap, virtual functions, jump tables.

#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;

extern "C" __global__ void groups(const int *x, int *sums, int *odd, int *counter)
{
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<8>(block);
    sums[threadIdx.x] = cg::reduce(tile, x[block.thread_rank()], cg::plus<int>());
    block.sync();
    if (x[threadIdx.x] & 1) {
        cg::coalesced_group group = cg::coalesced_threads();
        int base = 0;
        if (group.thread_rank() == 0)
            base = atomicAdd(counter, (int)group.size());
        odd[group.shfl(base, 0) + group.thread_rank()] = threadIdx.x;
    }
}

extern "C" __global__ void heap(int n, int *out)
{
    int *p = (int *)malloc(n * sizeof *p), sum = 0;
    for (int i = 0; i < n; i++)
        p[i] = i * i;
    for (int i = 0; i < n; i++)
        sum += p[i];
    free(p);
    out[threadIdx.x] = sum;
}

struct base {
    virtual __device__ int f(int x) { return x; }
};
struct derived : base {
    __device__ int f(int x) override { return x * 3; }
};
extern "C" __global__ void virtual_call(int k, int *out)
{
    derived c;
    base a, *p = k ? &c : &a;
    out[threadIdx.x] = p->f(threadIdx.x);
}

__device__ __noinline__ int choose(int x)
{
    switch (x) {
    case 0:
        return 5;
    case 1:
        return 9;
    case 2:
        return 11;
    case 3:
        return 77;
    case 4:
        return 3;
    case 5:
        return 1;
    case 6:
        return 1000;
    default:
        return -1;
    }
}
extern "C" __global__ void jump_table(int *out) { out[threadIdx.x] = choose(threadIdx.x); }

extern "C" __global__ void local_array(const int *x, int *out)
{
    int a[20];
    for (int i = 0; i < 20; i++)
        a[i] = x[i] * i;
    __syncthreads();
    out[threadIdx.x] = a[x[threadIdx.x] % 20];
}
