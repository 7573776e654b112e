// SPDX-License-Identifier: Apache-2.0
// Atomics, functions, printf, clocks, warps.

#include <cuda_fp16.h>
#include <cuda_bf16.h>

extern "C" __global__ void atomics(int n, const int *x, int *ints, unsigned *wrap, float *f, double *d,
                                   unsigned long long *u, int *counts)
{
    __shared__ int local[8];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (threadIdx.x < 8)
        local[threadIdx.x] = 0;
    __syncthreads();
    if (i < n) {
        int v = x[i];
        atomicAdd(&ints[0], v);
        atomicMin(&ints[1], v);
        atomicMax(&ints[2], v);
        atomicAnd(&ints[3], v | 0xf0);
        atomicOr(&ints[4], v & 0xff);
        atomicXor(&ints[5], v);
        atomicSub(&ints[6], v);
        atomicInc(&wrap[0], 6);
        atomicDec(&wrap[1], 6);
        atomicAdd(f, 0.5f);
        atomicAdd(d, 0.25);
        atomicAdd(u, (unsigned long long)i);
        atomicMax(u + 1, (unsigned long long)i);
        atomicAdd(&local[v & 7], 1);
        int old, seen = ints[7];
        do {
            old = seen;
            seen = atomicCAS(&ints[7], old, old + 2);
        } while (seen != old);
        if (i == n - 1)
            atomicExch(&ints[8], 77);
    }
    __syncthreads();
    if (threadIdx.x < 8)
        atomicAdd(&counts[threadIdx.x], local[threadIdx.x]);
}

extern "C" __global__ void half_atomics(__half2 *h, __nv_bfloat162 *b, unsigned short *s)
{
    atomicAdd(h, __floats2half2_rn(1.0f, 0.5f));
#if __CUDA_ARCH__ >= 800
    atomicAdd(b, __floats2bfloat162_rn(1.0f, 2.0f));
#endif
    unsigned short old, seen = *s;
    do {
        old = seen;
        seen = atomicCAS(s, old, (unsigned short)(old + 1));
    } while (seen != old);
}

extern "C" __global__ void halves(int n, const __half *a, const __half *b, __half *sum, __half *fused, __half2 *pair,
                                  __half *small, const __nv_bfloat16 *p, const __nv_bfloat16 *q, __nv_bfloat16 *r,
                                  __nv_bfloat16 *least)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    sum[i] = a[i] + b[i];
    fused[i] = __hfma(a[i], b[i], a[i]);
    pair[i] = __hmul2(__halves2half2(a[i], b[i]), __halves2half2(b[i], b[i]));
    small[i] = __hmin(a[i], b[i]);
#if __CUDA_ARCH__ >= 800
    r[i] = __hfma(p[i], q[i], p[i]);
    least[i] = __hmax(p[i], q[i]);
#endif
}

extern "C" __global__ void clocks(long long *out)
{
    long long start = clock64();
    __nanosleep(100);
    unsigned long long timer;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(timer));
    unsigned sm, lane;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
    asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
    out[threadIdx.x * 4] = clock64() - start;
    out[threadIdx.x * 4 + 1] = (long long)timer;
    out[threadIdx.x * 4 + 2] = sm;
    out[threadIdx.x * 4 + 3] = lane;
}

extern "C" __global__ void say(int x, double d)
{
    if (threadIdx.x < 2)
        printf("thread %d of %s: %d %.3f %c\n", threadIdx.x, "block", x, d, 'z');
}

__device__ __noinline__ int gcd(int a, int b) { return b == 0 ? a : gcd(b, a % b); }
__device__ __noinline__ float poly(float x, const float *c) { return c[0] + x * (c[1] + x * c[2]); }
extern "C" __global__ void functions(const int *a, const int *b, int *g, float *p)
{
    int i = threadIdx.x;
    float c[3] = {1.0f, (float)a[i], 0.5f};
    g[i] = gcd(a[i], b[i]);
    p[i] = poly(b[i], c);
}

typedef int (*operation)(int, int);
__device__ __noinline__ int plus(int a, int b) { return a + b; }
__device__ __noinline__ int minus(int a, int b) { return a - b; }
__device__ __noinline__ int times(int a, int b) { return a * b; }
__device__ operation table[3] = {plus, minus, times};
extern "C" __global__ void pointers(const int *a, const int *b, int *out)
{
    int i = threadIdx.x;
    out[i] = table[i % 3](a[i], b[i]);
}
extern "C" __global__ void bad_pointer(unsigned long long where, int *out) { out[0] = ((operation)where)(1, 2); }

__device__ __noinline__ float block_sum(float v, float *shared)
{
    shared[threadIdx.x] = v;
    __syncthreads();
    for (int s = blockDim.x / 2; s; s >>= 1) {
        if (threadIdx.x < s)
            shared[threadIdx.x] += shared[threadIdx.x + s];
        __syncthreads();
    }
    float r = shared[0];
    __syncthreads();
    return r;
}
extern "C" __global__ void barrier_in_function(const float *x, float *out)
{
    __shared__ float a[64];
    float first = block_sum(x[threadIdx.x], a), second = block_sum(x[threadIdx.x] * 2, a);
    out[threadIdx.x] = first + second;
}

extern "C" __global__ void warps(const int *x, int *up, int *xor_, int *from, unsigned *same, int *pred, unsigned *mask)
{
    int i = threadIdx.x;
    up[i] = __shfl_up_sync(0xffffffff, x[i], 3);
    xor_[i] = __shfl_xor_sync(0xffffffff, x[i], 5, 16);
    from[i] = __shfl_sync(0xffffffff, x[i], 2, 8);
    same[i] = __match_any_sync(0xffffffff, x[i] & 3);
    int p;
    __match_all_sync(0xffffffff, x[i], &p);
    pred[i] = p;
    mask[i] = i % 2 ? __activemask() : 0;
}

extern "C" __global__ void votes_after_exit(unsigned *out, int *counts)
{
    if (threadIdx.x >= 20)
        return;
    out[threadIdx.x] = __ballot_sync(0xffffffff, threadIdx.x % 3 == 0);
    int c = __syncthreads_count(threadIdx.x < 7);
    int o = __syncthreads_or(threadIdx.x == 19);
    int a = __syncthreads_and(threadIdx.x < 19);
    counts[threadIdx.x] = c * 4 + o * 2 + a;
}

extern "C" __device__ void __assertfail(const char *, const char *, unsigned, const char *, unsigned long);
extern "C" __global__ void fails(int *x)
{
    if (*x == 1)
        __trap();
    if (*x == 2)
        __assertfail("x is not 2", "device.cu", 42, "fails", 1);
    if (*x == 3 && threadIdx.x == 0)
        asm volatile("bar.sync 1, 64;");
    if (*x == 4)
        asm volatile("exit;");
    __syncthreads();
    *x = 100;
}
