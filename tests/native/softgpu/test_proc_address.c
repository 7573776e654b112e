/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGetProcAddress: versions, variants, statuses; what is missing says so.
 */
#include <cuda.h>
#undef cuGetProcAddress
#undef cuMemAlloc
#include "../check.h"

#include <dlfcn.h>
#include <string.h>

static CUdriverProcAddressQueryResult status;

static void *ask(const char *name, int version, cuuint64_t flags)
{
    void *pointer = (void *)1;
    CHECK_EQUAL(cuGetProcAddress_v2(name, &pointer, version, flags, &status), CUDA_SUCCESS);
    CHECK((pointer != NULL) == (status == CU_GET_PROC_ADDRESS_SUCCESS));
    return pointer;
}

static void *symbol(const char *name)
{
    void *pointer = dlsym(RTLD_DEFAULT, name);
    CHECK(pointer != NULL);
    return pointer;
}

int main(void)
{
    int version;
    void *pointer = NULL;
    CHECK_EQUAL(cuDriverGetVersion(&version), CUDA_SUCCESS);
    CHECK_EQUAL(version, CUDA_VERSION);
    CHECK(ask("cuMemAlloc", 2000, 0) == symbol("cuMemAlloc"));
    CHECK(ask("cuMemAlloc", 3010, 0) == symbol("cuMemAlloc"));
    CHECK(ask("cuMemAlloc", 3020, 0) == symbol("cuMemAlloc_v2"));
    CHECK(ask("cuMemAlloc", version, 0) == symbol("cuMemAlloc_v2"));
    CHECK(ask("cuMemAlloc", version, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) == symbol("cuMemAlloc_v2"));
    CHECK(ask("cuLaunchKernel", version, 0) == symbol("cuLaunchKernel"));
    CHECK(ask("cuLaunchKernel", version, CU_GET_PROC_ADDRESS_LEGACY_STREAM) == symbol("cuLaunchKernel"));
    CHECK(ask("cuLaunchKernel", version, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) ==
          symbol("cuLaunchKernel_ptsz"));
    CHECK(ask("cuMemcpyHtoD", version, CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) ==
          symbol("cuMemcpyHtoD_v2_ptds"));
    CHECK(ask("cuCtxCreate", 13000, 0) == symbol("cuCtxCreate_v4"));
    CHECK(ask("cuGraphLaunch", version, 0) == symbol("cuGraphLaunch"));
    CHECK(ask("cuMemCreate", 10010, 0) == NULL);
    CHECK_EQUAL(status, CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT);
    CHECK(ask("cuNoSuchThing", version, 0) == NULL);
    CHECK_EQUAL(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    CHECK(ask("", version, 0) == NULL);
    CHECK_EQUAL(cuGetProcAddress_v2("cuInit", &pointer, version, 0, NULL), CUDA_SUCCESS);
    CHECK(pointer == symbol("cuInit"));
    CHECK_EQUAL(cuGetProcAddress_v2("cuInit", &pointer, version + 10, 0, &status), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(cuGetProcAddress_v2("cuInit", NULL, version, 0, &status), CUDA_ERROR_INVALID_VALUE);
    CHECK_EQUAL(cuGetProcAddress_v2("cuInit", &pointer, version, 64, &status), CUDA_ERROR_INVALID_VALUE);
    CUresult (*old)(const char *, void **, int, cuuint64_t) = symbol("cuGetProcAddress");
    CHECK_EQUAL(old("cuInit", &pointer, version, 0), CUDA_SUCCESS);
    CHECK(pointer == symbol("cuInit"));
    const void *table;
    CUuuid any;
    memset(&any, 1, sizeof any);
    CHECK_EQUAL(cuGetExportTable(&table, &any), CUDA_ERROR_NOT_FOUND);
    CHECK_EQUAL(cuGraphicsUnregisterResource(NULL), CUDA_ERROR_NOT_SUPPORTED); /* no display, no interop */
    const char *text;
    CHECK_EQUAL(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text), CUDA_SUCCESS);
    CHECK(strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
    CHECK_EQUAL(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text), CUDA_SUCCESS);
    CHECK(strcmp(text, "an illegal memory access was encountered") == 0);
    CHECK_EQUAL(cuGetErrorName((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
    CUdevice device;
    CHECK_EQUAL(cuDeviceGet(&device, 0), CUDA_ERROR_NOT_INITIALIZED);
    return 0;
}
