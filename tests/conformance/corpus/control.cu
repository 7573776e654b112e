// SPDX-License-Identifier: Apache-2.0
// Calls, branches, barriers, waiting, ends of threads.
__device__ __noinline__ int plus(int x) { return x + 1; }
__device__ __noinline__ int times(int x) { return x * 3; }
typedef int (*function)(int);
__device__ function functions[2] = {plus, times};

__device__ __noinline__ int fibonacci(int n) { return n < 2 ? n : fibonacci(n - 1) + fibonacci(n - 2); }

__device__ __noinline__ int rotate(int *shared, int x)
{
    shared[threadIdx.x] = x;
    __syncthreads();
    const int y = shared[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
    return y;
}

struct base {
    __device__ virtual int value(int x) const { return x; }
};
struct derived : base {
    int k;
    __device__ derived(int k) : k(k) {}
    __device__ int value(int x) const override { return x * k; }
};

KERNEL void calls(const int *in, int *out)
{
    __shared__ int shared[64];
    const int t = threadIdx.x;
    out[t] = functions[t & 1](in[t]);
    out[64 + t] = fibonacci(t % 10);
    out[128 + t] = rotate(shared, rotate(shared, in[t]));
    derived d(t);
    base b;
    const base *chosen = in[t] & 1 ? &d : &b;
    out[192 + t] = chosen->value(7);
    int *heap = (int *)malloc(8 * sizeof(int));
    for (int k = 0; k < 8; k++)
        heap[k] = k + t;
    out[256 + t] = heap[in[t] & 7];
    free(heap);
}

// Functions that wait for other threads, called by pointer and as virtual functions. `k` is the same in all threads.
__device__ __noinline__ int neighbour(int x)
{
    __shared__ int shared[64];
    return rotate(shared, x);
}
__device__ __noinline__ int odd_lanes(int x) { return __popc(__ballot_sync(~0u, x & 1)); }
__device__ function meeting[3] = {plus, neighbour, odd_lanes};
__device__ __noinline__ int through(int k, int x) { return meeting[k](x) * 2; }

struct counting : base {
    __device__ int value(int x) const override { return __syncthreads_count(x & 1); }
};

KERNEL void meetings(const int *in, int *out, int k)
{
    const int t = threadIdx.x;
    out[t] = meeting[k](in[t]);
    out[64 + t] = through(k, in[t]);
    base b;
    counting c;
    derived d(5);
    const base *chosen = k == 0 ? &b : k == 1 ? (const base *)&c : &d;
    out[128 + t] = chosen->value(in[t]);
}

KERNEL void switches(const int *in, int *out)
{
    const int t = threadIdx.x, v = in[t];
    int r;
    switch (v & 7) {
    case 0: r = v * 3; break;
    case 1: r = v ^ 0x55; break;
    case 2: r = out[t] + 1; break;
    case 3: r = plus(v); break;
    case 4: r = v >> 2; break;
    case 5: r = -v; break;
    case 6: r = v % 7; break;
    default: r = 1 << (v & 15); break;
    }
    out[t] = r;
}

KERNEL void barriers(const int *in, int *out)
{
    const int t = threadIdx.x;
    __shared__ int shared[128];
    out[t] = __syncthreads_count(in[t] & 1);
    out[128 + t] = __syncthreads_and(in[t] >= 0) + 2 * __syncthreads_or(in[t] == 5);
    shared[t] = in[t];
    if (t < 64) { // producers and consumers at a named barrier
        asm volatile("bar.sync 1, 64;" ::: "memory");
        shared[t] += shared[63 - t] & 1;
        asm volatile("bar.arrive 2, 128;" ::: "memory");
    } else {
        asm volatile("bar.sync 2, 128;" ::: "memory");
        shared[t] = shared[127 - t];
    }
    __syncthreads();
    out[256 + t] = shared[t];
    if (t % 3 == 0)
        return;
    __syncthreads(); // who has ended does not count
    out[384 + t] = shared[(t * 5) & 127];
    __nanosleep(20);
}

// One thread of the block waits for another, in memory.
KERNEL void handover(const int *in, int *out)
{
    __shared__ int turn;
    if (threadIdx.x == 0)
        atomicExch(&turn, (int)blockDim.x - 1);
    __syncthreads();
    while (atomicAdd(&turn, 0) != threadIdx.x) // backwards, so nobody can go in the order of the numbers
        __nanosleep(10);
    out[0] = out[0] * 2 + in[threadIdx.x];
    __threadfence_block();
    atomicSub(&turn, 1);
}

KERNEL void clocks(const int *in, long long *out)
{
    const long long start = clock64();
    unsigned long long timer;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(timer));
    __nanosleep(1000);
    out[0] = clock64() - start;
    unsigned sm, sms;
    asm("mov.u32 %0, %%smid;" : "=r"(sm));
    asm("mov.u32 %0, %%nsmid;" : "=r"(sms));
    out[1] = sm < sms;
    out[2] = (long long)(timer / 1000000000);
}

// Cooperative: each block writes, all meet, each block reads what its neighbour wrote.
KERNEL void grid(const int *in, int *out)
{
    auto all = cg::this_grid();
    const int n = (int)all.size(), i = (int)all.thread_rank();
    for (int round = 0; round < 5; round++) {
        out[(round & 1) * n + i] = (round ? out[(~round & 1) * n + (i + blockDim.x) % n] : in[i]) + 1;
        all.sync();
    }
    if (i == 0)
        out[2 * n] = all.is_valid() + 10 * (int)all.num_blocks();
}
