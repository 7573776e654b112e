/* SPDX-License-Identifier: Apache-2.0
 *
 * CUDA arrays: memory with a layout of the driver's own, here rows of a pitch. Programs copy to and from them; kernels
 * cannot reach them, since texture and surface instructions are not translated.
 */
#ifndef GPUVIRT_SOFTGPU_ARRAY_H
#define GPUVIRT_SOFTGPU_ARRAY_H

#include "memory.h"

enum { GV_ARRAY_PLANES = 2 };

/* Behind CUarray. Arrays made for the caller own memory; levels of mipmaps and planes of formats with planes do not. */
struct gv_array {
    struct gv_object object;
    CUDA_ARRAY3D_DESCRIPTOR descriptor; /* as given */
    struct gv_context *context;
    unsigned element; /* bytes; 0: only its planes can be copied */
    CUdeviceptr memory;
    size_t pitch, rows, slices; /* bytes of a row; rows of a slice; slices (or layers) */
    bool owner;
    struct gv_array *planes[GV_ARRAY_PLANES];
};

/* Behind CUmipmappedArray. */
struct gv_mipmap {
    struct gv_object object;
    struct gv_context *context;
    CUdeviceptr memory;
    unsigned level_count;
    struct gv_array **levels;
};

/* What creation checks: NULL or an error of the descriptor; array_format.c. */
CUresult gv_array_check(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, bool mipmapped);
/* Bytes of one element, 0 for a format with planes. */
unsigned gv_array_element(const CUDA_ARRAY3D_DESCRIPTOR *descriptor);
/* The descriptors of the planes; how many there are. */
int gv_array_planes(const CUDA_ARRAY3D_DESCRIPTOR *descriptor, CUDA_ARRAY3D_DESCRIPTOR planes[GV_ARRAY_PLANES]);
/* The largest extents, by the device attribute that tells them; 0 for other attributes. */
int gv_array_limit(CUdevice_attribute attribute);

/* NULL when it is no array. */
struct gv_array *gv_array_of(CUarray handle);
/* A new handle without memory: laid out for `memory`, returns NULL when out of memory; and its bytes. */
struct gv_array *gv_array_new(struct gv_context *context, const CUDA_ARRAY3D_DESCRIPTOR *descriptor);
size_t gv_array_bytes(const struct gv_array *array);
/* Places array and planes at `memory`. */
void gv_array_place(struct gv_array *array, CUdeviceptr memory);
/* The handle, its planes'; not the memory. */
void gv_array_discard(struct gv_array *array);
/* Memory of arrays belongs to their region's `owner`: called under gv_memory_lock when the context ends. */
void gv_array_close(void *owner);

#endif
