/* SPDX-License-Identifier: Apache-2.0
 *
 * A library with a run path of its own that leads to a driver: find() gives the cuMemAlloc_v2 that it gets as libcuda.so.1.
 */
#include <dlfcn.h>
#include <stddef.h>

void *find(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    return library == NULL ? NULL : dlsym(library, "cuMemAlloc_v2");
}
