/* SPDX-License-Identifier: Apache-2.0
 *
 * Code and its instances.
 *
 *     gv_code      a compiled module (code.c, jit.c): one per PTX and process, shared by all that load it
 *     gv_instance  behind CUmodule: code in a context, with its own variables
 *     gv_library   behind CUlibrary: code that gets an instance in each context in which it is used
 *     gv_function  behind CUfunction (of an instance) and CUkernel (of a library)
 *
 * (gv_module and gv_kernel are the translated code's own tables: kernel_abi.h.)
 */
#ifndef GPUVIRT_SOFTGPU_MODULE_H
#define GPUVIRT_SOFTGPU_MODULE_H

#include "context.h"
#include "kernel_abi.h"

struct gv_code {
    char key[65];                   /* names the file in the cache */
    void *object;                   /* of dlopen */
    const struct gv_module *module; /* its table */
    uint32_t references;            /* under the lock of code.c */
    struct gv_code *next;
};

struct gv_function {
    struct gv_object object; /* GV_FUNCTION or GV_KERNEL */
    const struct gv_kernel *kernel;
    const struct gv_module *module;
    uint32_t number;              /* in the module's table */
    struct gv_instance *instance; /* of a GV_FUNCTION, else NULL */
    struct gv_library *library;   /* of a GV_KERNEL, or of an instance that a library made, else NULL */
    int dynamic_shared_max;       /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
    uint32_t register_limit;      /* CU_JIT_MAX_REGISTERS of the load or link; 0: none */
    int carveout;                 /* a hint: kept, not used */
    uint32_t block[3];            /* cuFuncSetBlockShape */
    _Atomic uint64_t block_ns;    /* what the first block of its latest launch took; a hint for the next */
};

struct gv_instance {
    struct gv_object object; /* GV_MODULE */
    struct gv_context *context;
    struct gv_code *code;
    struct gv_library *library; /* NULL when loaded by cuModule* */
    uint32_t register_limit;
    CUdeviceptr memory; /* of all its variables; 0: none */
    void **globals;     /* where each is: gv_block.globals */
    struct gv_function **functions;
    struct gv_instance *next;            /* context->instances */
    struct gv_instance *next_of_library; /* library->instances */
};

struct gv_library {
    struct gv_object object;
    struct gv_code *code;
    struct gv_function **kernels;
    uint32_t register_limit;
    _Atomic(struct gv_instance *) instances; /* only grows while loaded; under `lock` for writers */
    pthread_mutex_t lock;
};

/* What the caller of a load or link gets to read. */
struct gv_jit_log {
    char error[2048];
    char info[256];
};
/* Copies the logs to where the options say, and writes their lengths back. */
void gv_jit_report(const struct gv_jit_log *log, unsigned count, CUjit_option *options, void **values);

/* CU_JIT_MAX_REGISTERS of a load, or of the link that made the image; 0: none. Bounds what is reported: our registers are
 * an estimate, and spilling costs nothing here. */
uint32_t gv_register_limit(const void *image, unsigned count, const CUjit_option *options, void *const *values);

/* PTX text, or what cuLinkComplete made. */
CUresult gv_code_load(const void *image, struct gv_jit_log *log, struct gv_code **code);
void gv_code_release(struct gv_code *code);

/* fatbin.c: the PTX in a fat binary, to be freed by the caller. */
bool gv_is_fatbin(const void *image);
CUresult gv_fatbin_text(const void *image, char **text, struct gv_jit_log *log);

/* jit.c: translates and compiles the texts unless the cache has them, and opens the result. */
CUresult gv_jit_open(const char *const *texts, size_t count, struct gv_jit_log *log, char key[65], void **object);

/* Several PTX texts as one image: what the linker hands out as "cubin". */
#define GV_LINKED_MAGIC "GVPTX01"
/* One of the texts, where a program linked libcudadevrt: the translator puts its own implementation in its place. */
#define GV_DEVICE_RUNTIME "//gpuvirt device runtime"
struct gv_linked {
    char magic[8];
    uint64_t bytes;          /* of the whole image */
    uint64_t register_limit; /* CU_JIT_MAX_REGISTERS; 0: none */
    uint64_t count;          /* texts follow, each ended by NUL */
};

CUresult gv_instance_create(struct gv_context *context, struct gv_code *code, struct gv_library *library,
                            uint32_t register_limit, struct gv_instance **instance);
void gv_instance_destroy(struct gv_instance *instance);
void gv_instances_close(struct gv_context *context);
/* The library's instance in a context, made at first use. */
CUresult gv_library_instance(struct gv_library *library, struct gv_context *context, struct gv_instance **instance);
/* A library's module ends with its context. */
void gv_library_forget(struct gv_library *library, struct gv_instance *instance);

struct gv_function *gv_function_new(enum gv_kind kind, const struct gv_module *module, uint32_t number,
                                    uint32_t register_limit);
/* The profile that questions about a function mean: of its module's device, else of the calling thread's context. */
const struct gv_profile *gv_function_profile(const struct gv_function *function);
/* A CUfunction, or a CUkernel cast to one. NULL: neither. */
struct gv_function *gv_function_of(CUfunction handle);
CUresult gv_function_instance(struct gv_function *function, struct gv_context *context, struct gv_instance **instance);
CUresult gv_variable_of(const struct gv_instance *instance, const char *name, CUdeviceptr *address, size_t *bytes);
int gv_kernel_number(const struct gv_module *module, const char *name); /* -1: none */
/* Reads a file to memory, NUL added. */
CUresult gv_read_file(const char *path, char **data, size_t *bytes);

#endif
