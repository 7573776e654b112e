/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of train_mlp.py: a multi-layer perceptron, its gradient and Adam. Compiled at run time by NVRTC.
 *
 * Matrices are row-major float. No kernel uses floating-point atomics: every sum has a fixed order, so a run gives the same
 * bits every time on the same device.
 */

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int TILE = 64;   /* a block computes TILE x TILE elements of the product */
constexpr int DEPTH = 16;  /* of the inner dimension, that many columns at a time pass through shared memory */
constexpr int PATCH = 4;   /* a thread computes PATCH x PATCH elements; blocks are (TILE / PATCH)^2 = 256 threads */
constexpr int THREADS = (TILE / PATCH) * (TILE / PATCH);

__device__ __forceinline__ u64 mixed(u64 x) /* splitmix64: a good 64-bit hash in five operations */
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

__device__ __forceinline__ float byte_of(u64 bits, int index) /* uniform in [-1, 1) */
{
    return (float)((int)((bits >> (8 * index)) & 255) - 128) * (1.0f / 128.0f);
}

/* One thread makes four features of one sample: the centre of the sample's class plus noise, both from hashes of the seed. */
extern "C" __global__ void make_samples(float4 *samples, int *labels, u64 count, u32 features, u32 classes, float noise, u64 seed)
{
    const u64 index = (u64)blockIdx.x * blockDim.x + threadIdx.x;
    const u32 quads = features / 4;
    if (index >= count * quads)
        return;
    const u64 sample = index / quads;
    const u32 quad = (u32)(index % quads);
    const u32 label = (u32)(mixed(seed ^ (sample << 1)) % classes);
    const u64 centre = mixed(seed + 0x1000000000ull + (u64)label * quads + quad);
    const u64 jitter = mixed(~seed ^ index);
    float4 value;
    value.x = byte_of(centre, 0) + noise * byte_of(jitter, 0);
    value.y = byte_of(centre, 1) + noise * byte_of(jitter, 1);
    value.z = byte_of(centre, 2) + noise * byte_of(jitter, 2);
    value.w = byte_of(centre, 3) + noise * byte_of(jitter, 3);
    samples[index] = value;
    if (quad == 0)
        labels[sample] = (int)label;
}

/* C[m,n] = A'[m,k] B'[k,n], where A' is A, or A transposed (A is [k,m]), and B' likewise. Grid (n / TILE, m / TILE). */
template <bool A_TRANSPOSED, bool B_TRANSPOSED>
__device__ __forceinline__ void matmul(const float *a, const float *b, float *c, int m, int n, int k)
{
    __shared__ float left[DEPTH][TILE];
    __shared__ float right[DEPTH][TILE];
    const int thread = threadIdx.x;
    const int row0 = blockIdx.y * TILE, column0 = blockIdx.x * TILE;
    const int row = thread / (TILE / PATCH) * PATCH, column = thread % (TILE / PATCH) * PATCH;
    float sum[PATCH][PATCH] = {};

    for (int k0 = 0; k0 < k; k0 += DEPTH) {
        for (int element = thread; element < TILE * DEPTH; element += THREADS) {
            /* neighbouring threads read neighbouring addresses, whichever way the matrix lies */
            const int ai = A_TRANSPOSED ? element % TILE : element / DEPTH;
            const int ak = A_TRANSPOSED ? element / TILE : element % DEPTH;
            const int bj = B_TRANSPOSED ? element / DEPTH : element % TILE;
            const int bk = B_TRANSPOSED ? element % DEPTH : element / TILE;
            const bool a_inside = row0 + ai < m && k0 + ak < k, b_inside = column0 + bj < n && k0 + bk < k;
            left[ak][ai] = !a_inside ? 0.0f : A_TRANSPOSED ? a[(u64)(k0 + ak) * m + row0 + ai] : a[(u64)(row0 + ai) * k + k0 + ak];
            right[bk][bj] = !b_inside ? 0.0f : B_TRANSPOSED ? b[(u64)(column0 + bj) * k + k0 + bk] : b[(u64)(k0 + bk) * n + column0 + bj];
        }
        __syncthreads();
#pragma unroll
        for (int inner = 0; inner < DEPTH; inner++) {
#pragma unroll
            for (int i = 0; i < PATCH; i++) {
#pragma unroll
                for (int j = 0; j < PATCH; j++)
                    sum[i][j] += left[inner][row + i] * right[inner][column + j];
            }
        }
        __syncthreads();
    }
    for (int i = 0; i < PATCH; i++)
        for (int j = 0; j < PATCH; j++)
            if (row0 + row + i < m && column0 + column + j < n)
                c[(u64)(row0 + row + i) * n + column0 + column + j] = sum[i][j];
}

extern "C" __global__ void matmul_nn(const float *a, const float *b, float *c, int m, int n, int k) /* forward */
{
    matmul<false, false>(a, b, c, m, n, k);
}

extern "C" __global__ void matmul_nt(const float *a, const float *b, float *c, int m, int n, int k) /* dX = dY W^T */
{
    matmul<false, true>(a, b, c, m, n, k);
}

extern "C" __global__ void matmul_tn(const float *a, const float *b, float *c, int m, int n, int k) /* dW = X^T dY */
{
    matmul<true, false>(a, b, c, m, n, k);
}

extern "C" __global__ void add_bias(float *y, const float *bias, int rows, int columns, int relu)
{
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= rows * columns)
        return;
    const float value = y[index] + bias[index % columns];
    y[index] = relu ? fmaxf(value, 0.0f) : value;
}

extern "C" __global__ void relu_backward(float *gradient, const float *activation, int count)
{
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count && activation[index] <= 0.0f)
        gradient[index] = 0.0f;
}

/* One thread a row: cross-entropy of softmax(logits), its gradient (mean over the batch), and whether the guess was right. */
extern "C" __global__ void softmax_loss(const float *logits, const int *labels, float *gradient, float *loss, float *hit, int rows,
                                        int classes)
{
    const int row = blockIdx.x * blockDim.x + threadIdx.x;
    if (row >= rows)
        return;
    const float *const scores = logits + row * classes;
    const int label = labels[row];
    int best = 0;
    for (int c = 1; c < classes; c++)
        if (scores[c] > scores[best])
            best = c;
    float total = 0.0f;
    for (int c = 0; c < classes; c++)
        total += expf(scores[c] - scores[best]);
    for (int c = 0; c < classes; c++)
        gradient[row * classes + c] = (expf(scores[c] - scores[best]) / total - (c == label ? 1.0f : 0.0f)) / (float)rows;
    loss[row] = logf(total) - (scores[label] - scores[best]);
    hit[row] = best == label ? 1.0f : 0.0f;
}

/* One block a column: sum[column] = scale * sum over rows; a tree in shared memory, so in a fixed order. 256 threads. */
extern "C" __global__ void column_sum(const float *values, float *sum, int rows, int columns, float scale)
{
    __shared__ float part[256];
    const int column = blockIdx.x;
    float mine = 0.0f;
    for (int row = threadIdx.x; row < rows; row += 256)
        mine += values[(u64)row * columns + column];
    part[threadIdx.x] = mine;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        sum[column] = part[0] * scale;
}

extern "C" __global__ void adam(float *weights, const float *gradient, float *mean, float *square, int count, float rate,
                                float mean_scale, float square_scale)
{
    const int index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= count)
        return;
    const float g = gradient[index];
    const float m = 0.9f * mean[index] + 0.1f * g;
    const float s = 0.999f * square[index] + 0.001f * g * g;
    mean[index] = m;
    square[index] = s;
    weights[index] -= rate * (m * mean_scale) / (sqrtf(s * square_scale) + 1e-8f);
}
