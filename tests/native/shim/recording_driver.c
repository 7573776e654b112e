/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 of a few functions that record how they were called: what the shim forwards must arrive unchanged. It also
 * calls cuInit through its own PLT and looks up a driver function while it is loaded, as NVIDIA's does.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT int recorded_inits, recorded_launches;
EXPORT float recorded_float;
EXPORT long long recorded_arguments[12];

EXPORT CUresult cuInit(unsigned int Flags)
{
    recorded_inits++;
    recorded_arguments[0] = Flags;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuDriverGetVersion(int *driverVersion)
{
    *driverVersion = 13000;
    return CUDA_SUCCESS;
}

__attribute__((constructor)) static void loading(void)
{
    int version = 0;
    cuDriverGetVersion(&version); /* -Bsymbolic: reaches the function above and not the shim */
    CUresult (*init)(unsigned int) = (CUresult (*)(unsigned int))dlsym(dlopen(NULL, RTLD_NOW), "cuInit");
    if (init != NULL)
        init(0); /* comes in through the shim, while the shim opens us */
}

EXPORT CUresult cuParamSetf(CUfunction hfunc, int offset, float value)
{
    recorded_arguments[0] = (long long)hfunc;
    recorded_arguments[1] = offset;
    recorded_float = value;
    return CUDA_SUCCESS;
}

EXPORT CUresult cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *pCopy)
{
    recorded_launches++;
    return pCopy == NULL ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
}

/* More than six integer arguments: some come on the stack. */
EXPORT CUresult cuOccupancyMaxPotentialBlockSizeWithFlags(int *minGridSize, int *blockSize, CUfunction func,
                                                          CUoccupancyB2DSize blockSizeToDynamicSMemSize,
                                                          size_t dynamicSMemSize, int blockSizeLimit,
                                                          unsigned int flags)
{
    const long long all[] = {(long long)minGridSize,
                             (long long)blockSize,
                             (long long)func,
                             (long long)blockSizeToDynamicSMemSize,
                             (long long)dynamicSMemSize,
                             blockSizeLimit,
                             flags};
    memcpy(recorded_arguments, all, sizeof all);
    return CUDA_ERROR_ALREADY_MAPPED;
}

EXPORT CUresult cuGetProcAddress_v2(const char *symbol, void **pfn, int cudaVersion, cuuint64_t flags,
                                    CUdriverProcAddressQueryResult *symbolStatus)
{
    (void)flags;
    if (cudaVersion > 13000)
        return CUDA_ERROR_INVALID_VALUE;
    *pfn = NULL;
    if (strcmp(symbol, "cuInit") == 0)
        *pfn = (void *)cuInit;
    if (strcmp(symbol, "cuMemcpy2DUnaligned") == 0)
        *pfn = (void *)cuMemcpy2DUnaligned_v2;
    if (symbolStatus != NULL)
        *symbolStatus = *pfn == NULL ? CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND : CU_GET_PROC_ADDRESS_SUCCESS;
    return CUDA_SUCCESS;
}
