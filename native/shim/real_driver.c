/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* dl_iterate_phdr */
#include "real_driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <string.h>

#include "environment.h"
#include "log.h"
#include "symbols.h"

static CUresult not_yet(void) { return CUDA_ERROR_NOT_INITIALIZED; }
static CUresult absent(void) { return CUDA_ERROR_NOT_FOUND; } /* an older driver has no such function */
static CUresult no_driver(void) { return CUDA_ERROR_NO_DEVICE; }

/*
 * Where a call goes that came through a slot's opening stub. Until the driver is open all entries are `not_yet`: a driver
 * which calls or looks up cu* names while it is loaded gets an answer instead of a deadlock (nvshare#27).
 */
void *gv_resolved[GV_SYMBOL_COUNT]
    __attribute__((visibility("hidden"))) = {[0 ... GV_SYMBOL_COUNT - 1] = (void *)not_yet};

/*
 * No lock of ours: each thread that comes too early opens the driver for itself, and the loader's own lock puts them in order.
 * So nobody waits for us who holds that lock (a constructor of the program's that calls CUDA), and a fork at this moment
 * leaves nothing locked. All find the same library and write the same addresses.
 */
static int opened; /* released when the tables are complete */
static __thread int
    must_not_wait;               /* a thread that opens, or one of the driver's that such a thread may be waiting for */
static const char *opening_path; /* released before the file's constructors run */

static const char *const well_known[] = {
#ifdef __x86_64__
    "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
#else
    "/usr/lib/aarch64-linux-gnu/libcuda.so.1",
#endif
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
    __atomic_store_n(&opening_path, path, __ATOMIC_RELEASE);
    const int saved = errno;
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL | deep);
    errno = saved; /* whatever the loader tried first: the program's call keeps it */
    if (handle == NULL || dlsym(handle, "cuGetProcAddress_v2") != (void *)cuGetProcAddress_v2)
        return handle;
    /* The shim itself, put in the driver's place: each call would come back for ever. */
    dlclose(handle);
    gv_debug("%s is gpuvirt's shim and not a driver", path);
    return NULL;
}

static const char *reason(void)
{
    const char *const error = dlerror();
    return error != NULL ? error : "it is gpuvirt's shim and not a driver";
}

static int first_to_say(void)
{
    static int said;
    return !__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED);
}

static void *find_driver(void)
{
    const char *const given = gv_environment()->driver;
    if (given[0] != '\0') {
        void *handle = open_file(given);
        if (handle == NULL && first_to_say())
            gv_log("cannot load the CUDA driver %s (GPUVIRT_DRIVER): %s", given, reason());
        return handle;
    }
    for (size_t i = 0; i < sizeof well_known / sizeof well_known[0]; i++) {
        void *handle = open_file(well_known[i]);
        if (handle != NULL)
            return handle;
    }
    if (first_to_say())
        gv_log("no CUDA driver found (libcuda.so.1); start the program with `gpuvirt run`, or set GPUVIRT_DRIVER to "
               "its path");
    return NULL;
}

static void fill_tables(void *handle)
{
    for (int i = 0; i < GV_SYMBOL_COUNT; i++) {
        void *function = handle == NULL ? (void *)no_driver : dlsym(handle, gv_symbols[i].name);
        __atomic_store_n(&gv_resolved[i], function == NULL ? (void *)absent : function, __ATOMIC_RELEASE);
    }
    /* Each slot goes from its stub to the function in one store: another thread jumps to either, and both are right. */
    for (int i = 0; i < GV_SYMBOL_COUNT; i++)
        __atomic_store_n(&gv_real[i], gv_resolved[i], __ATOMIC_RELEASE);
}

struct whose {
    uintptr_t address;
    const char *file;
    int found;
};

static int look_at(struct dl_phdr_info *object, size_t size, void *argument)
{
    struct whose *const whose = argument;
    (void)size;
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *const segment = &object->dlpi_phdr[i];
        const uintptr_t start = object->dlpi_addr + segment->p_vaddr;
        if (segment->p_type != PT_LOAD || whose->address < start || whose->address >= start + segment->p_memsz)
            continue;
        whose->found = strcmp(object->dlpi_name, whose->file) == 0;
        return 1;
    }
    return 0;
}

/*
 * Does a thread of the driver call, which its constructor has started and may be waiting for? dladdr and dlopen would wait
 * for the loader's lock, which the opening thread holds; dl_iterate_phdr does not.
 */
static int called_by_driver(const void *caller)
{
    struct whose whose = {(uintptr_t)caller, __atomic_load_n(&opening_path, __ATOMIC_ACQUIRE), 0};
    if (whose.file == NULL)
        return 0; /* nobody opens anything */
    dl_iterate_phdr(look_at, &whose);
    return whose.found;
}

__attribute__((visibility("hidden"))) void gv_open_driver(const void *caller)
{
    if (__atomic_load_n(&opened, __ATOMIC_ACQUIRE) || must_not_wait || (must_not_wait = called_by_driver(caller)))
        return;
    must_not_wait = 1;
    void *handle = find_driver();
    if (!__atomic_load_n(&opened, __ATOMIC_ACQUIRE))
        fill_tables(handle);
    __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);
    must_not_wait = 0;
}
