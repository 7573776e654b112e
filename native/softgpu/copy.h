/* SPDX-License-Identifier: Apache-2.0
 *
 * Copies: one description for 1-D, 2-D and 3-D, performed by the calling thread or by a stream's.
 */
#ifndef GPUVIRT_SOFTGPU_COPY_H
#define GPUVIRT_SOFTGPU_COPY_H

#include "stream.h"

enum gv_direction { GV_TO_DEVICE, GV_FROM_DEVICE, GV_ON_DEVICE, GV_ON_HOST };

struct gv_copy {
    uint8_t *to;
    const uint8_t *from;
    size_t width, height, depth;     /* bytes, rows, slices */
    size_t to_pitch, from_pitch;     /* bytes from row to row */
    size_t to_slice, from_slice;     /* bytes from slice to slice */
    bool to_device, from_device;     /* the side whose faults are the context's, not the process's */
    bool to_pageable, from_pageable; /* plain host memory */
    enum gv_direction direction;
    bool read_now;       /* the source is not touched after the submitting call */
    void *staging;       /* freed afterwards; NULL: none */
    CUDA_MEMCPY3D given; /* what the program described; width 0: it was a plain copy */
};

/* Fills in a 1-D copy between addresses; `to_host`/`from_host`: the program says that this side is host memory. */
CUresult gv_copy_linear(struct gv_copy *copy, CUdeviceptr to, CUdeviceptr from, size_t bytes, bool to_host,
                        bool from_host);
/* Decides for each side what it is. INVALID_VALUE when a device address is not known. */
CUresult gv_copy_classify(struct gv_copy *copy, bool to_host, bool from_host);
/* What a CUDA_MEMCPY3D asks for, checked; `width` 0: nothing to do. The peer form has the same fields. */
CUresult gv_copy_of_3d(struct gv_copy *copy, const CUDA_MEMCPY3D *parameters);
/* As work, for a stream or a graph. */
CUresult gv_copy_make(const struct gv_copy *copy, struct gv_operation **operation);
/* A copy between contexts is in order with the work of both: waits for all that they have. */
void gv_copy_settle(CUcontext to, CUcontext from);
/* In order after the stream's work; `wait`: back when done (copies on the device never wait). */
CUresult gv_copy_submit(struct gv_copy *copy, struct gv_stream *stream, bool wait);

#endif
