/* SPDX-License-Identifier: Apache-2.0 */
#include "library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#include "environment.h"
#include "log.h"

/*
 * Where a call goes that came through a slot's opening stub (real_driver_x86_64.S). While the library opens, its own calls on
 * this thread find `not_yet` here and not a deadlock.
 */
void *gv_resolved[GV_SYMBOL_COUNT] __attribute__((visibility("hidden")));
void gv_open_driver(void) __attribute__((visibility("hidden")));

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static __thread int this_thread_opens;
static int opened;   /* written under `opening`; read with acquire: then the tables are complete */
static void *handle; /* written before `opened` */
static int fork_handler_set;

static nvmlReturn_t not_yet(void) { return NVML_ERROR_UNINITIALIZED; }
static nvmlReturn_t absent(void) { return NVML_ERROR_FUNCTION_NOT_FOUND; } /* an older library has no such function */
static nvmlReturn_t no_library(void) { return NVML_ERROR_LIBRARY_NOT_FOUND; }

static const char *const names[GV_SYMBOL_COUNT] = {
#define GV_SYMBOL(index, symbol) [index] = #symbol,
#include "nvml_entry_points.inc"
#undef GV_SYMBOL
};

static const char *const well_known[] = {
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1",
    "/usr/lib64/libnvidia-ml.so.1",
    "/usr/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib/libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
};

/* RTLD_DEEPBIND: the library's own calls to nvml* must reach itself and not us, although we were there first. */
static void *open_file(const char *path)
{
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | (gv_environment()->no_deepbind ? 0 : RTLD_DEEPBIND));
}

/* Without a word when there is none: most programs only look whether there is an NVML. */
static void *find_library(void)
{
    const char *const given = gv_environment()->nvml;
    if (given[0] != '\0') {
        void *const found = open_file(given);
        if (found == NULL)
            gv_log("cannot load NVML %s (GPUVIRT_NVML): %s", given, dlerror());
        return found;
    }
    for (size_t i = 0; i < sizeof well_known / sizeof well_known[0]; i++) {
        void *const found = open_file(well_known[i]);
        if (found != NULL)
            return found;
    }
    return NULL;
}

static void fill_tables(void)
{
    for (int i = 0; i < GV_SYMBOL_COUNT; i++) {
        void *function = handle == NULL ? (void *)no_library : dlsym(handle, names[i]);
        gv_resolved[i] = function == NULL ? (void *)absent : function;
    }
    /* Each slot goes from its stub to the function in one store: another thread jumps to either, and both are right. */
    for (int i = 0; i < GV_SYMBOL_COUNT; i++)
        __atomic_store_n(&gv_real[i], gv_resolved[i], __ATOMIC_RELEASE);
}

static void forget_in_child(void)
{
    pthread_mutex_init(&opening, NULL);
    this_thread_opens = 0;
    gv_usage_forget();
}

void gv_open_driver(void)
{
    if (__atomic_load_n(&opened, __ATOMIC_ACQUIRE) || this_thread_opens)
        return;
    pthread_mutex_lock(&opening);
    if (!opened) {
        this_thread_opens = 1;
        if (!fork_handler_set && pthread_atfork(NULL, NULL, forget_in_child) == 0)
            fork_handler_set = 1;
        for (int i = 0; i < GV_SYMBOL_COUNT; i++)
            gv_resolved[i] = (void *)not_yet;
        handle = find_library();
        fill_tables();
        this_thread_opens = 0;
        __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&opening);
}

GV_EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    gv_open_driver();
    if (handle != NULL && gv_real[GV_INDEX_nvmlErrorString] != (void *)absent)
        return GV_NVML(nvmlErrorString)(result);
    return result == NVML_ERROR_LIBRARY_NOT_FOUND ? "NVML Shared Library Not Found" : "Unknown Error";
}
