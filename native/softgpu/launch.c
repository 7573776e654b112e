/* SPDX-License-Identifier: Apache-2.0
 *
 * cuLaunch*: checks, copies the arguments, and puts the grid in the stream.
 */
#include "launch.h"
#include "event.h"
#include "model.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

struct launch_operation {
    struct gv_operation operation;
    struct gv_grid grid;
    bool together;
    uint8_t params[] __attribute__((aligned(64)));
};

static CUresult run_launch(struct gv_operation *operation, struct gv_stream *stream)
{
    (void)stream;
    struct launch_operation *launch = (struct launch_operation *)operation;
    return gv_grid_run(&launch->grid, launch->together);
}

bool gv_launch_follows(struct gv_stream *stream)
{
    if (atomic_load_explicit(&stream->context->error, memory_order_relaxed) != CUDA_SUCCESS)
        return false;
    pthread_mutex_lock(&stream->lock);
    const struct gv_operation *next = stream->head;
    while (next != NULL && next->dependency_count == 0 && gv_is_event_record(next))
        next = next->next; /* takes no time */
    const bool follows = next != NULL && next->dependency_count == 0 && next->run == run_launch;
    pthread_mutex_unlock(&stream->lock);
    return follows;
}

static CUresult check_shape(const struct gv_function *function, struct gv_dim3 grid, struct gv_dim3 block,
                            unsigned shared)
{
    const struct gv_kernel *kernel = function->kernel;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0 ||
        grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64)
        return CUDA_ERROR_INVALID_VALUE;
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (threads > GV_THREADS_MOST || threads > kernel->max_threads)
        return CUDA_ERROR_INVALID_VALUE;
    const uint32_t *required = kernel->required_threads;
    if (required[0] != 0 && (required[0] != block.x || required[1] != block.y || required[2] != block.z))
        return CUDA_ERROR_INVALID_VALUE;
    /* The part above 48 KiB must have been asked for (CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES). */
    if (shared > (unsigned)function->dynamic_shared_max && (uint64_t)shared + kernel->static_shared > GV_SHARED_DEFAULT)
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

/* From `extra`: buffer and size. */
static CUresult read_extra(void **extra, const uint8_t **buffer, size_t *bytes)
{
    *buffer = NULL;
    *bytes = 0;
    for (; *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER)
            *buffer = extra[1];
        else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE)
            *bytes = *(const size_t *)extra[1];
        else
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

static CUresult copy_arguments(const struct gv_kernel *kernel, void **params, void **extra, uint8_t *to)
{
    if (extra != NULL && params != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (extra != NULL) {
        const uint8_t *buffer;
        size_t bytes;
        GV_TRY(read_extra(extra, &buffer, &bytes));
        if ((buffer == NULL && kernel->param_bytes > 0) || bytes > kernel->param_bytes + 64u)
            return CUDA_ERROR_INVALID_VALUE;
        memset(to, 0, kernel->param_bytes);
        if (buffer != NULL)
            memcpy(to, buffer, bytes < kernel->param_bytes ? bytes : kernel->param_bytes);
        return CUDA_SUCCESS;
    }
    if (kernel->param_count > 0 && params == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (uint32_t i = 0; i < kernel->param_count; i++) {
        const struct gv_parameter parameter = kernel->params[i];
        if (parameter.size == 8) /* nearly always: a pointer or a size */
            memcpy(to + parameter.offset, params[i], 8);
        else
            memcpy(to + parameter.offset, params[i], parameter.size);
    }
    return CUDA_SUCCESS;
}

static CUresult launch(CUfunction f, struct gv_dim3 grid, struct gv_dim3 block, unsigned shared, CUstream hStream,
                       void **params, void **extra, bool together)
{
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_function *function = gv_function_of(f);
    if (function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    GV_TRY(check_shape(function, grid, block, shared));
    if (together &&
        (uint64_t)grid.x * grid.y * grid.z > gv_blocks_together(function, (int)(block.x * block.y * block.z), shared))
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    struct gv_instance *instance;
    GV_TRY(gv_function_instance(function, stream->context, &instance));
    const struct gv_kernel *kernel = function->kernel;
    struct launch_operation *operation = aligned_alloc(64, (sizeof *operation + kernel->param_bytes + 127) / 64 * 64);
    if (operation == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = copy_arguments(kernel, params, extra, operation->params);
    if (result != CUDA_SUCCESS) {
        free(operation);
        return result;
    }
    operation->operation.run = run_launch;
    operation->operation.always = false;
    operation->grid = (struct gv_grid){
        .kernel = kernel,
        .globals = instance->globals,
        .params = operation->params,
        .grid = grid,
        .block = block,
        .dynamic_shared = shared,
        .device = stream->context->device,
        .stream = stream,
    };
    operation->together = together;
    gv_model_spend(gv_model_of(stream->context->device)->launch_ns);
    return gv_stream_submit(stream, &operation->operation);
}

GV_EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                                  unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                                  unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
    GV_ENTER();
    return launch(f, (struct gv_dim3){gridDimX, gridDimY, gridDimZ}, (struct gv_dim3){blockDimX, blockDimY, blockDimZ},
                  sharedMemBytes, hStream, kernelParams, extra, false);
}

GV_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                                             unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
                                             unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                                             void **kernelParams)
{
    GV_ENTER();
    return launch(f, (struct gv_dim3){gridDimX, gridDimY, gridDimZ}, (struct gv_dim3){blockDimX, blockDimY, blockDimZ},
                  sharedMemBytes, hStream, kernelParams, NULL, true);
}

/* Attributes that only tune are accepted; those that change the meaning of the launch are refused. */
static CUresult read_attributes(const CUlaunchConfig *config, bool *together)
{
    for (unsigned i = 0; i < config->numAttrs; i++) {
        const CUlaunchAttribute *attribute = &config->attrs[i];
        switch (attribute->id) {
        case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
            *together = attribute->value.cooperative != 0;
            break;
        case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
            if (attribute->value.clusterDim.x * attribute->value.clusterDim.y * attribute->value.clusterDim.z > 1)
                return CUDA_ERROR_NOT_SUPPORTED;
            break;
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
            return CUDA_ERROR_NOT_SUPPORTED;
        default:
            if ((unsigned)attribute->id >= CU_LAUNCH_ATTRIBUTE_MAX)
                return CUDA_ERROR_INVALID_VALUE;
            break;
        }
    }
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
    GV_ENTER();
    bool together = false;
    if (config == NULL || (config->numAttrs > 0 && config->attrs == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(read_attributes(config, &together));
    return launch(f, (struct gv_dim3){config->gridDimX, config->gridDimY, config->gridDimZ},
                  (struct gv_dim3){config->blockDimX, config->blockDimY, config->blockDimZ}, config->sharedMemBytes,
                  config->hStream, kernelParams, extra, together);
}
