/* SPDX-License-Identifier: Apache-2.0
 *
 * What handles (vmm_handle.c) and mappings (vmm.c) share.
 */
#ifndef GPUVIRT_SOFTGPU_VMM_H
#define GPUVIRT_SOFTGPU_VMM_H

#include "memory.h"

/* Behind CUmemGenericAllocationHandle. */
struct gv_handle {
    struct gv_object object;
    struct gv_physical *physical;
    uint32_t references; /* cuMemCreate, cuMemRetainAllocationHandle; under gv_memory_lock. > 0 holds `physical` once */
    uint32_t mappings;   /* each holds `physical` once */
    CUmemAllocationProp properties;
};

/* NULL when it is no handle. */
struct gv_handle *gv_handle_of(CUmemGenericAllocationHandle handle);
/* Under gv_memory_lock: one holder less; `counter` is one of the handle's two. */
void gv_handle_drop(struct gv_handle *handle, uint32_t *counter);

/* Under gv_memory_lock: what is mapped there, and from where to where; NULL: nothing. */
struct gv_physical *gv_mapped_physical(uint64_t address, uint64_t *base, uint64_t *end);

static inline bool gv_is_aligned(uint64_t value, uint64_t unit) { return value % unit == 0; }

#endif
