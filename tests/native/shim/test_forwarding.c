/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_forwarding SHIM DRIVER. Forwarders keep every argument (integer, float, stack) also at the very first call,
 * which opens the driver; a driver that calls back while it is loaded does not hang; missing functions say so; substituted
 * pointers are the shim's and forwarded ones the driver's; all threads may be first.
 */
#define __CUDA_API_VERSION_INTERNAL
#include <cuda.h>
#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#include "check.h"

static void *shim, *driver;

static void *symbol(void *library, const char *name)
{
    void *found = dlsym(library, name);
    if (found == NULL)
        fprintf(stderr, "%s is not exported\n", name);
    CHECK(found != NULL);
    return found;
}
#define SHIM(name) ((__typeof__(&name))symbol(shim, #name))

static void *first_call(void *unused)
{
    (void)unused;
    CHECK_EQUAL(SHIM(cuParamSetf)((CUfunction)0x1234, 7, 2.5f), CUDA_SUCCESS);
    return NULL;
}

int main(int argc, char **argv)
{
    CHECK_EQUAL(argc, 3);
    CHECK_EQUAL(setenv("GPUVIRT_DRIVER", argv[2], 1), 0);
    shim = dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL);
    CHECK(shim != NULL);

    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        CHECK_EQUAL(pthread_create(&threads[i], NULL, first_call, NULL), 0);
    for (int i = 0; i < 8; i++)
        CHECK_EQUAL(pthread_join(threads[i], NULL), 0);
    driver = dlopen(argv[2], RTLD_NOW | RTLD_NOLOAD); /* the very library that the shim opened */
    CHECK(driver != NULL);
    const long long *const arguments = symbol(driver, "recorded_arguments");
    CHECK_EQUAL(arguments[0], 0x1234);
    CHECK_EQUAL(arguments[1], 7);
    CHECK(*(float *)symbol(driver, "recorded_float") == 2.5f);
    CHECK_EQUAL(*(int *)symbol(driver, "recorded_inits"), 0); /* the call while loading got NOT_INITIALIZED */

    CHECK_EQUAL(SHIM(cuOccupancyMaxPotentialBlockSizeWithFlags)((int *)1, (int *)2, (CUfunction)3,
                                                                (CUoccupancyB2DSize)4, 5, 6, 7),
                CUDA_ERROR_ALREADY_MAPPED);
    for (int i = 0; i < 7; i++)
        CHECK_EQUAL(arguments[i], i + 1);

    CHECK_EQUAL(SHIM(cuGraphCreate)(NULL, 0), CUDA_ERROR_NOT_FOUND); /* this driver has none */
    CHECK_EQUAL(SHIM(cuInit)(0), CUDA_SUCCESS);
    CHECK_EQUAL(*(int *)symbol(driver, "recorded_inits"), 1);

    void *found = NULL;
    CUdriverProcAddressQueryResult status = (CUdriverProcAddressQueryResult)77;
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("cuInit", &found, 12000, 0, &status), CUDA_SUCCESS);
    CHECK(found == symbol(driver, "cuInit") && status == CU_GET_PROC_ADDRESS_SUCCESS); /* forwarded: the driver's own */
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("cuMemcpy2DUnaligned", &found, 12000, 0, NULL), CUDA_SUCCESS);
    CHECK(found == symbol(shim, "cuMemcpy2DUnaligned_v2")); /* gated: ours, of that version */
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("cuMemcpy2DUnaligned", &found, 12000, 2, NULL), CUDA_SUCCESS);
    CHECK(found == symbol(shim, "cuMemcpy2DUnaligned_v2_ptds"));
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("cuNoSuchThing", &found, 12000, 0, &status), CUDA_SUCCESS);
    CHECK(found == NULL && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("", &found, 0, 0, NULL), CUDA_SUCCESS); /* libcudart's first question */
    CHECK_EQUAL(SHIM(cuGetProcAddress_v2)("cuInit", &found, 99000, 0, NULL), CUDA_ERROR_INVALID_VALUE);

    /* Not started by gpuvirt: a gated call is refused with a reason on stderr, it does not hang and does not reach the GPU. */
    unsetenv("GPUVIRT_JOB");
    CHECK(SHIM(cuMemcpy2DUnaligned_v2)(NULL) != CUDA_SUCCESS);
    CHECK_EQUAL(*(int *)symbol(driver, "recorded_launches"), 0);
    return 0;
}
