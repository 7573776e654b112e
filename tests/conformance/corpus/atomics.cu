// SPDX-License-Identifier: Apache-2.0
// Atomics of all widths and types. What many threads do at once is checked by its sum; values that come back, by one thread.
KERNEL void integers(const unsigned *in, unsigned *out)
{
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, v = in[i];
    __shared__ unsigned own[4];
    if (threadIdx.x < 4)
        own[threadIdx.x] = threadIdx.x == 3 ? ~0u : 0;
    __syncthreads();
    atomicAdd(&out[0], v);
    atomicSub(&out[1], v);
    atomicMin(&out[2], v);
    atomicMax(&out[3], v);
    atomicMin((int *)&out[4], (int)v);
    atomicMax((int *)&out[5], (int)v);
    atomicAnd(&out[6], v | 0x0f);
    atomicOr(&out[7], v & 0xf0f0);
    atomicXor(&out[8], v);
    atomicInc(&out[9], 99);
    atomicDec(&out[10], 99);
    unsigned old = out[11], seen; // a loop of compare and swap
    do {
        seen = old;
        old = atomicCAS(&out[11], seen, seen + 2);
    } while (old != seen);
    atomicAdd_block(&own[0], 1);
    atomicInc(&own[1], 5);
    atomicMax(&own[2], v);
    atomicAnd(&own[3], v);
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd_system(&out[12], own[0]);
        atomicAdd(&out[13], own[1]);
        atomicMax(&out[14], own[2]);
        atomicAnd(&out[15], own[3]);
    }
}

KERNEL void wide(const unsigned long long *in, unsigned long long *out)
{
    const unsigned long long v = in[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(&out[0], v);
    atomicMin(&out[1], v);
    atomicMax(&out[2], v);
    atomicMin((long long *)&out[3], (long long)v);
    atomicMax((long long *)&out[4], (long long)v);
    atomicAnd(&out[5], v | 0xff);
    atomicOr(&out[6], v);
    atomicXor(&out[7], v);
    unsigned long long old = out[8], seen;
    do {
        seen = old;
        old = atomicCAS(&out[8], seen, seen + 3);
    } while (old != seen);
}

KERNEL void returned(const int *in, int *out)
{
    out[1] = atomicAdd(&out[0], 5); // 7 -> 12
    out[2] = atomicExch(&out[0], 40);
    out[3] = atomicCAS(&out[0], 1, 2); // no
    out[4] = atomicCAS(&out[0], 40, 3);
    out[5] = atomicMin(&out[0], -1);
    out[6] = (int)atomicInc((unsigned *)&out[0], 9); // -1 is above 9: 0
    out[7] = (int)atomicDec((unsigned *)&out[0], 9); // 0: 9
    out[8] = atomicXor(&out[0], in[0]);
    unsigned short *s = (unsigned short *)&out[9];
    out[10] = atomicCAS(&s[1], (unsigned short)0, (unsigned short)77);
    out[11] = s[0] + 1000 * s[1];
    cuda::atomic_ref<int, cuda::thread_scope_device> ref(out[12]);
    out[13] = ref.fetch_add(3, cuda::std::memory_order_acq_rel);
    out[14] = ref.fetch_min(-7);
    out[15] = ref.exchange(11, cuda::std::memory_order_release);
    int expected = 11;
    out[16] = ref.compare_exchange_strong(expected, 12) + 2 * ref.compare_exchange_strong(expected, 13) + 10 * expected;
    ref.store(ref.load(cuda::std::memory_order_acquire) + 1);
    cuda::atomic_thread_fence(cuda::std::memory_order_seq_cst, cuda::thread_scope_system);
    cuda::atomic_ref<unsigned char> byte(((unsigned char *)out)[71]);
    out[18] = byte.fetch_add(250) + 1000 * byte.fetch_or(1);
}

KERNEL void floats(const float *in, float *out, double *wide, __half2 *pairs, __half *half)
{
    const float v = in[blockIdx.x * blockDim.x + threadIdx.x];
    atomicAdd(&out[0], v);
    atomicAdd(wide, (double)v / 2);
    atomicAdd(pairs, __floats2half2_rn(v, -v));
    atomicAdd(half, __float2half(1));
    __shared__ float own;
    __shared__ __half2 own_pair;
    if (threadIdx.x == 0)
        own = 0, own_pair = __floats2half2_rn(0, 0);
    __syncthreads();
    atomicAdd(&own, v);
    atomicAdd(&own_pair, __floats2half2_rn(1, v));
    __syncthreads();
    if (threadIdx.x == 0) {
        atomicAdd(&out[1], own);
        atomicAdd(&out[2], __low2float(own_pair));
        atomicAdd(&out[3], __high2float(own_pair));
        out[5] = atomicExch(&out[4], 2.5f);
    }
#if __CUDA_ARCH__ >= 900
    atomicAdd((float4 *)&out[8], make_float4(v, 2 * v, 3 * v, 1));
    atomicAdd((float2 *)&out[12], make_float2(v, -v));
#endif
}

struct alignas(16) quad {
    unsigned long long a, b;
};
KERNEL void halves_of_128(const quad *in, quad *out)
{
#if __CUDA_ARCH__ >= 900
    out[1] = atomicExch(&out[0], in[0]);
    out[2] = atomicCAS(&out[0], in[1], in[2]); // no
    out[3] = atomicCAS(&out[0], in[0], in[2]);
#endif
}

KERNEL void bfloats(const float *in, __nv_bfloat162 *pairs, __nv_bfloat16 *one)
{
#if __CUDA_ARCH__ >= 800
    const float v = in[threadIdx.x];
    atomicAdd(pairs, __floats2bfloat162_rn(v, 1));
    atomicAdd(one, __float2bfloat16(1));
#endif
}
