/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels of heat.py: heat conduction in a block of layered material, explicit steps, cold walls. Compiled at run time by
 * NVRTC. Cells are ordered x fastest, then y, then z. No floating-point atomics: every run gives the same bits.
 */

typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ u32 mixed(u32 x)
{
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

__device__ __forceinline__ u32 below(u32 key, u32 limit) /* a hash of `key` in [0, limit); no division */
{
    return (u32)((u64)mixed(key) * limit >> 32);
}

/* A cold block with a few hot balls; conductivity differs from layer to layer and a little from cell to cell. */
extern "C" __global__ void prepare(float *heat, float *conductivity, int nx, int ny, int nz, int z0, int balls, u32 seed)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y, z = z0 + blockIdx.z;
    if (x >= nx || y >= ny || z >= nz)
        return;
    const u64 cell = ((u64)z * ny + y) * nx + x;
    float value = 0.0f;
    for (int ball = 0; ball < balls; ball++) {
        const u32 key = seed * 977u + ball * 4u;
        const float dx = x - (float)below(key, nx), dy = y - (float)below(key + 1, ny), dz = z - (float)below(key + 2, nz);
        const float radius = 0.05f * nx + below(key + 3, nx / 8 + 1);
        if (dx * dx + dy * dy + dz * dz < radius * radius)
            value = 100.0f;
    }
    heat[cell] = value;
    conductivity[cell] = 0.04f + 0.02f * (mixed(seed + z / 16) & 3) + 0.01f * (mixed((u32)cell ^ seed) & 255) / 255.0f;
}

/* One step for the planes [z0, z1): next = heat + conductivity * laplacian(heat). Walls stay as they are. Blocks of 32 x 8,
 * each thread goes along z through `depth` planes, so that two of the seven values come from the step before. */
extern "C" __global__ void step(const float *heat, const float *conductivity, float *next, int nx, int ny, int nz, int z0, int z1,
                                int depth)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= nx || y >= ny)
        return;
    const u64 plane = (u64)nx * ny;
    int z = z0 + blockIdx.z * depth;
    const int end = z + depth < z1 ? z + depth : z1;
    if (z >= end)
        return;
    u64 cell = z * plane + (u64)y * nx + x;
    const bool wall = x == 0 || x == nx - 1 || y == 0 || y == ny - 1;
    float below = z > 0 ? heat[cell - plane] : 0.0f, here = heat[cell];
    for (; z < end; z++, cell += plane) {
        const float above = z < nz - 1 ? heat[cell + plane] : 0.0f;
        float value = here;
        if (!wall && z > 0 && z < nz - 1) {
            const float around = heat[cell - 1] + heat[cell + 1] + heat[cell - nx] + heat[cell + nx] + below + above;
            value = here + conductivity[cell] * (around - 6.0f * here);
        }
        next[cell] = value;
        below = here;
        here = above;
    }
}

/* One block a plane: its sum, by a tree in shared memory, so in a fixed order. 256 threads. */
extern "C" __global__ void plane_sum(const float *heat, float *sums, int cells)
{
    __shared__ float part[256];
    const float *const plane = heat + (u64)blockIdx.x * cells;
    float mine = 0.0f;
    for (int cell = threadIdx.x; cell < cells; cell += 256)
        mine += plane[cell];
    part[threadIdx.x] = mine;
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half)
            part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0)
        sums[blockIdx.x] = part[0];
}
