/* SPDX-License-Identifier: Apache-2.0
 *
 * What a soft device pretends to be and to cost: part of the board, written by whoever makes it, constant afterwards. Models of
 * cost are off (0) unless GPUVIRT_SOFTGPU_MODEL asked for them; then a call that is off costs one load.
 *
 *     link       copies between host and device take their time: each direction of each device is one queue; both at once
 *                are slower, pageable memory is slower still
 *     pin        page-locking host memory takes time
 *     vmm        cuMemCreate, Map, SetAccess and Unmap take time, most of it under one lock of the whole machine
 *     reserved   the driver keeps memory of the device
 *     context    each context keeps memory of the device, and takes time to make
 *     init       cuInit takes time
 *     launch     a launch takes time of the calling thread
 */
#ifndef GPUVIRT_SOFTGPU_BOARD_MODEL_H
#define GPUVIRT_SOFTGPU_BOARD_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "profile.h"

enum { GV_LINK_BUCKETS = 64 };

/* Traffic of one direction. All (atomic). */
struct gv_board_link {
    uint64_t bytes;
    uint64_t busy_ns;       /* of the model */
    uint64_t felt_until_ns; /* the other direction is slower until then */
    struct {
        uint64_t number; /* monotonic time / GV_BOARD_BUCKET_NS */
        uint64_t bytes;
    } buckets[GV_LINK_BUCKETS];
};

struct gv_board_model {
    struct gv_profile profile;
    uint64_t reserved_bytes, context_bytes;
    uint64_t link_mb_s[2]; /* to, from the device */
    uint32_t link_both_percent, link_pageable_percent;
    uint32_t pin_register_us_per_gib, pin_allocate_us_per_gib;
    uint64_t init_ns, context_ns, launch_ns;
    struct gv_vmm_cost vmm[GV_VMM_CALLS];

    struct gv_board_link link[2];
    uint64_t vmm_calls, vmm_ns; /* (atomic) as modelled */
    /* (lock) temperature at `heat_at_ns`, when the engine had been busy for `heat_busy_ns` in all; 0: never asked */
    uint64_t heat_at_ns, heat_busy_ns;
    int64_t heat_milli_c;
};

/* How a device shall be: from the environment, by gv_model_read. */
struct gv_model_wish {
    const struct gv_profile *profile;
    const char *models; /* GPUVIRT_SOFTGPU_MODEL */
    double scale;       /* of the profile's memory, reserved and context bytes */
};
/* How many devices the list of profiles names (1 when there is none). */
int gv_model_profiles(const char *list);
/* The entry of `list` (comma separated; the last one counts for all further devices) for a device; NULL and one line logged
 * when it is no profile. */
const struct gv_profile *gv_model_profile(const char *list, int device);
/* Fills a model; false and one line logged when the wish is not understood. */
bool gv_model_read(struct gv_board_model *model, const struct gv_model_wish *wish);

struct gv_board_device;
void gv_model_count_link(struct gv_board_device *device, int direction, uint64_t bytes);
/* Bytes per second over the last `window_ns`. */
uint64_t gv_model_link_rate(const struct gv_board_device *device, int direction, uint64_t window_ns);

#endif
