/* SPDX-License-Identifier: Apache-2.0
 *
 * cuModule*: code loaded into the current context.
 */
#include "module.h"

#include <stdlib.h>

static struct gv_instance *instance_of(CUmodule handle)
{
    return gv_is(handle, GV_MODULE) ? (struct gv_instance *)handle : NULL;
}

GV_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions,
                                      CUjit_option *options, void **optionValues)
{
    GV_ENTER_CONTEXT(context);
    if (module == NULL || image == NULL || (numOptions > 0 && (options == NULL || optionValues == NULL)))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_jit_log log;
    struct gv_code *code;
    const CUresult loaded = gv_code_load(image, &log, &code);
    gv_jit_report(&log, numOptions, options, optionValues);
    GV_TRY(loaded);
    struct gv_instance *instance;
    const CUresult result =
        gv_instance_create(context, code, NULL, gv_register_limit(image, numOptions, options, optionValues), &instance);
    if (result != CUDA_SUCCESS) {
        gv_code_release(code);
        return result;
    }
    *module = (CUmodule)instance;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return cuModuleLoadDataEx(module, image, 0, NULL, NULL);
}

GV_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
    return cuModuleLoadData(module, fatCubin);
}

GV_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
    GV_ENTER_CONTEXT(context);
    if (module == NULL || fname == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    char *data;
    size_t bytes;
    GV_TRY(gv_read_file(fname, &data, &bytes));
    const CUresult result = cuModuleLoadData(module, data);
    free(data);
    return result;
}

GV_EXPORT CUresult cuModuleUnload(CUmodule hmod)
{
    GV_ENTER_CONTEXT(context);
    struct gv_instance *instance = instance_of(hmod);
    if (instance == NULL || instance->library != NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    struct gv_code *code = instance->code;
    GV_TRY(gv_context_synchronise(instance->context)); /* its kernels may be running */
    gv_instance_destroy(instance);
    gv_code_release(code);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuModuleGetFunction(CUfunction *hfunc, CUmodule hmod, const char *name)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_instance *instance = instance_of(hmod);
    if (instance == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (hfunc == NULL || name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const int number = gv_kernel_number(instance->code->module, name);
    if (number < 0)
        return CUDA_ERROR_NOT_FOUND;
    *hfunc = (CUfunction)instance->functions[number];
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuModuleGetFunctionCount(unsigned int *count, CUmodule mod)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_instance *instance = instance_of(mod);
    if (instance == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *count = instance->code->module->kernel_count;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuModuleEnumerateFunctions(CUfunction *functions, unsigned int numFunctions, CUmodule mod)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_instance *instance = instance_of(mod);
    if (instance == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (functions == NULL || numFunctions == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < numFunctions; i++)
        functions[i] = i < instance->code->module->kernel_count ? (CUfunction)instance->functions[i] : NULL;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuModuleGetGlobal_v2(CUdeviceptr *dptr, size_t *bytes, CUmodule hmod, const char *name)
{
    GV_ENTER_CONTEXT(context);
    const struct gv_instance *instance = instance_of(hmod);
    if (instance == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (name == NULL || (dptr == NULL && bytes == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    return gv_variable_of(instance, name, dptr, bytes);
}

GV_EXPORT CUresult cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    GV_ENTER();
    if (mode == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = CU_MODULE_EAGER_LOADING;
    return CUDA_SUCCESS;
}
