/* SPDX-License-Identifier: Apache-2.0
 *
 * cuFunc* and the cuKernel* calls that ask the same questions; the launch calls of CUDA 1.
 */
#include "launch.h"
#include "model.h"
#include "module.h"

struct gv_function *gv_function_of(CUfunction handle)
{
    return gv_is(handle, GV_FUNCTION) || gv_is(handle, GV_KERNEL) ? (struct gv_function *)handle : NULL;
}

CUresult gv_function_instance(struct gv_function *function, struct gv_context *context, struct gv_instance **instance)
{
    if (function->instance == NULL)
        return gv_library_instance(function->library, context, instance);
    *instance = function->instance;
    return (*instance)->context == context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

const struct gv_profile *gv_function_profile(const struct gv_function *function)
{
    const struct gv_context *context = function->instance != NULL ? function->instance->context : gv_thread_context();
    return gv_profile_of(context != NULL ? context->device : 0);
}

static int shared_most(const struct gv_function *function)
{
    return (int)gv_function_profile(function)->shared_per_block_most;
}

/* The user's constants: of the whole module, since the translator does not tell which kernel uses which. */
static uint64_t constant_bytes(const struct gv_function *function)
{
    const struct gv_module *module = function->module;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < module->global_count; i++)
        bytes += module->globals[i].constant ? module->globals[i].size : 0;
    return bytes;
}

static CUresult get_attribute(const struct gv_function *function, CUfunction_attribute attribute, int *value)
{
    const struct gv_kernel *kernel = function->kernel;
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK:
        *value = (int)kernel->max_threads;
        break;
    case CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES:
        *value = (int)kernel->static_shared;
        break;
    case CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES:
        *value = (int)constant_bytes(function);
        break;
    case CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES:
        *value = (int)kernel->local_bytes;
        break;
    case CU_FUNC_ATTRIBUTE_NUM_REGS:
        *value = (int)(function->register_limit > 0 && function->register_limit < kernel->registers
                           ? function->register_limit
                           : kernel->registers);
        break;
    case CU_FUNC_ATTRIBUTE_PTX_VERSION:
    case CU_FUNC_ATTRIBUTE_BINARY_VERSION:
        *value = (int)(gv_function_profile(function)->major * 10 + gv_function_profile(function)->minor);
        break;
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        *value = function->dynamic_shared_max > 0 ? function->dynamic_shared_max
                                                  : GV_SHARED_DEFAULT - (int)kernel->static_shared;
        break;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        *value = function->carveout;
        break;
    case CU_FUNC_ATTRIBUTE_CACHE_MODE_CA:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT:
    case CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_DEPTH:
    case CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED:
    case CU_FUNC_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
        *value = 0;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

static CUresult set_attribute(struct gv_function *function, CUfunction_attribute attribute, int value)
{
    switch (attribute) {
    case CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES:
        if (value < 0 || value > shared_most(function) - (int)function->kernel->static_shared)
            return CUDA_ERROR_INVALID_VALUE;
        function->dynamic_shared_max = value;
        return CUDA_SUCCESS;
    case CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        if (value < -1 || value > 100)
            return CUDA_ERROR_INVALID_VALUE;
        function->carveout = value;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

GV_EXPORT CUresult cuFuncGetAttribute(int *pi, CUfunction_attribute attrib, CUfunction hfunc)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(hfunc);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return pi == NULL ? CUDA_ERROR_INVALID_VALUE : get_attribute(function, attrib, pi);
}

GV_EXPORT CUresult cuKernelGetAttribute(int *pi, CUfunction_attribute attrib, CUkernel kernel, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    return cuFuncGetAttribute(pi, attrib, (CUfunction)kernel);
}

GV_EXPORT CUresult cuFuncSetAttribute(CUfunction hfunc, CUfunction_attribute attrib, int value)
{
    GV_ENTER();
    struct gv_function *function = gv_function_of(hfunc);
    return function == NULL ? CUDA_ERROR_INVALID_HANDLE : set_attribute(function, attrib, value);
}

GV_EXPORT CUresult cuKernelSetAttribute(CUfunction_attribute attrib, int val, CUkernel kernel, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    return cuFuncSetAttribute((CUfunction)kernel, attrib, val);
}

GV_EXPORT CUresult cuFuncSetCacheConfig(CUfunction hfunc, CUfunc_cache config)
{
    GV_ENTER();
    if (gv_function_of(hfunc) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return (unsigned)config <= CU_FUNC_CACHE_PREFER_EQUAL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice dev)
{
    GV_ENTER();
    GV_TRY(gv_check_device(dev));
    return cuFuncSetCacheConfig((CUfunction)kernel, config);
}

GV_EXPORT CUresult cuFuncSetSharedMemConfig(CUfunction hfunc, CUsharedconfig config)
{
    GV_ENTER();
    if (gv_function_of(hfunc) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return (unsigned)config <= CU_SHARED_MEM_CONFIG_EIGHT_BYTE_BANK_SIZE ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuFuncGetModule(CUmodule *hmod, CUfunction hfunc)
{
    GV_ENTER_CONTEXT(context);
    struct gv_function *function = gv_function_of(hfunc);
    struct gv_instance *instance;
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (hmod == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_function_instance(function, context, &instance));
    *hmod = (CUmodule)instance;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuFuncGetName(const char **name, CUfunction hfunc)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(hfunc);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *name = function->kernel->name;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuKernelGetName(const char **name, CUkernel hfunc) { return cuFuncGetName(name, (CUfunction)hfunc); }

GV_EXPORT CUresult cuFuncGetParamInfo(CUfunction func, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(func);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (paramOffset == NULL || paramIndex >= function->kernel->param_count)
        return CUDA_ERROR_INVALID_VALUE;
    *paramOffset = function->kernel->params[paramIndex].offset;
    if (paramSize != NULL)
        *paramSize = function->kernel->params[paramIndex].size;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuKernelGetParamInfo(CUkernel kernel, size_t paramIndex, size_t *paramOffset, size_t *paramSize)
{
    return cuFuncGetParamInfo((CUfunction)kernel, paramIndex, paramOffset, paramSize);
}

GV_EXPORT CUresult cuFuncGetParamCount(CUfunction func, size_t *paramCount)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(func);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (paramCount == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *paramCount = function->kernel->param_count;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuKernelGetParamCount(CUkernel kernel, size_t *paramCount)
{
    return cuFuncGetParamCount((CUfunction)kernel, paramCount);
}

GV_EXPORT CUresult cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    GV_ENTER();
    if (gv_function_of(function) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (state == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuFuncLoad(CUfunction function)
{
    GV_ENTER();
    return gv_function_of(function) == NULL ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

/* PyCUDA still calls these before each launch, and passes the same shape again to cuLaunchKernel. */
GV_EXPORT CUresult cuFuncSetBlockShape(CUfunction hfunc, int x, int y, int z)
{
    GV_ENTER();
    struct gv_function *function = gv_function_of(hfunc);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (x < 1 || y < 1 || z < 1)
        return CUDA_ERROR_INVALID_VALUE;
    function->block[0] = (uint32_t)x;
    function->block[1] = (uint32_t)y;
    function->block[2] = (uint32_t)z;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuFuncSetSharedSize(CUfunction hfunc, unsigned int bytes)
{
    GV_ENTER();
    const struct gv_function *function = gv_function_of(hfunc);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    return bytes <= (unsigned)shared_most(function) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
