/* SPDX-License-Identifier: Apache-2.0 */
#include "real_driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "environment.h"
#include "log.h"

/*
 * Where a call goes that came through a slot's opening stub. Until the driver is open all entries are `not_yet`: a driver
 * which calls or looks up cu* names on the opening thread gets an answer instead of a deadlock (nvshare#27).
 */
void *gv_resolved[GV_SYMBOL_COUNT] __attribute__((visibility("hidden")));

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static __thread int this_thread_opens;
static int opened; /* written under `opening`; read with acquire: then the tables are complete */

static CUresult not_yet(void) { return CUDA_ERROR_NOT_INITIALIZED; }
static CUresult absent(void) { return CUDA_ERROR_NOT_FOUND; } /* an older driver has no such function */
static CUresult no_driver(void) { return CUDA_ERROR_NO_DEVICE; }

static const char *const names[GV_SYMBOL_COUNT] = {
#define GV_SYMBOL(index, symbol) [index] = #symbol,
#include "entry_points.inc"
#undef GV_SYMBOL
};

static const char *const well_known[] = {
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
    "/usr/lib64/libcuda.so.1",
    "/usr/lib/libcuda.so.1",
    "/usr/local/nvidia/lib64/libcuda.so.1",
    "/usr/local/nvidia/lib/libcuda.so.1",
    "/usr/lib/wsl/lib/libcuda.so.1",
};

/*
 * RTLD_DEEPBIND: the driver's own calls to cu* must reach itself and not us, although we were there first. It only works on
 * the first load of the file, and sanitizers refuse it (GPUVIRT_NO_DEEPBIND; the soft driver is linked -Bsymbolic anyway).
 */
static void *open_file(const char *path)
{
    const int deep = gv_environment()->no_deepbind ? 0 : RTLD_DEEPBIND;
    return dlopen(path, RTLD_NOW | RTLD_LOCAL | deep);
}

static void *find_driver(void)
{
    const char *const given = gv_environment()->driver;
    if (given[0] != '\0') {
        void *handle = open_file(given);
        if (handle == NULL)
            gv_log("cannot load the CUDA driver %s (GPUVIRT_DRIVER): %s", given, dlerror());
        return handle;
    }
    for (size_t i = 0; i < sizeof well_known / sizeof well_known[0]; i++) {
        void *handle = open_file(well_known[i]);
        if (handle != NULL)
            return handle;
    }
    gv_log(
        "no CUDA driver found (libcuda.so.1); start the program with `gpuvirt run`, or set GPUVIRT_DRIVER to its path");
    return NULL;
}

static void fill_tables(void *handle)
{
    for (int i = 0; i < GV_SYMBOL_COUNT; i++) {
        void *function = handle == NULL ? (void *)no_driver : dlsym(handle, names[i]);
        gv_resolved[i] = function == NULL ? (void *)absent : function;
    }
    /* Each slot goes from its stub to the function in one store: another thread jumps to either, and both are right. */
    for (int i = 0; i < GV_SYMBOL_COUNT; i++)
        __atomic_store_n(&gv_real[i], gv_resolved[i], __ATOMIC_RELEASE);
}

__attribute__((visibility("hidden"))) void gv_open_driver(void)
{
    if (__atomic_load_n(&opened, __ATOMIC_ACQUIRE) || this_thread_opens)
        return;
    pthread_mutex_lock(&opening);
    if (!opened) {
        this_thread_opens = 1;
        for (int i = 0; i < GV_SYMBOL_COUNT; i++)
            gv_resolved[i] = (void *)not_yet;
        fill_tables(find_driver());
        this_thread_opens = 0;
        __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&opening);
}
