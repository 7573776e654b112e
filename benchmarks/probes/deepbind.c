/* SPDX-License-Identifier: Apache-2.0
 *
 * Two programs in one file, for one question: do a driver's own calls come back to a preloaded library that has its SONAME?
 *
 * -DPRELOADED: the preloaded library. Exports some entry points of the driver; each counts and hands on to the real one.
 * -DPROGRAM:   deepbind DRIVER deepbind|plain: opens DRIVER as the shim does, initialises it twice, makes a context, and
 *              prints how many calls came to the preloaded library: {"cuInit": [0, 0], ..., "calls_back": {"cuInit": 0, ...}}
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNTED(CALL)                                                                                                  \
    CALL(cuInit, (unsigned flags), (flags))                                                                            \
    CALL(cuDriverGetVersion, (int *version), (version))                                                                \
    CALL(cuDeviceGet, (int *device, int ordinal), (device, ordinal))                                                   \
    CALL(cuDeviceGetCount, (int *count), (count))                                                                      \
    CALL(cuDevicePrimaryCtxRetain, (void **context, int device), (context, device))                                    \
    CALL(cuDevicePrimaryCtxRelease_v2, (int device), (device))                                                         \
    CALL(cuCtxSetCurrent, (void *context), (context))                                                                  \
    CALL(cuCtxSynchronize, (void), ())                                                                                 \
    CALL(cuMemAlloc_v2, (unsigned long long *address, size_t bytes), (address, bytes))                                 \
    CALL(cuMemFree_v2, (unsigned long long address), (address))                                                        \
    CALL(cuGetExportTable, (const void **table, const void *id), (table, id))                                          \
    CALL(cuGetProcAddress_v2, (const char *name, void **pointer, int version, unsigned long long flags, int *status),  \
         (name, pointer, version, flags, status))

#ifdef PRELOADED

void *counted_driver; /* set by the program: the handle of the real driver */
struct {
    const char *name;
    int calls;
} counted_calls[64];

static int came_back(const char *symbol)
{
    for (int i = 0; i < 64; i++) {
        if (counted_calls[i].name == NULL)
            counted_calls[i].name = symbol;
        if (strcmp(counted_calls[i].name, symbol) == 0)
            return ++counted_calls[i].calls;
    }
    return 0;
}

#define DEFINE(name, parameters, arguments)                                                                            \
    int name parameters                                                                                                \
    {                                                                                                                  \
        int(*real) parameters = NULL;                                                                                  \
        if (came_back(#name) > 100000 || counted_driver == NULL)                                                       \
            return 999;                                                                                                \
        *(void **)&real = dlsym(counted_driver, #name);                                                                \
        return real == NULL ? 999 : real arguments;                                                                    \
    }
COUNTED(DEFINE)

#else

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: deepbind DRIVER deepbind|plain\n");
        return 2;
    }
    const int deep = strcmp(argv[2], "deepbind") == 0 ? RTLD_DEEPBIND : 0;
    void *const driver = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | deep);
    if (driver == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 3;
    }
    struct {
        const char *name;
        int calls;
    } *const counted = dlsym(RTLD_DEFAULT, "counted_calls");
    void **const handle = dlsym(RTLD_DEFAULT, "counted_driver");
    if (counted == NULL || handle == NULL) {
        fprintf(stderr, "the counting library is not preloaded\n");
        return 3;
    }
    *handle = driver;
#define TAKE(name, parameters, arguments)                                                                              \
    int(*real_##name) parameters = NULL;                                                                               \
    *(void **)&real_##name = dlsym(driver, #name);                                                                     \
    if (real_##name == NULL) {                                                                                         \
        fprintf(stderr, "the driver has no " #name "\n");                                                              \
        return 3;                                                                                                      \
    }
    COUNTED(TAKE)
    int device = 0, number = 0;
    void *context = NULL, *pointer = NULL;
    unsigned long long memory = 0;
    const void *table = NULL;
    static const unsigned char nothing[16];
    const int first = real_cuInit(0), second = real_cuInit(0);
    const int count = real_cuDeviceGetCount(&number), get = real_cuDeviceGet(&device, 0);
    const int retain = real_cuDevicePrimaryCtxRetain(&context, device), set = real_cuCtxSetCurrent(context);
    const int alloc = real_cuMemAlloc_v2(&memory, 1 << 20);
    const int look_up = real_cuGetProcAddress_v2("cuInit", &pointer, 12000, 0, NULL);
    (void)real_cuGetExportTable(&table, nothing);
    int version = 0;
    (void)real_cuDriverGetVersion(&version);
    (void)real_cuMemFree_v2(memory);
    (void)real_cuCtxSynchronize();
    (void)real_cuDevicePrimaryCtxRelease_v2(device);
    printf("{\"cuInit\": [%d, %d], \"devices\": [%d, %d], \"context\": [%d, %d, %d], \"allocation\": %d, \"look_up\": "
           "%d, ",
           first, second, count, number, get, retain, set, alloc, look_up);
    printf("\"look_up_is_real\": %s, \"calls_back\": {", pointer == (void *)real_cuInit ? "true" : "false");
    for (int i = 0; i < 64 && counted[i].name != NULL; i++)
        printf("%s\"%s\": %d", i ? ", " : "", counted[i].name, counted[i].calls);
    printf("}}\n");
    return 0;
}

#endif
