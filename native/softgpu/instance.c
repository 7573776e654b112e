/* SPDX-License-Identifier: Apache-2.0
 *
 * Code in a context: its variables and functions.
 */
#include "memory.h"
#include "module.h"

#include <stdlib.h>
#include <string.h>

struct gv_function *gv_function_new(enum gv_kind kind, const struct gv_module *module, uint32_t number,
                                    uint32_t register_limit)
{
    struct gv_function *function = gv_object_new(kind, sizeof *function);
    if (function != NULL) {
        function->kernel = &module->kernels[number];
        function->module = module;
        function->number = number;
        function->register_limit = register_limit;
        function->instance = NULL;
        function->library = NULL;
        function->dynamic_shared_max = 0;
        function->carveout = -1;
        function->block[0] = function->block[1] = function->block[2] = 1;
    }
    return function;
}

/* All variables in one allocation, each at its alignment. */
static CUresult place_variables(struct gv_instance *instance)
{
    const struct gv_module *module = instance->code->module;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < module->global_count; i++) {
        const uint64_t align = module->globals[i].align > 16 ? module->globals[i].align : 16;
        bytes = gv_round_up(bytes, align);
        instance->globals[i] = (void *)bytes; /* an offset for now */
        bytes += module->globals[i].size > 0 ? module->globals[i].size : 16;
    }
    if (bytes > 0) {
        GV_TRY(gv_device_allocate(instance->context, bytes, GV_REGION_GLOBAL, &instance->memory));
        memset((void *)instance->memory, 0, bytes);
        for (uint32_t i = 0; i < module->global_count; i++)
            instance->globals[i] = (uint8_t *)instance->memory + (uintptr_t)instance->globals[i];
    }
    module->initialise(instance->globals);
    return CUDA_SUCCESS;
}

static void free_instance(struct gv_instance *instance)
{
    const struct gv_module *module = instance->code->module;
    for (uint32_t i = 0; instance->functions != NULL && i < module->kernel_count; i++)
        if (instance->functions[i] != NULL)
            gv_object_free(instance->functions[i], GV_FUNCTION);
    if (instance->memory != 0)
        gv_device_free(instance->memory);
    free(instance->functions);
    free(instance->globals);
    gv_object_free(instance, GV_MODULE);
}

static CUresult fill(struct gv_instance *instance)
{
    const struct gv_module *module = instance->code->module;
    instance->globals = calloc(module->global_count + 1, sizeof *instance->globals);
    instance->functions = calloc(module->kernel_count + 1, sizeof *instance->functions);
    if (instance->globals == NULL || instance->functions == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (uint32_t i = 0; i < module->kernel_count; i++) {
        instance->functions[i] = gv_function_new(GV_FUNCTION, module, i, instance->register_limit);
        if (instance->functions[i] == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        instance->functions[i]->instance = instance;
        instance->functions[i]->library = instance->library;
    }
    return place_variables(instance);
}

CUresult gv_instance_create(struct gv_context *context, struct gv_code *code, struct gv_library *library,
                            uint32_t register_limit, struct gv_instance **instance)
{
    struct gv_instance *made = gv_object_new(GV_MODULE, sizeof *made);
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->context = context;
    made->code = code;
    made->library = library;
    made->register_limit = register_limit;
    made->memory = 0;
    made->globals = NULL;
    made->functions = NULL;
    const CUresult result = fill(made);
    if (result != CUDA_SUCCESS) {
        free_instance(made);
        return result;
    }
    pthread_mutex_lock(&context->lock);
    made->next = context->instances;
    context->instances = made;
    pthread_mutex_unlock(&context->lock);
    *instance = made;
    return CUDA_SUCCESS;
}

void gv_instance_destroy(struct gv_instance *instance)
{
    struct gv_context *context = instance->context;
    pthread_mutex_lock(&context->lock);
    for (struct gv_instance **link = &context->instances; *link != NULL; link = &(*link)->next)
        if (*link == instance) {
            *link = instance->next;
            break;
        }
    pthread_mutex_unlock(&context->lock);
    free_instance(instance);
}

void gv_instances_close(struct gv_context *context)
{
    while (context->instances != NULL) {
        struct gv_instance *instance = context->instances;
        struct gv_code *code = instance->library == NULL ? instance->code : NULL; /* a library keeps its code */
        if (instance->library != NULL)
            gv_library_forget(instance->library, instance);
        gv_instance_destroy(instance);
        if (code != NULL)
            gv_code_release(code);
    }
}
