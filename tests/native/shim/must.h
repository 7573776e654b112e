/* SPDX-License-Identifier: Apache-2.0
 *
 * For programs that run under the shim: a call that fails ends them, with a line that names it and exit code 3.
 */
#ifndef GPUVIRT_TESTS_MUST_H
#define GPUVIRT_TESTS_MUST_H

#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>

static inline void must(CUresult result, const char *call, int line)
{
    const char *name = "?";
    if (result == CUDA_SUCCESS)
        return;
    cuGetErrorName(result, &name);
    printf("error: line %d: %s: %s\n", line, call, name);
    fflush(stdout);
    _Exit(3);
}
#define OK(call) must(call, #call, __LINE__)

#endif
