/* SPDX-License-Identifier: Apache-2.0
 *
 * Names of errors (generated from the header), and what they mean in words.
 */
#include "driver.h"

static const char *name_of(CUresult error)
{
    switch ((int)error) {
#define GV_RESULT(name)                                                                                                \
    case name:                                                                                                         \
        return #name;
#include "results.inc"
#undef GV_RESULT
    default:
        return NULL;
    }
}

static const char *words_of(CUresult error)
{
    switch ((int)error) {
    case CUDA_SUCCESS:
        return "no error";
    case CUDA_ERROR_INVALID_VALUE:
        return "invalid argument";
    case CUDA_ERROR_OUT_OF_MEMORY:
        return "out of memory";
    case CUDA_ERROR_NOT_INITIALIZED:
        return "initialization error";
    case CUDA_ERROR_DEINITIALIZED:
        return "driver shutting down";
    case CUDA_ERROR_NO_DEVICE:
        return "no CUDA-capable device is detected";
    case CUDA_ERROR_INVALID_DEVICE:
        return "invalid device ordinal";
    case CUDA_ERROR_INVALID_IMAGE:
        return "device kernel image is invalid";
    case CUDA_ERROR_INVALID_CONTEXT:
        return "invalid device context";
    case CUDA_ERROR_ALREADY_MAPPED:
        return "resource already mapped";
    case CUDA_ERROR_NO_BINARY_FOR_GPU:
        return "no kernel image is available for execution on the device";
    case CUDA_ERROR_INVALID_PTX:
        return "a PTX JIT compilation failed";
    case CUDA_ERROR_JIT_COMPILER_NOT_FOUND:
        return "PTX JIT compiler not found";
    case CUDA_ERROR_INVALID_SOURCE:
        return "device kernel image is invalid";
    case CUDA_ERROR_FILE_NOT_FOUND:
        return "file not found";
    case CUDA_ERROR_OPERATING_SYSTEM:
        return "OS call failed or operation not supported on this OS";
    case CUDA_ERROR_INVALID_HANDLE:
        return "invalid resource handle";
    case CUDA_ERROR_NOT_FOUND:
        return "named symbol not found";
    case CUDA_ERROR_NOT_READY:
        return "device not ready";
    case CUDA_ERROR_ILLEGAL_ADDRESS:
        return "an illegal memory access was encountered";
    case CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES:
        return "too many resources requested for launch";
    case CUDA_ERROR_LAUNCH_TIMEOUT:
        return "the launch timed out and was terminated";
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
        return "context is destroyed";
    case CUDA_ERROR_ASSERT:
        return "device-side assert triggered";
    case CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED:
        return "part or all of the requested memory range is already mapped";
    case CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED:
        return "pointer does not correspond to a registered memory region";
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
        return "an illegal instruction was encountered";
    case CUDA_ERROR_LAUNCH_FAILED:
        return "unspecified launch failure";
    case CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE:
        return "too many blocks in cooperative launch";
    case CUDA_ERROR_NOT_PERMITTED:
        return "operation not permitted";
    case CUDA_ERROR_NOT_SUPPORTED:
        return "operation not supported";
    case CUDA_ERROR_UNKNOWN:
        return "unknown error";
    default:
        return name_of(error); /* rare: the name says it */
    }
}

GV_EXPORT CUresult cuGetErrorName(CUresult error, const char **pStr)
{
    if (pStr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pStr = name_of(error);
    return *pStr != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuGetErrorString(CUresult error, const char **pStr)
{
    if (pStr == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pStr = words_of(error);
    return *pStr != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
