/* SPDX-License-Identifier: Apache-2.0
 *
 *     doors [PLUGIN]
 *
 * Finds cuMemAlloc_v2 in every way that a program can, and prints for each a line: WAY FILE SYMBOL of the function found.
 * PLUGIN: a library (plugin.c) that finds libcuda.so.1 in its own way.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef int (*ask_v1)(const char *, void **, int, unsigned long long);
typedef int (*ask_v2)(const char *, void **, int, unsigned long long, int *);

static void say(const char *way, void *function)
{
    Dl_info info;
    char file[4096];
    if (function == NULL || !dladdr(function, &info) || realpath(info.dli_fname, file) == NULL)
        printf("%s nobody -\n", way);
    else
        printf("%s %s %s\n", way, file, info.dli_sname == NULL ? "-" : info.dli_sname);
}

static void ask(const char *way, void *library, int arguments)
{
    void *function = NULL, *found = dlsym(library, arguments == 4 ? "cuGetProcAddress" : "cuGetProcAddress_v2");
    int status = -1;
    if (found != NULL && arguments == 4)
        ((ask_v1)found)("cuMemAlloc", &function, 12000, 0);
    else if (found != NULL && (((ask_v2)found)("cuMemAlloc", &function, 12000, 0, &status) != 0 || status != 0))
        function = NULL;
    say(way, function);
}

int main(int argc, char **argv)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    say("soname", dlsym(library, "cuMemAlloc_v2"));
    say("default", dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"));
    ask("v1", library, 4);
    ask("v2", library, 5);
    void *other = dlopen("libcuda.so", RTLD_NOW);
    say("versionless", other == NULL ? NULL : dlsym(other, "cuMemAlloc_v2"));
    printf("one-copy %s -\n", other != NULL && dlsym(other, "cuInit") == dlsym(library, "cuInit") ? "yes" : "no");
    other = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    say("deepbind", other == NULL ? NULL : dlsym(other, "cuMemAlloc_v2"));
    other = dlmopen(LM_ID_NEWLM, "libcuda.so.1", RTLD_NOW);
    say("namespace", other == NULL ? NULL : dlsym(other, "cuMemAlloc_v2"));
    other = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    void *(*of_plugin)(void) = other == NULL ? NULL : (void *(*)(void))dlsym(other, "find");
    if (of_plugin != NULL)
        say("plugin", of_plugin());
    return 0;
}
