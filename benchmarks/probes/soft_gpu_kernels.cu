/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of soft_gpu_kernels.py; loops.c does the same as plain C.
 */

extern "C" __global__ void saxpy(const float *x, float *y, int length)
{
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < length)
        y[i] = 2.5f * x[i] + y[i];
}

extern "C" __global__ void reduce(const float *x, float *sums)
{
    __shared__ float part[256];
    part[threadIdx.x] = x[blockIdx.x * 256 + threadIdx.x];
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        sums[blockIdx.x] = part[0];
}

extern "C" __global__ void shuffle(const float *x, float *sums)
{
    __shared__ float part[8];
    float sum = x[blockIdx.x * blockDim.x + threadIdx.x];
    for (int distance = 16; distance > 0; distance /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, distance);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x < 32) {
        sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
        for (int distance = 4; distance > 0; distance /= 2)
            sum += __shfl_down_sync(0xffffffffu, sum, distance);
        if (threadIdx.x == 0)
            sums[blockIdx.x] = sum;
    }
}

extern "C" __global__ void matmul(const float *a, const float *b, float *c, int side)
{
    __shared__ float left[16][16], right[16][16];
    const int row = blockIdx.y * 16 + threadIdx.y, column = blockIdx.x * 16 + threadIdx.x;
    float sum = 0.0f;
    for (int k0 = 0; k0 < side; k0 += 16) {
        left[threadIdx.y][threadIdx.x] = a[row * side + k0 + threadIdx.x];
        right[threadIdx.y][threadIdx.x] = b[(k0 + threadIdx.y) * side + column];
        __syncthreads();
        for (int k = 0; k < 16; k++)
            sum += left[threadIdx.y][k] * right[k][threadIdx.x];
        __syncthreads();
    }
    c[row * side + column] = sum;
}
