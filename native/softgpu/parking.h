/* SPDX-License-Identifier: Apache-2.0
 *
 * Physical memory that has no address of the program at the moment stays mapped in a place of its own: mapped again it needs no
 * page to be found, cleared and entered, as on a device. When its last holder is gone it waits there for the next handle of its
 * size ("spare") (stale.h).
 */
#ifndef GPUVIRT_SOFTGPU_PARKING_H
#define GPUVIRT_SOFTGPU_PARKING_H

#include "memory.h"

/* Under gv_memory_lock. Moves the mapping of all of it away from its only view; what is left at the address is for the caller
 * to unmap. False: it is as it was. */
bool gv_park(struct gv_physical *physical);
/* The way back, to any reserved address, with whatever access it had. False: it is as it was. */
bool gv_unpark(struct gv_physical *physical, uint64_t address);
/* Forgets the place; the memory stays. */
void gv_park_leave(struct gv_physical *physical);

/* Keeps what nobody holds any more, descriptor and place. False: it is not worth it, or nobody else's business. */
bool gv_spare_keep(struct gv_physical *physical);
/* Memory of this size for `physical`, parked and stale, if it is `wanted`. False: there is none, and as much is given back to
 * the host. Nobody else knows `physical`. */
bool gv_spare_take(struct gv_physical *physical, bool wanted);
/* Gives so many bytes back to the host, if there are. */
void gv_spares_drop(uint64_t bytes);

#endif
