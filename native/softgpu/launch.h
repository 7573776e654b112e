/* SPDX-License-Identifier: Apache-2.0
 *
 * Running grids: the launch calls (launch.c), the workers that run blocks (workers.c), device printf (kernel_output.c).
 */
#ifndef GPUVIRT_SOFTGPU_LAUNCH_H
#define GPUVIRT_SOFTGPU_LAUNCH_H

#include "kernel_abi.h"
#include "launch_attributes.h"
#include "stream.h"

enum { GV_SHARED_DEFAULT = 48 * 1024, GV_THREADS_MOST = 1024 }; /* of a block, on any device */

struct gv_function;

/* A grid to run. */
struct gv_grid {
    const struct gv_kernel *kernel;
    void *const *globals;
    const uint8_t *params;
    struct gv_dim3 grid, block;
    uint32_t dynamic_shared;
    int device;
    _Atomic uint64_t *block_ns; /* gv_function.block_ns */
    struct gv_stream *stream;   /* whose turn on the engine it takes; NULL: of no context */
};
/* Runs all blocks, with helpers when it takes long. `together`: all blocks at the same time (cooperative). */
CUresult gv_grid_run(const struct gv_grid *grid, bool together);
/* True when what comes next in the stream is a kernel that can start at once. */
bool gv_launch_follows(struct gv_stream *stream);
/* How many blocks of this shape fit on the device at the same time. */
uint64_t gv_blocks_together(const struct gv_function *function, int threads, size_t dynamic_shared);
/* A launch as the program describes it, and as work for a stream or a graph. */
struct gv_launch {
    struct gv_function *function;
    struct gv_dim3 grid, block;
    uint32_t shared;
    void **params, **extra;                        /* one of them */
    const struct gv_launch_attributes *attributes; /* NULL: none */
};
CUresult gv_launch_make(const struct gv_launch *launch, struct gv_context *context, struct gv_operation **operation);
/* Of work made by gv_launch_make. */
const struct gv_function *gv_launch_function(const struct gv_operation *operation);
const struct gv_launch_attributes *gv_launch_attributes_of(const struct gv_operation *operation);
/* The same launch with other attributes. */
CUresult gv_launch_with(const struct gv_operation *operation, const struct gv_launch_attributes *attributes,
                        struct gv_operation **changed);
/* Frees what this thread kept for running blocks. */
void gv_launch_thread_exit(void);

/* malloc and free of kernels; `context` is theirs. NULL: none left. */
void *gv_kernel_malloc(void *context, uint64_t bytes);
void gv_kernel_free(void *context, void *memory);

int gv_output_vprintf(void *sink, const char *format, const void *arguments);
void gv_output_assert(void *sink, const char *message, const char *file, uint32_t line, const char *function);
/* Device printf appears on stdout when the program waits for something. */
void gv_printf_flush(void);

#endif
