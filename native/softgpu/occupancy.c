/* SPDX-License-Identifier: Apache-2.0
 *
 * Occupancy by the limits that the device attributes state.
 */
#include "launch.h"
#include "module.h"

enum {
    WARP = 32,
    WARPS_PER_SM = 64,
    BLOCKS_PER_SM = 32,
    REGISTERS_PER_SM = 65536,
    SHARED_PER_SM = GV_SHARED_MOST + 1024
};

static int smaller(int a, int b) { return a < b ? a : b; }

int gv_blocks_per_sm(const struct gv_kernel *kernel, int threads, size_t dynamic_shared)
{
    if (threads > (int)kernel->max_threads)
        return 0;
    const int warps = (threads + WARP - 1) / WARP;
    int blocks = smaller(BLOCKS_PER_SM, WARPS_PER_SM / warps);
    const uint64_t shared = kernel->static_shared + dynamic_shared;
    if (shared > GV_SHARED_MOST)
        return 0;
    blocks = smaller(blocks, (int)(SHARED_PER_SM / (shared + 1024)));
    const int registers = (int)(kernel->registers + 7) / 8 * 8 * WARP * warps;
    return registers > 0 ? smaller(blocks, REGISTERS_PER_SM / registers > 0 ? REGISTERS_PER_SM / registers : 1)
                         : blocks;
}

GV_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *numBlocks, CUfunction func, int blockSize,
                                                                        size_t dynamicSMemSize, unsigned int flags)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(func);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (numBlocks == NULL || blockSize <= 0 || flags > CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
        return CUDA_ERROR_INVALID_VALUE;
    *numBlocks = gv_blocks_per_sm(function->kernel, blockSize, dynamicSMemSize);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int *numBlocks, CUfunction func, int blockSize,
                                                               size_t dynamicSMemSize)
{
    return cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, 0);
}

/* The block size with most threads on a multiprocessor; the larger block when equal. */
GV_EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
                                                             CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                             size_t dynamicSMemSize, int blockSizeLimit,
                                                             unsigned int flags)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(func);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (minGridSize == NULL || blockSize == NULL || flags > CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE)
        return CUDA_ERROR_INVALID_VALUE;
    int limit = (int)function->kernel->max_threads;
    if (blockSizeLimit > 0)
        limit = smaller(limit, blockSizeLimit);
    int best = 0, best_size = 0;
    for (int size = limit; size > 0; size = size % WARP != 0 ? size / WARP * WARP : size - WARP) {
        const size_t shared = blockSizeToDynamicSMemSize != NULL ? blockSizeToDynamicSMemSize(size) : dynamicSMemSize;
        const int blocks = gv_blocks_per_sm(function->kernel, size, shared);
        if (blocks * size > best) {
            best = blocks * size;
            best_size = size;
        }
    }
    if (best == 0)
        return CUDA_ERROR_INVALID_VALUE;
    *blockSize = best_size;
    *minGridSize = best / best_size * gv_driver.workers;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuOccupancyMaxPotentialBlockSize(int *minGridSize, int *blockSize, CUfunction func,
                                                    CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                    size_t dynamicSMemSize, int blockSizeLimit)
{
    return cuOccupancyMaxPotentialBlockSizeWithFlags(minGridSize, blockSize, func, blockSizeToDynamicSMemSize,
                                                     dynamicSMemSize, blockSizeLimit, 0);
}

GV_EXPORT CUresult cuOccupancyAvailableDynamicSMemPerBlock(size_t *dynamicSmemSize, CUfunction func, int numBlocks,
                                                           int blockSize)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(func);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (dynamicSmemSize == NULL || numBlocks <= 0 || blockSize <= 0)
        return CUDA_ERROR_INVALID_VALUE;
    size_t share = (size_t)SHARED_PER_SM / (size_t)numBlocks;
    share = share > 1024 ? share - 1024 : 0;
    if (share > GV_SHARED_MOST)
        share = GV_SHARED_MOST;
    *dynamicSmemSize = share > function->kernel->static_shared ? share - function->kernel->static_shared : 0;
    return CUDA_SUCCESS;
}
