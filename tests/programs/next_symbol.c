/* SPDX-License-Identifier: Apache-2.0
 *
 * A library that a user preloads before the shim, with a wrapper of his own round cuInit. With -DPROGRAM: the program.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

#ifndef PROGRAM
int cuInit(unsigned int flags)
{
    Dl_info info;
    int (*next)(unsigned int) = (int (*)(unsigned int))dlsym(RTLD_NEXT, "cuInit");
    if (next == NULL || !dladdr((void *)next, &info)) {
        printf("next nobody\n");
        return 1;
    }
    printf("next %s\n", info.dli_fname);
    return next(flags);
}
#else
int main(void)
{
    int (*init)(unsigned int) = (int (*)(unsigned int))dlsym(RTLD_DEFAULT, "cuInit");
    printf("init %d\n", init == NULL ? -1 : init(0));
    return 0;
}
#endif
