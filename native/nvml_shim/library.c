/* SPDX-License-Identifier: Apache-2.0 */
#include "library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>

#include "environment.h"
#include "log.h"

void gv_open_driver(void) __attribute__((visibility("hidden")));

/*
 * No lock of ours, as for the driver (shim/real_driver.c): each thread that comes too early opens the library for itself, and
 * the loader's own lock puts them in order. So nobody waits for us who holds that lock (a constructor that calls NVML).
 */
static __thread int this_thread_opens;
static int opened; /* released when the tables are complete */
static int fork_handler_set;

static nvmlReturn_t not_yet(void) { return NVML_ERROR_UNINITIALIZED; }
static nvmlReturn_t absent(void) { return NVML_ERROR_FUNCTION_NOT_FOUND; } /* an older library has no such function */
static nvmlReturn_t no_library(void) { return NVML_ERROR_LIBRARY_NOT_FOUND; }

/*
 * Where a call goes that came through a slot's opening stub (real_driver_x86_64.S). While the library opens, its own calls on
 * this thread find `not_yet` here and not a deadlock.
 */
void *gv_resolved[GV_SYMBOL_COUNT]
    __attribute__((visibility("hidden"))) = {[0 ... GV_SYMBOL_COUNT - 1] = (void *)not_yet};

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
        static int said;
        if (found == NULL && !__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED))
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

static void fill_tables(void *handle)
{
    for (int i = 0; i < GV_SYMBOL_COUNT; i++) {
        void *function = handle == NULL ? (void *)no_library : dlsym(handle, names[i]);
        __atomic_store_n(&gv_resolved[i], function == NULL ? (void *)absent : function, __ATOMIC_RELEASE);
    }
    /* Each slot goes from its stub to the function in one store: another thread jumps to either, and both are right. */
    for (int i = 0; i < GV_SYMBOL_COUNT; i++)
        __atomic_store_n(&gv_real[i], gv_resolved[i], __ATOMIC_RELEASE);
}

void gv_open_driver(void)
{
    if (__atomic_load_n(&opened, __ATOMIC_ACQUIRE) || this_thread_opens)
        return;
    this_thread_opens = 1;
    if (!__atomic_exchange_n(&fork_handler_set, 1, __ATOMIC_RELAXED) &&
        pthread_atfork(NULL, NULL, gv_usage_forget) != 0)
        __atomic_store_n(&fork_handler_set, 0, __ATOMIC_RELAXED);
    void *const handle = find_library();
    if (!__atomic_load_n(&opened, __ATOMIC_ACQUIRE))
        fill_tables(handle);
    __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);
    this_thread_opens = 0;
}

/* Whether a function of the library stands in the slot, and none of ours. */
static int has(int slot)
{
    void *const function = __atomic_load_n(&gv_resolved[slot], __ATOMIC_ACQUIRE);
    return function != (void *)not_yet && function != (void *)absent && function != (void *)no_library;
}

GV_EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    gv_open_driver();
    if (has(GV_INDEX_nvmlErrorString))
        return GV_NVML(nvmlErrorString)(result);
    return result == NVML_ERROR_LIBRARY_NOT_FOUND ? "NVML Shared Library Not Found" : "Unknown Error";
}
