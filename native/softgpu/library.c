/* SPDX-License-Identifier: Apache-2.0
 *
 * cuLibrary* and cuKernel*: code of the process; a module of each context in which it is used.
 */
#include "module.h"
#include "stream.h"

#include <stdlib.h>

static struct gv_library *library_of(CUlibrary handle)
{
    return gv_is(handle, GV_LIBRARY) ? (struct gv_library *)handle : NULL;
}

static struct gv_function *kernel_of(CUkernel handle)
{
    return gv_is(handle, GV_KERNEL) ? (struct gv_function *)handle : NULL;
}

static void free_library(struct gv_library *library)
{
    for (uint32_t i = 0; library->kernels != NULL && i < library->code->module->kernel_count; i++)
        if (library->kernels[i] != NULL)
            gv_object_free(library->kernels[i], GV_KERNEL);
    free(library->kernels);
    gv_code_release(library->code);
    gv_object_free(library, GV_LIBRARY);
}

static CUresult make_library(struct gv_code *code, uint32_t register_limit, struct gv_library **made)
{
    struct gv_library *library = gv_object_new(GV_LIBRARY, sizeof *library);
    if (library == NULL) {
        gv_code_release(code);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    library->code = code;
    library->register_limit = register_limit;
    atomic_store(&library->instances, NULL);
    pthread_mutex_init(&library->lock, NULL);
    library->kernels = calloc(code->module->kernel_count + 1, sizeof *library->kernels);
    bool complete = library->kernels != NULL;
    for (uint32_t i = 0; complete && i < code->module->kernel_count; i++) {
        library->kernels[i] = gv_function_new(GV_KERNEL, code->module, i, register_limit);
        complete = library->kernels[i] != NULL;
        if (complete)
            library->kernels[i]->library = library;
    }
    if (!complete) {
        free_library(library);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *made = library;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryLoadData(CUlibrary *library, const void *code, CUjit_option *jitOptions,
                                     void **jitOptionsValues, unsigned int numJitOptions,
                                     CUlibraryOption *libraryOptions, void **libraryOptionValues,
                                     unsigned int numLibraryOptions)
{
    GV_ENTER();
    (void)libraryOptionValues; /* BINARY_IS_PRESERVED: we copy nothing and keep nothing */
    if (library == NULL || code == NULL || (numJitOptions > 0 && (jitOptions == NULL || jitOptionsValues == NULL)) ||
        (numLibraryOptions > 0 && libraryOptions == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_jit_log log;
    struct gv_code *loaded;
    const CUresult result = gv_code_load(code, &log, &loaded);
    gv_jit_report(&log, numJitOptions, jitOptions, jitOptionsValues);
    GV_TRY(result);
    struct gv_library *made;
    GV_TRY(make_library(loaded, gv_register_limit(code, numJitOptions, jitOptions, jitOptionsValues), &made));
    *library = (CUlibrary)made;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *fileName, CUjit_option *jitOptions,
                                         void **jitOptionsValues, unsigned int numJitOptions,
                                         CUlibraryOption *libraryOptions, void **libraryOptionValues,
                                         unsigned int numLibraryOptions)
{
    GV_ENTER();
    if (fileName == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    char *data;
    size_t bytes;
    GV_TRY(gv_read_file(fileName, &data, &bytes));
    const CUresult result = cuLibraryLoadData(library, data, jitOptions, jitOptionsValues, numJitOptions,
                                              libraryOptions, libraryOptionValues, numLibraryOptions);
    free(data);
    return result;
}

CUresult gv_library_instance(struct gv_library *library, struct gv_context *context, struct gv_instance **instance)
{
    for (struct gv_instance *i = atomic_load_explicit(&library->instances, memory_order_acquire); i != NULL;
         i = i->next_of_library)
        if (i->context == context) {
            *instance = i;
            return CUDA_SUCCESS;
        }
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&library->lock);
    struct gv_instance *found = atomic_load(&library->instances);
    while (found != NULL && found->context != context)
        found = found->next_of_library;
    if (found == NULL) {
        result = gv_instance_create(context, library->code, library, library->register_limit, &found);
        if (result == CUDA_SUCCESS) {
            found->next_of_library = atomic_load(&library->instances);
            /* release: a reader without the lock sees the instance complete */
            atomic_store_explicit(&library->instances, found, memory_order_release);
        }
    }
    pthread_mutex_unlock(&library->lock);
    *instance = found;
    return result;
}

void gv_library_forget(struct gv_library *library, struct gv_instance *instance)
{
    pthread_mutex_lock(&library->lock);
    struct gv_instance *first = atomic_load(&library->instances);
    if (first == instance) {
        atomic_store(&library->instances, instance->next_of_library);
    } else {
        while (first != NULL && first->next_of_library != instance)
            first = first->next_of_library;
        if (first != NULL)
            first->next_of_library = instance->next_of_library;
    }
    pthread_mutex_unlock(&library->lock);
}

GV_EXPORT CUresult cuLibraryUnload(CUlibrary handle)
{
    GV_ENTER();
    struct gv_library *library = library_of(handle);
    if (library == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    for (struct gv_instance *i; (i = atomic_load(&library->instances)) != NULL;) {
        gv_streams_wait(i->context);
        gv_library_forget(library, i);
        gv_instance_destroy(i);
    }
    free_library(library);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryGetKernel(CUkernel *pKernel, CUlibrary handle, const char *name)
{
    GV_ENTER();
    const struct gv_library *library = library_of(handle);
    if (library == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (pKernel == NULL || name == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const int number = gv_kernel_number(library->code->module, name);
    if (number < 0)
        return CUDA_ERROR_NOT_FOUND;
    *pKernel = (CUkernel)library->kernels[number];
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryGetKernelCount(unsigned int *count, CUlibrary handle)
{
    GV_ENTER();
    const struct gv_library *library = library_of(handle);
    if (library == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *count = library->code->module->kernel_count;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned int numKernels, CUlibrary handle)
{
    GV_ENTER();
    const struct gv_library *library = library_of(handle);
    if (library == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (kernels == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (unsigned i = 0; i < numKernels; i++)
        kernels[i] = i < library->code->module->kernel_count ? (CUkernel)library->kernels[i] : NULL;
    return CUDA_SUCCESS;
}

static CUresult current_instance(struct gv_library *library, struct gv_instance **instance)
{
    GV_NEED_CONTEXT(context);
    return library == NULL ? CUDA_ERROR_INVALID_HANDLE : gv_library_instance(library, context, instance);
}

GV_EXPORT CUresult cuLibraryGetModule(CUmodule *pMod, CUlibrary handle)
{
    GV_ENTER();
    struct gv_instance *instance;
    GV_TRY(current_instance(library_of(handle), &instance));
    if (pMod == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pMod = (CUmodule)instance;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLibraryGetGlobal(CUdeviceptr *dptr, size_t *bytes, CUlibrary handle, const char *name)
{
    GV_ENTER();
    struct gv_instance *instance;
    GV_TRY(current_instance(library_of(handle), &instance));
    if (name == NULL || (dptr == NULL && bytes == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    return gv_variable_of(instance, name, dptr, bytes);
}

GV_EXPORT CUresult cuLibraryGetManaged(CUdeviceptr *dptr, size_t *bytes, CUlibrary handle, const char *name)
{
    (void)dptr, (void)bytes,
        (void)name; /* PTX has no managed variables for us: .attribute(.managed) is plain .global */
    GV_ENTER();
    return library_of(handle) == NULL ? CUDA_ERROR_INVALID_HANDLE : CUDA_ERROR_NOT_FOUND;
}

GV_EXPORT CUresult cuKernelGetFunction(CUfunction *pFunc, CUkernel kernel)
{
    GV_ENTER();
    const struct gv_function *function = kernel_of(kernel);
    struct gv_instance *instance;
    GV_TRY(current_instance(function == NULL ? NULL : function->library, &instance));
    if (pFunc == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pFunc = (CUfunction)instance->functions[function->number];
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuKernelGetLibrary(CUlibrary *pLib, CUkernel kernel)
{
    GV_ENTER();
    const struct gv_function *function = kernel_of(kernel);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (pLib == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pLib = (CUlibrary)function->library;
    return CUDA_SUCCESS;
}
