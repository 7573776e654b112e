// SPDX-License-Identifier: Apache-2.0
// State spaces, vector and cached accesses, asynchronous copies, barrier objects.
__constant__ int constants[4] = {2, 3, 5, 7};
__device__ int counter = 11;
__device__ int *pointer = &counter;

KERNEL void accesses(const int4 *in, int4 *out, unsigned char *bytes)
{
    const int t = threadIdx.x;
    const int4 v = __ldg(in + t), w = __ldcg(in + t), x = __ldcs(in + t), y = __ldca(in + t);
    int4 sum = make_int4(v.x + w.x, v.y - x.y, w.z + y.z, x.w - y.w);
    __stcs(out + t, sum);
    const int2 pair = ((const volatile int2 *)in)[t].x ? ((const int2 *)in)[t] : make_int2(1, 1);
    __stcg((int2 *)out + 2 * t + 1, make_int2(pair.y, pair.x));
    const uchar4 small = ((const uchar4 *)in)[t];
    ((uchar4 *)bytes)[t] = make_uchar4(small.w, small.z, small.y, small.x);
    asm volatile("prefetch.global.L2 [%0];" ::"l"(in));
    __threadfence();
    __threadfence_block();
    __threadfence_system();
}

KERNEL void spaces(const int *in, int *out, __grid_constant__ const int2 parameter)
{
    extern __shared__ int dynamic[];
    __shared__ int fixed[4];
    int local[8];
    for (int k = 0; k < 8; k++)
        local[k] = in[k] * k;
    dynamic[threadIdx.x] = fixed[threadIdx.x & 3] = in[threadIdx.x];
    __syncthreads();
    out[0] = __isShared(dynamic) + 2 * __isShared(fixed) + 4 * __isGlobal(out) + 8 * __isLocal(local);
    out[1] = __isShared(out) + 2 * __isGlobal(dynamic) + 4 * __isLocal(out) + 8 * __isGlobal(local);
    const int *generic = out[0] & 1 ? dynamic : local; // which space is known at run time only
    out[2] = generic[3];
    out[3] = *(int *)__cvta_shared_to_generic(__cvta_generic_to_shared(&dynamic[5]));
    out[4] = local[in[0] & 7];
    out[5] = constants[in[1] & 3] + *pointer + parameter.x * parameter.y;
    unsigned bytes;
    asm("mov.u32 %0, %%dynamic_smem_size;" : "=r"(bytes));
    out[6] = bytes;
}

KERNEL void copies(const int *in, int *out)
{
    extern __shared__ __align__(16) int dynamic[];
    const int t = threadIdx.x;
    __pipeline_memcpy_async(dynamic + 4 * t, in + 4 * t, 16);
    __pipeline_commit();
    __pipeline_memcpy_async(dynamic + 4 * blockDim.x + t, in + t, 4, t & 1 ? 4 : 0); // zeros instead
    __pipeline_commit();
    __pipeline_wait_prior(1);
    __pipeline_wait_prior(0);
    __syncthreads();
    out[t] = dynamic[4 * blockDim.x - 1 - t];
    out[blockDim.x + t] = dynamic[4 * blockDim.x + t];
}

// Half of the block produces, half consumes, by barrier objects: threads that poll must let the others run.
KERNEL void barrier_objects(const int *in, int *out)
{
    __shared__ cuda::barrier<cuda::thread_scope_block> full, empty;
    __shared__ int buffer[64];
    auto block = cg::this_thread_block();
    const int half = blockDim.x / 2, t = threadIdx.x;
    if (t == 0) {
        init(&full, blockDim.x);
        init(&empty, blockDim.x);
    }
    block.sync();
    for (int round = 0; round < 4; round++) {
        if (t < half) {
            empty.arrive_and_wait();
            buffer[t] = in[t] + round;
            (void)full.arrive();
        } else {
            (void)empty.arrive();
            full.arrive_and_wait();
            out[round * half + t - half] = buffer[blockDim.x - 1 - t];
        }
    }
    block.sync();
    cg::memcpy_async(block, buffer, in, sizeof(int) * 64);
    cg::wait(block);
    out[4 * half + t] = buffer[63 - t];
}
