/* SPDX-License-Identifier: Apache-2.0
 *
 * cuLink*: several PTX texts become one image of our own form (struct gv_linked), which the load calls take. Completing
 * compiles it, so that errors appear here, in the log buffers given at creation.
 */
#include "module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gv_link {
    struct gv_object object;
    unsigned option_count;
    CUjit_option *options; /* copies: the caller's arrays need not live on */
    void **values;         /* of the caller: lengths are written back */
    void **own_values;
    char *texts; /* NUL after each */
    size_t bytes, count;
    struct gv_linked *image;
};

static const char device_runtime[] = "__CNPRT_VERSION_NUMBER__"; /* a symbol of libcudadevrt.a */

static struct gv_link *link_of(CUlinkState state) { return gv_is(state, GV_LINK) ? (struct gv_link *)state : NULL; }

GV_EXPORT CUresult cuLinkCreate_v2(unsigned int numOptions, CUjit_option *options, void **optionValues,
                                   CUlinkState *stateOut)
{
    GV_ENTER_CONTEXT(context);
    if (stateOut == NULL || (numOptions > 0 && (options == NULL || optionValues == NULL)))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_link *link = gv_object_new(GV_LINK, sizeof *link);
    CUjit_option *copy = calloc(numOptions + 1, sizeof *copy);
    void **values = calloc(numOptions + 1, sizeof *values);
    if (link == NULL || copy == NULL || values == NULL) {
        free(copy);
        free(values);
        if (link != NULL)
            gv_object_free(link, GV_LINK);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (numOptions > 0) {
        memcpy(copy, options, numOptions * sizeof *copy);
        memcpy(values, optionValues, numOptions * sizeof *values);
    }
    link->option_count = numOptions;
    link->options = copy;
    link->own_values = values;
    link->values = optionValues;
    link->texts = NULL;
    link->bytes = link->count = 0;
    link->image = NULL;
    *stateOut = (CUlinkState)link;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLinkCreate(unsigned int numOptions, CUjit_option *options, void **optionValues,
                                CUlinkState *stateOut)
{
    return cuLinkCreate_v2(numOptions, options, optionValues, stateOut);
}

/* The program reads the log from its buffer; the lengths go where it passed the sizes. */
static void report(struct gv_link *link, const struct gv_jit_log *log)
{
    gv_jit_report(log, link->option_count, link->options, link->own_values);
    for (unsigned i = 0; i < link->option_count; i++)
        if (link->options[i] == CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES ||
            link->options[i] == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES)
            link->values[i] = link->own_values[i];
}

static CUresult add_text(struct gv_link *link, const char *text, size_t size, const char *name)
{
    const size_t length = strnlen(text, size);
    char *grown = realloc(link->texts, link->bytes + length + 1);
    (void)name;
    if (grown == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    memcpy(grown + link->bytes, text, length);
    grown[link->bytes + length] = '\0';
    link->texts = grown;
    link->bytes += length + 1;
    link->count++;
    return CUDA_SUCCESS;
}

/* An image made by cuLinkComplete may be an input again. */
static CUresult add_linked(struct gv_link *link, const struct gv_linked *image)
{
    const char *text = (const char *)(image + 1);
    for (uint64_t i = 0; i < image->count; i++, text += strlen(text) + 1)
        GV_TRY(add_text(link, text, strlen(text), NULL));
    return CUDA_SUCCESS;
}

/* Whether a text needs functions of another one. */
static bool is_complete(const char *text)
{
    static const char *const own[] = {" vprintf", " __assertfail", " malloc", " free"}; /* the soft GPU brings them */
    for (const char *at = text; (at = strstr(at, ".extern .func")) != NULL; at++) {
        const char *const end = strchr(at, ';');
        bool found = false;
        for (size_t i = 0; end != NULL && i < sizeof own / sizeof *own; i++)
            found |= memmem(at, (size_t)(end - at), own[i], strlen(own[i])) != NULL;
        if (!found)
            return false;
    }
    return true;
}

/* As with NVIDIA's linker, errors of a text appear when it is added. One that needs others is looked at with them. Mostly it
 * is the only one, and then the work is done for cuLinkComplete too. */
static CUresult add_ptx(struct gv_link *link, const char *text, size_t size, const char *name)
{
    const size_t start = link->bytes;
    GV_TRY(add_text(link, text, size, name));
    if (!is_complete(link->texts + start))
        return CUDA_SUCCESS;
    struct gv_jit_log log;
    struct gv_code *code;
    const CUresult result = gv_code_load(link->texts + start, &log, &code);
    if (result == CUDA_SUCCESS) {
        gv_code_release(code);
        return CUDA_SUCCESS;
    }
    report(link, &log);
    link->bytes = start;
    link->count--;
    return result;
}

static CUresult refuse(struct gv_link *link, CUjitInputType type, const char *name)
{
    struct gv_jit_log log = {.info = ""};
    snprintf(log.error, sizeof log.error, "%s: input type %d is not PTX: the soft GPU links PTX only",
             name != NULL ? name : "input", (int)type);
    report(link, &log);
    gv_log_error("%s", log.error);
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

GV_EXPORT CUresult cuLinkAddData_v2(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
                                    unsigned int numOptions, CUjit_option *options, void **optionValues)
{
    GV_ENTER();
    (void)numOptions, (void)options, (void)optionValues;
    struct gv_link *link = link_of(state);
    if (link == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (data == NULL || size == 0 || (unsigned)type >= CU_JIT_NUM_INPUT_TYPES || link->image != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (size > sizeof(struct gv_linked) && memcmp(data, GV_LINKED_MAGIC, sizeof GV_LINKED_MAGIC) == 0)
        return add_linked(link, data);
    if (type ==
        CU_JIT_INPUT_LIBRARY) { /* only asked for what is missing; what then is missing is named by the translator */
        if (memmem(data, size, device_runtime, strlen(device_runtime)) != NULL)
            return add_text(link, GV_DEVICE_RUNTIME, sizeof GV_DEVICE_RUNTIME, name);
        gv_log_detail("%s: a library of machine code is not searched", name != NULL ? name : "library");
        return CUDA_SUCCESS;
    }
    if (type == CU_JIT_INPUT_FATBINARY && size > 16 && gv_is_fatbin(data)) {
        struct gv_jit_log log = {.info = ""};
        char *text = NULL;
        CUresult result = gv_fatbin_text(data, &text, &log);
        if (result == CUDA_SUCCESS)
            result = add_ptx(link, text, strlen(text), name);
        else
            report(link, &log);
        free(text);
        return result;
    }
    if (type != CU_JIT_INPUT_PTX)
        return refuse(link, type, name);
    return add_ptx(link, data, size, name);
}

GV_EXPORT CUresult cuLinkAddData(CUlinkState state, CUjitInputType type, void *data, size_t size, const char *name,
                                 unsigned int numOptions, CUjit_option *options, void **optionValues)
{
    return cuLinkAddData_v2(state, type, data, size, name, numOptions, options, optionValues);
}

GV_EXPORT CUresult cuLinkAddFile_v2(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
                                    CUjit_option *options, void **optionValues)
{
    GV_ENTER();
    if (link_of(state) == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (path == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    char *data;
    size_t bytes;
    GV_TRY(gv_read_file(path, &data, &bytes));
    const CUresult result = cuLinkAddData_v2(state, type, data, bytes, path, numOptions, options, optionValues);
    free(data);
    return result;
}

GV_EXPORT CUresult cuLinkAddFile(CUlinkState state, CUjitInputType type, const char *path, unsigned int numOptions,
                                 CUjit_option *options, void **optionValues)
{
    return cuLinkAddFile_v2(state, type, path, numOptions, options, optionValues);
}

GV_EXPORT CUresult cuLinkComplete(CUlinkState state, void **cubinOut, size_t *sizeOut)
{
    GV_ENTER();
    struct gv_link *link = link_of(state);
    if (link == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    if (cubinOut == NULL || sizeOut == NULL || link->count == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (link->image == NULL) {
        struct gv_linked *image = calloc(1, sizeof *image + link->bytes + 8);
        if (image == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        memcpy(image->magic, GV_LINKED_MAGIC, sizeof GV_LINKED_MAGIC);
        image->bytes = sizeof *image + link->bytes;
        image->count = link->count;
        image->register_limit = gv_register_limit(NULL, link->option_count, link->options, link->own_values);
        memcpy(image + 1, link->texts, link->bytes);
        struct gv_jit_log log;
        struct gv_code *code;
        const CUresult result = gv_code_load(image, &log, &code);
        report(link, &log);
        if (result != CUDA_SUCCESS) {
            free(image);
            return result;
        }
        gv_code_release(code); /* it is in the cache now */
        link->image = image;
    }
    *cubinOut = link->image;
    *sizeOut = link->image->bytes;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLinkDestroy(CUlinkState state)
{
    GV_ENTER();
    struct gv_link *link = link_of(state);
    if (link == NULL)
        return CUDA_ERROR_INVALID_HANDLE;
    free(link->texts);
    free(link->image);
    free(link->options);
    free(link->own_values);
    gv_object_free(link, GV_LINK);
    return CUDA_SUCCESS;
}
