/* SPDX-License-Identifier: Apache-2.0
 *
 * Compiled code of the process: one gv_code per PTX, shared by everybody who loads the same text. Also: what an image is, the
 * JIT options, variables.
 */
#include "model.h"
#include "module.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gv_code *codes; /* under `lock` */

static CUresult check_image(const char *image, struct gv_jit_log *log)
{
    if (memcmp(image, "\177ELF", 4) == 0) {
        snprintf(log->error, sizeof log->error, "this is a cubin: the soft GPU runs PTX only; compile to PTX");
        return CUDA_ERROR_NO_BINARY_FOR_GPU;
    }
    if (strstr(image, ".version") == NULL) {
        snprintf(log->error, sizeof log->error, "this is no PTX: it has no .version directive");
        return CUDA_ERROR_INVALID_IMAGE;
    }
    return CUDA_SUCCESS;
}

/* Finds the key among loaded code, or adds it. Takes `object` over. */
static CUresult adopt(const char key[65], void *object, struct gv_code **found)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    struct gv_code *code = codes;
    while (code != NULL && strcmp(code->key, key) != 0)
        code = code->next;
    if (code != NULL) {
        dlclose(object); /* it is open already */
        code->references++;
    } else {
        const struct gv_module *module = dlsym(object, "gv_module");
        code = calloc(1, sizeof *code);
        if (code == NULL || module == NULL || module->abi != GV_KERNEL_ABI) {
            free(code);
            dlclose(object);
            code = NULL;
            result = CUDA_ERROR_INVALID_IMAGE;
        } else {
            memcpy(code->key, key, sizeof code->key);
            code->object = object;
            code->module = module;
            code->references = 1;
            code->next = codes;
            codes = code;
        }
    }
    pthread_mutex_unlock(&lock);
    *found = code;
    return result;
}

CUresult gv_code_load(const void *image, struct gv_jit_log *log, struct gv_code **code)
{
    log->error[0] = log->info[0] = '\0';
    if (image == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const char *single = image, **texts = &single;
    const char **many = NULL;
    char *unpacked = NULL;
    size_t count = 1;
    if (gv_is_fatbin(image)) {
        GV_TRY(gv_fatbin_text(image, &unpacked, log));
        single = unpacked;
    } else if (memcmp(image, GV_LINKED_MAGIC, sizeof GV_LINKED_MAGIC) == 0) {
        const struct gv_linked *linked = image;
        count = linked->count;
        texts = many = malloc((count + 1) * sizeof *many);
        if (many == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        const char *at = (const char *)(linked + 1);
        for (size_t i = 0; i < count; i++, at += strlen(at) + 1)
            many[i] = at;
    } else {
        const CUresult refused = check_image(image, log);
        if (refused != CUDA_SUCCESS)
            return refused;
    }
    char key[65];
    void *object;
    CUresult result = CUDA_SUCCESS;
    for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++)
        if (!gv_model_runs(texts[i], log->error, sizeof log->error))
            result = CUDA_ERROR_INVALID_PTX;
    if (result == CUDA_SUCCESS)
        result = gv_jit_open(texts, count, log, key, &object);
    free(many);
    free(unpacked);
    if (result == CUDA_SUCCESS)
        result = adopt(key, object, code);
    return result;
}

void gv_code_release(struct gv_code *code)
{
    pthread_mutex_lock(&lock);
    if (--code->references == 0) {
        for (struct gv_code **link = &codes; *link != NULL; link = &(*link)->next)
            if (*link == code) {
                *link = code->next;
                break;
            }
        dlclose(code->object);
        free(code);
    }
    pthread_mutex_unlock(&lock);
}

uint32_t gv_register_limit(const void *image, unsigned count, const CUjit_option *options, void *const *values)
{
    uint64_t limit = 0;
    if (image != NULL && memcmp(image, GV_LINKED_MAGIC, sizeof GV_LINKED_MAGIC) == 0)
        limit = ((const struct gv_linked *)image)->register_limit;
    for (unsigned i = 0; i < count; i++)
        if (options[i] == CU_JIT_MAX_REGISTERS)
            limit = (uint32_t)(uintptr_t)values[i];
    return (uint32_t)limit;
}

static void report_one(const char *text, char *buffer, size_t room, void **length)
{
    size_t used = 0;
    if (buffer != NULL && room > 0) {
        used = strlen(text) + 1;
        if (used > room)
            used = room;
        memcpy(buffer, text, used);
        buffer[used - 1] = '\0';
        if (used == 1)
            used = 0; /* an empty log */
    }
    if (length != NULL)
        *length = (void *)used;
}

void gv_jit_report(const struct gv_jit_log *log, unsigned count, CUjit_option *options, void **values)
{
    char *buffers[2] = {NULL, NULL};
    size_t rooms[2] = {0, 0};
    void **lengths[2] = {NULL, NULL};
    for (unsigned i = 0; i < count; i++) {
        switch (options[i]) {
        case CU_JIT_INFO_LOG_BUFFER:
            buffers[0] = values[i];
            break;
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
            rooms[0] = (unsigned)(uintptr_t)values[i];
            lengths[0] = &values[i];
            break;
        case CU_JIT_ERROR_LOG_BUFFER:
            buffers[1] = values[i];
            break;
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
            rooms[1] = (unsigned)(uintptr_t)values[i];
            lengths[1] = &values[i];
            break;
        default:
            break; /* hints for NVIDIA's compiler */
        }
    }
    report_one(log->info, buffers[0], rooms[0], lengths[0]);
    report_one(log->error, buffers[1], rooms[1], lengths[1]);
}

int gv_kernel_number(const struct gv_module *module, const char *name)
{
    for (uint32_t i = 0; i < module->kernel_count; i++)
        if (strcmp(module->kernels[i].name, name) == 0)
            return (int)i;
    return -1;
}

CUresult gv_variable_of(const struct gv_instance *instance, const char *name, CUdeviceptr *address, size_t *bytes)
{
    const struct gv_module *module = instance->code->module;
    for (uint32_t i = 0; i < module->global_count; i++)
        if (strcmp(module->globals[i].name, name) == 0) {
            if (address != NULL)
                *address = (CUdeviceptr)instance->globals[i];
            if (bytes != NULL)
                *bytes = module->globals[i].size;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_NOT_FOUND;
}

CUresult gv_read_file(const char *path, char **data, size_t *bytes)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return CUDA_ERROR_FILE_NOT_FOUND;
    struct stat status;
    char *text = NULL;
    size_t length = 0;
    if (fstat(fileno(file), &status) == 0 && S_ISREG(status.st_mode))
        text = malloc((size_t)status.st_size + 8);
    if (text != NULL) {
        length = fread(text, 1, (size_t)status.st_size, file);
        memset(text + length, 0, 8);
    }
    fclose(file);
    if (text == NULL)
        return CUDA_ERROR_FILE_NOT_FOUND;
    *data = text;
    *bytes = length;
    return CUDA_SUCCESS;
}
