/* SPDX-License-Identifier: Apache-2.0
 *
 * The driver's side of what a device pretends to be and to cost (board_model.h).
 */
#ifndef GPUVIRT_SOFTGPU_MODEL_H
#define GPUVIRT_SOFTGPU_MODEL_H

#include "driver.h"

static inline const struct gv_board_model *gv_model_of(int device) { return &gv_board_device(device)->model; }
static inline const struct gv_profile *gv_profile_of(int device) { return &gv_model_of(device)->profile; }
static inline int gv_multiprocessors(int device)
{
    const int own = (int)gv_profile_of(device)->multiprocessors;
    return own > 0 ? own : gv_driver.workers;
}

/* The calling thread loses this much time. Sleeps when a good deal has come together, so many small costs are right in sum. */
void gv_model_lose(uint64_t ns);
static inline void gv_model_spend(uint64_t ns)
{
    if (ns != 0)
        gv_model_lose(ns);
}
/* After a VMM call that has worked. Not under gv_memory_lock. */
void gv_model_vmm(int device, enum gv_vmm_call call, uint64_t bytes);
/* Page-locking of host memory. */
void gv_model_pin(int device, bool allocate, uint64_t bytes);

/* False, and the reason, when PTX was made for a later card than the one of the calling thread's context. The default
 * profile, which is no card, runs all. */
bool gv_model_runs(const char *ptx, char *why, size_t room);

/* A context comes: time passes, and the device has `bytes` less. False: not that much is left. */
bool gv_model_keep(int device, uint64_t *bytes);
void gv_model_give_up(int device, uint64_t bytes);

/* The link: takes a place for a chunk behind those of all processes; returns when it will have arrived, 0: no model. A copy
 * engine starts what is queued at once: a chunk that waited behind another follows the arrival of that one (`after`; 0: it
 * comes now), however late the thread that plays the engine woke up. */
uint64_t gv_model_link(int device, int direction, bool pageable, uint64_t bytes, uint64_t after);
/* The same from one copy of a stream to the next: when the calling thread's last copy arrived, if nothing came between. */
uint64_t gv_model_link_last(void);
void gv_model_link_leave(uint64_t arrival); /* 0: something came between */
void gv_model_sleep_until(uint64_t end_ns);

#endif
