// SPDX-License-Identifier: Apache-2.0
// Kernels without cooperation between threads, and the simplest with it.

extern "C" __global__ void saxpy(int n, float a, const float *x, float *y)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

extern "C" __global__ void vadd(int n, const double *x, const double *y, double *z)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        z[i] = x[i] + y[i];
}

extern "C" __global__ void reduce_shared(int n, const float *x, float *sums)
{
    __shared__ float part[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    part[t] = i < n ? x[i] : 0;
    __syncthreads();
    for (int s = blockDim.x / 2; s > 0; s >>= 1) {
        if (t < s)
            part[t] += part[t + s];
        __syncthreads();
    }
    if (t == 0)
        sums[blockIdx.x] = part[0];
}

extern "C" __global__ void reduce_warp(int n, const float *x, float *sum)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float v = i < n ? x[i] : 0;
    for (int d = 16; d > 0; d >>= 1)
        v += __shfl_down_sync(0xffffffff, v, d);
    if (threadIdx.x % 32 == 0)
        atomicAdd(sum, v);
}

extern "C" __global__ void ballot(const int *x, unsigned *masks, int *any, int *all)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned m = __ballot_sync(0xffffffff, x[i] > 0);
    any[i] = __any_sync(0xffffffff, x[i] > 5);
    all[i] = __all_sync(0xffffffff, x[i] > -5);
    if (threadIdx.x % 32 == 0)
        masks[i / 32] = m;
}

#define TILE 16
extern "C" __global__ void matmul(int n, const float *a, const float *b, float *c)
{
    __shared__ float ta[TILE][TILE], tb[TILE][TILE];
    int row = blockIdx.y * TILE + threadIdx.y, column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0;
    for (int k = 0; k < n; k += TILE) {
        ta[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
        tb[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
        __syncthreads();
        for (int j = 0; j < TILE; j++)
            sum += ta[threadIdx.y][j] * tb[j][threadIdx.x];
        __syncthreads();
    }
    c[row * n + column] = sum;
}

extern "C" __global__ void transpose(int n, const float *in, float *out)
{
    __shared__ float tile[TILE][TILE + 1];
    int x = blockIdx.x * TILE + threadIdx.x, y = blockIdx.y * TILE + threadIdx.y;
    tile[threadIdx.y][threadIdx.x] = in[y * n + x];
    __syncthreads();
    x = blockIdx.y * TILE + threadIdx.x;
    y = blockIdx.x * TILE + threadIdx.y;
    out[y * n + x] = tile[threadIdx.x][threadIdx.y];
}

__constant__ float weights[7] = {-6.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
extern "C" __global__ void stencil(int nx, int ny, int nz, const float *in, float *out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    int z = blockIdx.z * blockDim.z + threadIdx.z;
    if (x < 1 || y < 1 || z < 1 || x >= nx - 1 || y >= ny - 1 || z >= nz - 1)
        return;
    int i = (z * ny + y) * nx + x;
    out[i] = weights[0] * in[i] + weights[1] * in[i - 1] + weights[2] * in[i + 1] + weights[3] * in[i - nx] +
             weights[4] * in[i + nx] + weights[5] * in[i - nx * ny] + weights[6] * in[i + nx * ny];
}

extern "C" __global__ void scan(int n, const int *in, int *out)
{
    extern __shared__ int buffer[];
    int t = threadIdx.x;
    buffer[t] = in[t];
    __syncthreads();
    for (int d = 1; d < n; d *= 2) {
        int v = t >= d ? buffer[t - d] : 0;
        __syncthreads();
        buffer[t] += v;
        __syncthreads();
    }
    out[t] = buffer[t];
}

extern "C" __global__ void mandelbrot(int width, int height, int limit, int *out)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= width || y >= height)
        return;
    double cr = 3.0 * x / width - 2.0, ci = 2.0 * y / height - 1.0, r = 0, i = 0;
    int n = 0;
    while (n < limit && r * r + i * i < 4) {
        double t = r * r - i * i + cr;
        i = 2 * r * i + ci;
        r = t;
        n++;
    }
    out[y * width + x] = n;
}

extern "C" __global__ void adam(int n, float *p, const float *g, float *m, float *v, float lr, float b1, float b2, float eps,
                                int step)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float mi = m[i] = b1 * m[i] + (1 - b1) * g[i];
    float vi = v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
    float mh = mi / (1 - powf(b1, step)), vh = vi / (1 - powf(b2, step));
    p[i] -= lr * mh / (sqrtf(vh) + eps);
}

extern "C" __global__ void softmax(int n, const float *in, float *out)
{
    __shared__ float part[128];
    const float *row = in + blockIdx.x * n;
    int t = threadIdx.x;
    float m = -1e30f;
    for (int j = t; j < n; j += blockDim.x)
        m = fmaxf(m, row[j]);
    part[t] = m;
    __syncthreads();
    for (int s = 64; s; s >>= 1) {
        if (t < s)
            part[t] = fmaxf(part[t], part[t + s]);
        __syncthreads();
    }
    m = part[0];
    __syncthreads();
    float sum = 0;
    for (int j = t; j < n; j += blockDim.x)
        sum += expf(row[j] - m);
    part[t] = sum;
    __syncthreads();
    for (int s = 64; s; s >>= 1) {
        if (t < s)
            part[t] += part[t + s];
        __syncthreads();
    }
    for (int j = t; j < n; j += blockDim.x)
        out[blockIdx.x * n + j] = expf(row[j] - m) / part[0];
}

struct point {
    double x, y;
    int tag;
    float scale;
};
extern "C" __global__ void struct_parameter(point p, double *out, int *tags)
{
    int i = threadIdx.x;
    out[i] = p.x * i + p.y * p.scale;
    tags[i] = p.tag + i;
}

struct node {
    node *next;
    int value;
};
extern "C" __global__ void list_sum(const node *head, int *out)
{
    int sum = 0;
    for (; head; head = head->next)
        sum += head->value;
    *out = sum;
}

extern "C" __global__ void vectors(int n, const float4 *in, float4 *out, const int2 *pairs, int2 *swapped, uchar4 *bytes)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n)
        return;
    float4 v = in[i];
    out[i] = make_float4(v.w, v.z + 1, v.y * 2, v.x - 3);
    swapped[i] = make_int2(pairs[i].y, pairs[i].x);
    uchar4 b = bytes[i];
    bytes[i] = make_uchar4(b.w, b.z, b.y, b.x);
}
