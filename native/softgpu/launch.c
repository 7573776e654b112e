/* SPDX-License-Identifier: Apache-2.0
 *
 * cuLaunch*: checks, copies the arguments, and puts the grid in the stream.
 */
#include "launch.h"
#include "capture.h"
#include "event.h"
#include "model.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

struct launch_operation {
    struct gv_operation operation;
    struct gv_function *function;
    struct gv_grid grid;
    bool together;
    struct gv_launch_attributes *attributes; /* NULL: none given */
    void **described;                        /* the arguments' addresses, once somebody has asked */
    uint8_t params[] __attribute__((aligned(64)));
};

static CUresult run_launch(struct gv_operation *operation, struct gv_stream *stream)
{
    const struct launch_operation *launch = (struct launch_operation *)operation;
    struct gv_grid grid = launch->grid;
    grid.stream = stream;
    return gv_grid_run(&grid, launch->together);
}

static void drop_launch(struct gv_operation *operation)
{
    struct launch_operation *launch = (struct launch_operation *)operation;
    free(launch->attributes);
    free(launch->described);
}

static void describe_launch(struct gv_operation *operation, CUgraphNodeParams *params)
{
    static pthread_mutex_t describing = PTHREAD_MUTEX_INITIALIZER;
    struct launch_operation *launch = (struct launch_operation *)operation;
    const struct gv_kernel *kernel = launch->grid.kernel;
    pthread_mutex_lock(&describing);
    if (launch->described == NULL && kernel->param_count > 0 &&
        (launch->described = calloc(kernel->param_count, sizeof *launch->described)) != NULL)
        for (uint32_t i = 0; i < kernel->param_count; i++)
            launch->described[i] = launch->params + kernel->params[i].offset;
    pthread_mutex_unlock(&describing);
    const bool of_library = gv_is(launch->function, GV_KERNEL);
    params->kernel = (CUDA_KERNEL_NODE_PARAMS_v3){
        .func = of_library ? NULL : (CUfunction)launch->function,
        .gridDimX = launch->grid.grid.x,
        .gridDimY = launch->grid.grid.y,
        .gridDimZ = launch->grid.grid.z,
        .blockDimX = launch->grid.block.x,
        .blockDimY = launch->grid.block.y,
        .blockDimZ = launch->grid.block.z,
        .sharedMemBytes = launch->grid.dynamic_shared,
        .kernelParams = launch->described,
        .kern = of_library ? (CUkernel)launch->function : NULL,
        .ctx = gv_context_handle(operation->context),
    };
}

static const struct gv_operation_kind launch_kind = {.node = CU_GRAPH_NODE_TYPE_KERNEL,
                                                     .work = true,
                                                     .run = run_launch,
                                                     .drop = drop_launch,
                                                     .describe = describe_launch};

bool gv_launch_follows(struct gv_stream *stream)
{
    if (atomic_load_explicit(&stream->context->error, memory_order_relaxed) != CUDA_SUCCESS)
        return false;
    pthread_mutex_lock(&stream->lock);
    const struct gv_operation *next = stream->head;
    while (next != NULL && next->dependency_count == 0 && gv_is_event_record(next))
        next = next->next; /* takes no time */
    const bool follows = next != NULL && next->dependency_count == 0 && next->kind == &launch_kind;
    pthread_mutex_unlock(&stream->lock);
    return follows;
}

const struct gv_function *gv_launch_function(const struct gv_operation *operation)
{
    return ((const struct launch_operation *)operation)->function;
}

const struct gv_launch_attributes *gv_launch_attributes_of(const struct gv_operation *operation)
{
    static const struct gv_launch_attributes none;
    const struct launch_operation *launch = (const struct launch_operation *)operation;
    return launch->attributes != NULL ? launch->attributes : &none;
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

static struct launch_operation *new_launch(const struct gv_kernel *kernel,
                                           const struct gv_launch_attributes *attributes)
{
    struct launch_operation *made = aligned_alloc(64, (sizeof *made + kernel->param_bytes + 127) / 64 * 64);
    if (made == NULL)
        return NULL;
    made->operation.kind = &launch_kind;
    made->described = NULL;
    made->attributes = NULL;
    if (attributes != NULL) {
        made->attributes = malloc(sizeof *attributes);
        if (made->attributes == NULL) {
            free(made);
            return NULL;
        }
        *made->attributes = *attributes;
    }
    return made;
}

CUresult gv_launch_make(const struct gv_launch *launch, struct gv_context *context, struct gv_operation **operation)
{
    struct gv_function *function = launch->function;
    GV_TRY(check_shape(function, launch->grid, launch->block, launch->shared));
    const bool together = launch->attributes != NULL && launch->attributes->cooperative != 0;
    const struct gv_dim3 grid = launch->grid, block = launch->block;
    if (together && (uint64_t)grid.x * grid.y * grid.z >
                        gv_blocks_together(function, (int)(block.x * block.y * block.z), launch->shared))
        return CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    struct gv_instance *instance;
    GV_TRY(gv_function_instance(function, context, &instance));
    const struct gv_kernel *kernel = function->kernel;
    struct launch_operation *made = new_launch(kernel, launch->attributes);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = copy_arguments(kernel, launch->params, launch->extra, made->params);
    if (result != CUDA_SUCCESS) {
        free(made->attributes);
        free(made);
        return result;
    }
    made->function = function;
    made->grid = (struct gv_grid){
        .kernel = kernel,
        .globals = instance->globals,
        .params = made->params,
        .grid = launch->grid,
        .block = launch->block,
        .dynamic_shared = launch->shared,
        .device = context->device,
        .block_ns = &function->block_ns,
    };
    made->together = together;
    *operation = &made->operation;
    return CUDA_SUCCESS;
}

CUresult gv_launch_with(const struct gv_operation *operation, const struct gv_launch_attributes *attributes,
                        struct gv_operation **changed)
{
    const struct launch_operation *old = (const struct launch_operation *)operation;
    const struct gv_kernel *kernel = old->grid.kernel;
    struct launch_operation *made = new_launch(kernel, attributes);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    gv_operation_made(&made->operation, operation->context);
    made->function = old->function;
    made->grid = old->grid;
    made->grid.params = made->params;
    made->together = attributes->cooperative != 0;
    memcpy(made->params, old->params, kernel->param_bytes);
    *changed = &made->operation;
    return CUDA_SUCCESS;
}

/* In a stream. What captures takes the stream's priority along. */
static CUresult launch(CUstream hStream, struct gv_launch *launch)
{
    struct gv_stream *stream;
    struct gv_operation *operation;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (launch->function == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    struct gv_launch_attributes with_priority;
    if (stream->priority != 0 && gv_stream_captures(stream)) {
        with_priority = launch->attributes != NULL ? *launch->attributes : (struct gv_launch_attributes){0};
        if (with_priority.priority == 0)
            with_priority.priority = stream->priority;
        launch->attributes = &with_priority;
    }
    GV_TRY(gv_launch_make(launch, stream->context, &operation));
    gv_model_spend(gv_model_of(stream->context->device)->launch_ns);
    GV_TRY(gv_stream_submit(stream, operation));
    for (unsigned i = 0; launch->attributes != NULL && i < launch->attributes->completions; i++)
        GV_TRY(gv_event_record((struct gv_event *)launch->attributes->completion[i], stream));
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLaunchKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY, unsigned int gridDimZ,
                                  unsigned int blockDimX, unsigned int blockDimY, unsigned int blockDimZ,
                                  unsigned int sharedMemBytes, CUstream hStream, void **kernelParams, void **extra)
{
    GV_ENTER();
    struct gv_launch wanted = {gv_function_of(f),
                               {gridDimX, gridDimY, gridDimZ},
                               {blockDimX, blockDimY, blockDimZ},
                               sharedMemBytes,
                               kernelParams,
                               extra,
                               NULL};
    return launch(hStream, &wanted);
}

GV_EXPORT CUresult cuLaunchCooperativeKernel(CUfunction f, unsigned int gridDimX, unsigned int gridDimY,
                                             unsigned int gridDimZ, unsigned int blockDimX, unsigned int blockDimY,
                                             unsigned int blockDimZ, unsigned int sharedMemBytes, CUstream hStream,
                                             void **kernelParams)
{
    GV_ENTER();
    const struct gv_launch_attributes cooperative = {.cooperative = 1};
    struct gv_launch wanted = {gv_function_of(f),
                               {gridDimX, gridDimY, gridDimZ},
                               {blockDimX, blockDimY, blockDimZ},
                               sharedMemBytes,
                               kernelParams,
                               NULL,
                               &cooperative};
    return launch(hStream, &wanted);
}

GV_EXPORT CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction f, void **kernelParams, void **extra)
{
    GV_ENTER();
    if (config == NULL || (config->numAttrs > 0 && config->attrs == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_launch_attributes attributes = {0};
    for (unsigned i = 0; i < config->numAttrs; i++)
        GV_TRY(gv_attribute_set(&attributes, config->attrs[i].id, &config->attrs[i].value));
    struct gv_launch wanted = {
        .function = gv_function_of(f),
        .grid = {config->gridDimX, config->gridDimY, config->gridDimZ},
        .block = {config->blockDimX, config->blockDimY, config->blockDimZ},
        .shared = config->sharedMemBytes,
        .params = kernelParams,
        .extra = extra,
        .attributes = config->numAttrs > 0 ? &attributes : NULL,
    };
    return launch(config->hStream, &wanted);
}
