/* SPDX-License-Identifier: Apache-2.0
 *
 * Looks driver functions up through both versions of dlsym that programs of today are linked with (before and since glibc
 * 2.34), and prints whose they are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

#if defined(__x86_64__)
void *older(void *handle, const char *name);
void *newer(void *handle, const char *name);
__asm__(".symver older, dlsym@GLIBC_2.2.5");
__asm__(".symver newer, dlsym@GLIBC_2.34");
#else
#define older dlsym
#define newer dlsym
#endif

static void say(const char *how, void *function)
{
    Dl_info info;
    if (function == NULL || !dladdr(function, &info))
        printf("%s nobody -\n", how);
    else
        printf("%s %s %s\n", how, info.dli_fname, info.dli_sname);
}

int main(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    say("older", older(library, "cuMemAlloc_v2"));
    say("newer", newer(library, "cuMemAlloc_v2"));
    say("older-default", older(RTLD_DEFAULT, "cuMemAlloc_v2"));
    say("newer-default", newer(RTLD_DEFAULT, "cuMemAlloc_v2"));
    return 0;
}
