/* SPDX-License-Identifier: Apache-2.0
 *
 * Occupancy by the limits that the device attributes state.
 */
#include "launch.h"
#include "model.h"
#include "module.h"

enum { WARP = 32 };

static int smaller(int a, int b) { return a < b ? a : b; }

static int multiprocessors_of(const struct gv_function *function)
{
    const int own = (int)gv_function_profile(function)->multiprocessors;
    return own > 0 ? own : gv_driver.workers;
}

static int blocks_per_sm(const struct gv_function *function, int threads, size_t dynamic_shared)
{
    const struct gv_kernel *kernel = function->kernel;
    const struct gv_profile *profile = gv_function_profile(function);
    const int registers_per_sm = (int)profile->registers_per_multiprocessor;
    if (threads > (int)kernel->max_threads)
        return 0;
    const int warps = (threads + WARP - 1) / WARP;
    int blocks =
        smaller((int)profile->blocks_per_multiprocessor, (int)profile->threads_per_multiprocessor / WARP / warps);
    const uint64_t shared = kernel->static_shared + dynamic_shared;
    if (shared > profile->shared_per_block_most)
        return 0;
    if (shared + profile->shared_reserved > 0)
        blocks = smaller(blocks, (int)(profile->shared_per_multiprocessor / (shared + profile->shared_reserved)));
    const int registers = (int)(kernel->registers + 7) / 8 * 8 * WARP * warps;
    return registers > 0 ? smaller(blocks, registers_per_sm / registers > 0 ? registers_per_sm / registers : 1)
                         : blocks;
}

uint64_t gv_blocks_together(const struct gv_function *function, int threads, size_t dynamic_shared)
{
    return (uint64_t)multiprocessors_of(function) * (uint64_t)blocks_per_sm(function, threads, dynamic_shared);
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
    *numBlocks = blocks_per_sm(function, blockSize, dynamicSMemSize);
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
        const int blocks = blocks_per_sm(function, size, shared);
        if (blocks * size > best) {
            best = blocks * size;
            best_size = size;
        }
    }
    if (best == 0)
        return CUDA_ERROR_INVALID_VALUE;
    *blockSize = best_size;
    *minGridSize = best / best_size * multiprocessors_of(function);
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
    const struct gv_profile *profile = gv_function_profile(function);
    size_t share = profile->shared_per_multiprocessor / (size_t)numBlocks;
    share = share > profile->shared_reserved ? share - profile->shared_reserved : 0;
    if (share > profile->shared_per_block_most)
        share = profile->shared_per_block_most;
    *dynamicSmemSize = share > function->kernel->static_shared ? share - function->kernel->static_shared : 0;
    return CUDA_SUCCESS;
}
