/* SPDX-License-Identifier: Apache-2.0
 *
 * Fat binaries: containers of PTX and machine code for several architectures. We take the PTX of the newest one. What nvcc
 * compresses (its default) we cannot read.
 *
 *     optional wrapper: magic, version, pointer to
 *     header: magic, version, its size, bytes that follow | entry: header, content | entry ...
 */
#include "module.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WRAPPER_MAGIC = 0x466243b1, MAGIC = 0xba55ed50, KIND_PTX = 1, SMALLEST_ENTRY = 64 };

struct wrapper {
    uint32_t magic, version;
    const uint8_t *container;
    const void *file_name;
};

struct header {
    uint32_t magic;
    uint16_t version, header_bytes;
    uint64_t bytes; /* after the header */
};

struct entry {
    uint16_t kind, attributes;
    uint32_t header_bytes;
    uint64_t bytes;            /* of the content, padding included */
    uint32_t compressed_bytes; /* 0: not compressed */
    uint32_t unknown;
    uint16_t minor, major;
    uint32_t architecture; /* 90: sm_90 */
};

bool gv_is_fatbin(const void *image)
{
    uint32_t magic;
    memcpy(&magic, image, sizeof magic);
    return magic == (uint32_t)MAGIC || magic == (uint32_t)WRAPPER_MAGIC;
}

static CUresult no_ptx(struct gv_jit_log *log, bool compressed)
{
    snprintf(log->error, sizeof log->error, "this fatbin has no %sPTX: %s", compressed ? "uncompressed " : "",
             compressed ? "build it with nvcc -no-compress"
                        : "the soft GPU runs PTX only; build it with code=compute_XX");
    return CUDA_ERROR_NO_BINARY_FOR_GPU;
}

CUresult gv_fatbin_text(const void *image, char **text, struct gv_jit_log *log)
{
    const uint8_t *at = image;
    struct wrapper wrapper;
    memcpy(&wrapper, at, sizeof wrapper.magic);
    if (wrapper.magic == (uint32_t)WRAPPER_MAGIC) {
        memcpy(&wrapper, at, sizeof wrapper);
        at = wrapper.container;
    }
    struct header header;
    if (at == NULL)
        return CUDA_ERROR_INVALID_IMAGE;
    memcpy(&header, at, sizeof header);
    if (header.magic != (uint32_t)MAGIC || header.header_bytes < sizeof header)
        return CUDA_ERROR_INVALID_IMAGE;
    at += header.header_bytes;
    const uint8_t *const end = at + header.bytes, *chosen = NULL;
    bool compressed = false;
    uint64_t chosen_bytes = 0;
    uint32_t newest = 0;
    for (struct entry entry; at < end; at += entry.header_bytes + entry.bytes) {
        const uint64_t left = (uint64_t)(end - at);
        memcpy(&entry, at, left < sizeof entry ? 0 : sizeof entry);
        if (left < SMALLEST_ENTRY || entry.header_bytes < SMALLEST_ENTRY || entry.header_bytes > left ||
            entry.bytes > left - entry.header_bytes) {
            snprintf(log->error, sizeof log->error, "this fatbin is damaged: an entry goes beyond its end");
            return CUDA_ERROR_INVALID_IMAGE;
        }
        compressed |= entry.kind == KIND_PTX && entry.compressed_bytes != 0;
        if (entry.kind == KIND_PTX && entry.compressed_bytes == 0 && entry.architecture >= newest) {
            newest = entry.architecture;
            chosen = at + entry.header_bytes;
            chosen_bytes = entry.bytes;
        }
    }
    if (chosen == NULL)
        return no_ptx(log, compressed);
    *text = strndup((const char *)chosen, chosen_bytes);
    return *text != NULL ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}
