/* SPDX-License-Identifier: Apache-2.0
 *
 * cudaProfiler.h, which is not among the headers that the forwarders are made from: programs that link these must load.
 */
#include "cuda_api.h"
#include "real_driver.h"

static CUresult forward(const char *name)
{
    void *function = NULL;
    CUdriverProcAddressQueryResult found;
    const CUresult result = REAL(cuGetProcAddress_v2)(name, &function, CUDA_VERSION, 0, &found);
    if (result != CUDA_SUCCESS)
        return result;
    return function != NULL ? ((CUresult (*)(void))function)() : CUDA_ERROR_NOT_SUPPORTED;
}

GV_EXPORT CUresult cuProfilerStart(void);
GV_EXPORT CUresult cuProfilerStart(void) { return forward("cuProfilerStart"); }

GV_EXPORT CUresult cuProfilerStop(void);
GV_EXPORT CUresult cuProfilerStop(void) { return forward("cuProfilerStop"); }

/* No GPU since Volta has it. */
GV_EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, int outputMode);
GV_EXPORT CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, int outputMode)
{
    (void)configFile, (void)outputFile, (void)outputMode;
    return CUDA_ERROR_NOT_SUPPORTED;
}
