/* SPDX-License-Identifier: Apache-2.0
 *
 * Where physical memory is mapped in this process, kept so that a checkpoint can take all of it away and put it back. All
 * under gv_memory_lock.
 */
#ifndef GPUVIRT_SOFTGPU_VIEWS_H
#define GPUVIRT_SOFTGPU_VIEWS_H

#include <stdbool.h>
#include <stdint.h>

struct gv_physical;

struct gv_view {
    uint64_t address, bytes; /* of the start of the physical memory */
    int protection;          /* PROT_* */
    struct gv_view *next;
};

bool gv_view_add(struct gv_physical *physical, uint64_t address, uint64_t bytes, int protection);
void gv_view_protect(struct gv_physical *physical, uint64_t address, int protection);
void gv_view_remove(struct gv_physical *physical, uint64_t address);

#endif
