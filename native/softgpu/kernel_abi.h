/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract between a translated kernel and the soft driver.
 *
 * The translator (gpuvirt/softgpu) turns one PTX module into one C file; the driver (jit.c) compiles it to a shared object
 * which exports the single symbol `gv_module`. The driver owns all memory named here; translated code only computes.
 * Bump GV_KERNEL_ABI on any change: it is part of the cache key of compiled modules.
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_ABI_H
#define GPUVIRT_SOFTGPU_KERNEL_ABI_H

#include <stdint.h>

#define GV_KERNEL_ABI 3u

struct gv_dim3 {
    uint32_t x, y, z;
};

/* How a block ended. */
enum gv_block_result {
    GV_BLOCK_DONE = 0,
    GV_BLOCK_TRAP = 1,   /* trap or brkpt: CUDA_ERROR_LAUNCH_FAILED */
    GV_BLOCK_ASSERT = 2, /* device assert: CUDA_ERROR_ASSERT */
    GV_BLOCK_DEADLOCK =
        3, /* some threads wait at a barrier that the others can never reach: CUDA_ERROR_LAUNCH_FAILED */
    GV_BLOCK_BAD_CALL = 4, /* indirect call of something that is no function: CUDA_ERROR_ILLEGAL_INSTRUCTION */
};

/* One thread block to run. Filled by a worker of the driver for each block. */
struct gv_block {
    const uint8_t *params; /* parameter buffer, laid out as the kernel's .param list (gv_kernel.params) */
    void *const *globals;  /* base address of each entry of gv_module.globals, same order */
    uint8_t *shared;       /* static shared memory first, dynamic behind it; aligned to 1024 bytes, content undefined */
    uint8_t *scratch; /* scratch_bytes(threads) bytes, aligned to 64, content undefined: thread states, .local memory */
    uint32_t dynamic_shared; /* bytes of dynamic shared memory */
    uint32_t smid;           /* %smid: number of the worker */
    struct gv_dim3 grid;     /* %nctaid */
    struct gv_dim3 block;    /* %ntid */
    struct gv_dim3 index;    /* %ctaid */
    uint32_t reserved;
    /* Device printf. `arguments` is the buffer that PTX passes to vprintf: values in order, each at its natural alignment. */
    int (*vprintf)(void *sink, const char *format, const void *arguments);
    /* Device assert; prints, and the block then returns GV_BLOCK_ASSERT. */
    void (*assert_fail)(void *sink, const char *message, const char *file, uint32_t line, const char *function);
    void *sink;
    /* Of a cooperative launch, else NULL: what %envreg1 and %envreg2 give. Zeroed before the launch. */
    struct gv_workspace *workspace;
    /* malloc and free of device code: device memory, NULL when there is none left. Never faults. */
    void *(*allocate)(void *heap, uint64_t bytes);
    void (*release)(void *heap, void *memory);
    void *heap;
};

/* Shared by the blocks of a cooperative launch. The first two are where CUDA's cooperative_groups.h expects them. */
struct gv_workspace {
    uint32_t bytes;   /* unused */
    uint32_t barrier; /* of the grid; written by the kernels */
    uint32_t stopped; /* a block has failed: nobody may wait for it any more; written by the driver */
    uint32_t reserved;
};

struct gv_parameter {
    uint32_t offset, size; /* bytes, in the parameter buffer */
};

struct gv_kernel {
    const char *name;                         /* as in .entry */
    int (*run)(const struct gv_block *block); /* enum gv_block_result */
    uint64_t (*scratch_bytes)(uint32_t threads);
    const struct gv_parameter *params;
    uint32_t param_count, param_bytes;
    uint32_t static_shared;       /* bytes; the start of the dynamic part is aligned as PTX asks, and included here */
    uint32_t local_bytes;         /* .local bytes of one thread */
    uint32_t registers;           /* 32-bit registers: an estimate that is stable for the same PTX */
    uint32_t max_threads;         /* .maxntid product, or 1024 */
    uint32_t required_threads[3]; /* .reqntid, or 0 0 0 */
};

struct gv_global {
    const char *name;
    uint64_t size; /* bytes; 0 for an extern array whose size the linker would set */
    uint32_t align;
    uint32_t constant; /* 1: .const, 0: .global */
};

struct gv_module {
    uint32_t abi; /* GV_KERNEL_ABI */
    uint32_t kernel_count, global_count;
    const struct gv_kernel *kernels;
    const struct gv_global *globals;
    /* Writes the initial values, addresses of other globals and functions included, into zeroed memory. Never NULL. */
    void (*initialise)(void *const *globals);
};

#endif
