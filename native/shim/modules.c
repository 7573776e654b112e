/* SPDX-License-Identifier: Apache-2.0
 *
 * Code and its global variables are device memory of the driver's: not charged, not moved, and of a size that is known only
 * afterwards. Where the driver has no memory for them because other jobs' memory fills the device, that is made to give way.
 */
#include <string.h>

#include "real_driver.h"
#include "room.h"

#define ROOM_FIRST ((uint64_t)4 << 20)
#define ROOM_MOST ((uint64_t)4 << 30)
enum { ROOM_FACTOR = 4, OPTIONS_MAX = 64 };

/*
 * `call`; while the driver lacks memory, again with more and more room. The room is the job's while the driver takes what it
 * needs of it, and is given back then: the daemon sees what the driver has taken (devices' reserve).
 */
#define WITH_ROOM(call)                                                                                                \
    ({                                                                                                                 \
        CUresult gv_loaded = (call);                                                                                   \
        for (uint64_t gv_room = ROOM_FIRST; gv_loaded == CUDA_ERROR_OUT_OF_MEMORY && gv_room <= ROOM_MOST;             \
             gv_room *= ROOM_FACTOR) {                                                                                 \
            if (gv_room_take(gv_room) != CUDA_SUCCESS)                                                                 \
                break;                                                                                                 \
            gv_loaded = (call);                                                                                        \
            gv_room_give(gv_room);                                                                                     \
        }                                                                                                              \
        gv_loaded;                                                                                                     \
    })

GV_EXPORT CUresult cuModuleLoad(CUmodule *module, const char *fname)
{
    return WITH_ROOM(REAL(cuModuleLoad)(module, fname));
}

GV_EXPORT CUresult cuModuleLoadData(CUmodule *module, const void *image)
{
    return WITH_ROOM(REAL(cuModuleLoadData)(module, image));
}

GV_EXPORT CUresult cuModuleLoadFatBinary(CUmodule *module, const void *fatCubin)
{
    return WITH_ROOM(REAL(cuModuleLoadFatBinary)(module, fatCubin));
}

/* The driver writes sizes of its logs over the sizes of the buffers: another try begins with what the program gave. */
struct options {
    void *values[OPTIONS_MAX];
    unsigned int count;
};

static struct options options_of(unsigned int count, void **values)
{
    struct options kept = {.count = values == NULL || count > OPTIONS_MAX ? 0 : count};
    memcpy(kept.values, values, kept.count * sizeof *values);
    return kept;
}

static void restore(const struct options *kept, void **values)
{
    if (kept->count != 0)
        memcpy(values, kept->values, kept->count * sizeof *values);
}

GV_EXPORT CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int numOptions,
                                      CUjit_option *options, void **optionValues)
{
    const struct options kept = options_of(numOptions, optionValues);
    return WITH_ROOM(
        (restore(&kept, optionValues), REAL(cuModuleLoadDataEx)(module, image, numOptions, options, optionValues)));
}

#define LIBRARY(symbol, source)                                                                                        \
    GV_EXPORT CUresult symbol(CUlibrary *library, source, CUjit_option *jitOptions, void **jitOptionsValues,           \
                              unsigned int numJitOptions, CUlibraryOption *libraryOptions, void **libraryOptionValues, \
                              unsigned int numLibraryOptions)                                                          \
    {                                                                                                                  \
        const struct options kept = options_of(numJitOptions, jitOptionsValues);                                       \
        return WITH_ROOM((restore(&kept, jitOptionsValues),                                                            \
                          REAL(symbol)(library, from, jitOptions, jitOptionsValues, numJitOptions, libraryOptions,     \
                                       libraryOptionValues, numLibraryOptions)));                                      \
    }
LIBRARY(cuLibraryLoadData, const void *from)
LIBRARY(cuLibraryLoadFromFile, const char *from)
