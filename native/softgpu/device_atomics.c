/* SPDX-License-Identifier: Apache-2.0
 *
 * Which atomic operations a device can do on the memory of another device or of the host: all that translated kernels have,
 * since all of it is memory of one process.
 */
#include "driver.h"

static unsigned capability_of(CUatomicOperation operation)
{
    const unsigned both = CU_ATOMIC_CAPABILITY_SIGNED | CU_ATOMIC_CAPABILITY_UNSIGNED;
    const unsigned sizes = CU_ATOMIC_CAPABILITY_SCALAR_32 | CU_ATOMIC_CAPABILITY_SCALAR_64;
    switch (operation) {
    case CU_ATOMIC_OPERATION_INTEGER_ADD:
    case CU_ATOMIC_OPERATION_INTEGER_MIN:
    case CU_ATOMIC_OPERATION_INTEGER_MAX:
    case CU_ATOMIC_OPERATION_AND:
    case CU_ATOMIC_OPERATION_OR:
    case CU_ATOMIC_OPERATION_XOR:
        return both | sizes | CU_ATOMIC_CAPABILITY_REDUCTION;
    case CU_ATOMIC_OPERATION_INTEGER_INCREMENT:
    case CU_ATOMIC_OPERATION_INTEGER_DECREMENT:
        return CU_ATOMIC_CAPABILITY_UNSIGNED | CU_ATOMIC_CAPABILITY_SCALAR_32 | CU_ATOMIC_CAPABILITY_REDUCTION;
    case CU_ATOMIC_OPERATION_EXCHANGE:
    case CU_ATOMIC_OPERATION_CAS:
        return both | sizes | CU_ATOMIC_CAPABILITY_SCALAR_128;
    case CU_ATOMIC_OPERATION_FLOAT_ADD:
        return CU_ATOMIC_CAPABILITY_SIGNED | sizes | CU_ATOMIC_CAPABILITY_REDUCTION;
    default: /* PTX has no scalar minimum and maximum of floats */
        return 0;
    }
}

static CUresult answer(unsigned *capabilities, const CUatomicOperation *operations, unsigned count)
{
    if (capabilities == NULL || operations == NULL || count == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++)
        if ((unsigned)operations[i] >= CU_ATOMIC_OPERATION_MAX)
            return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < count; i++)
        capabilities[i] = capability_of(operations[i]);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuDeviceGetHostAtomicCapabilities(unsigned int *capabilities, const CUatomicOperation *operations,
                                                     unsigned int count, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    return answer(capabilities, operations, count);
}

GV_EXPORT CUresult cuDeviceGetP2PAtomicCapabilities(unsigned int *capabilities, const CUatomicOperation *operations,
                                                    unsigned int count, CUdevice srcDevice, CUdevice dstDevice)
{
    GV_ENTER();
    GV_TRY(gv_check_device(srcDevice));
    GV_TRY(gv_check_device(dstDevice));
    if (srcDevice == dstDevice)
        return CUDA_ERROR_INVALID_DEVICE;
    return answer(capabilities, operations, count);
}
