/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the JIT finds its tools and keeps its cache. Looked up once per process.
 */
#ifndef GPUVIRT_SOFTGPU_JIT_PLACES_H
#define GPUVIRT_SOFTGPU_JIT_PLACES_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

struct gv_jit_places {
    char python[PATH_MAX];     /* GPUVIRT_SOFTGPU_PYTHON, else python3 */
    char translator[PATH_MAX]; /* .../__main__.py: GPUVIRT_SOFTGPU_TRANSLATOR, beside the library, or the source tree */
    char include[PATH_MAX];    /* folder of kernel_runtime.h */
    char compiler[PATH_MAX];   /* GPUVIRT_SOFTGPU_CC, else cc */
    char cache[PATH_MAX];      /* GPUVIRT_SOFTGPU_CACHE, else ~/.cache/gpuvirt/softgpu; mode 0700, ours */
    char identity[65 + 128];   /* of translator, headers and compiler: part of each key */
    bool keep;                 /* GPUVIRT_SOFTGPU_KEEP: leave PTX and C beside the result */
};

/* NULL and a message (also on the log, once) when something is missing. */
const struct gv_jit_places *gv_jit_find_places(char *error, size_t room);

#endif
