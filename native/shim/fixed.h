/* SPDX-License-Identifier: Apache-2.0
 *
 * Fixed memory: device memory of the program that gpuvirt does not move, and why (enum gv_fixed_kind). It is charged to the
 * job, counts as resident while it lives, and shows in the client page by kind.
 *
 * Order of use: charge before the driver is asked, so that a quota is never found out afterwards; remember under the handle or
 * address that will be freed; and where the driver refuses, discharge.
 */
#ifndef GPUVIRT_SHIM_FIXED_H
#define GPUVIRT_SHIM_FIXED_H

#include <stdint.h>

#include "cuda_api.h"
#include "gpuvirt/control_block.h"
#include "notes.h"
#include "room.h"

/*
 * Charges bytes to the job, and waits until the daemon has made room for them (room.h): with no lock held, and not inside the
 * gate. CUDA_ERROR_OUT_OF_MEMORY when the job's quota does not allow them; nothing is charged then. Attaches the process.
 */
CUresult gv_fixed_charge(enum gv_fixed_kind kind, uint64_t bytes);
void gv_fixed_discharge(enum gv_fixed_kind kind, uint64_t bytes);

/* Bytes that are charged already, as extents or blocks, have to stay from now on (or not any more): they only show by kind. */
void gv_fixed_count(enum gv_fixed_kind kind, uint64_t bytes);
void gv_fixed_uncount(enum gv_fixed_kind kind, uint64_t bytes);

/* Strangers may use the device too: asks again for `call` while the driver lacks memory for bytes that are charged. */
#define GV_FIXED_CALL(bytes, call)                                                                                     \
    ({                                                                                                                 \
        int gv_tries = 0;                                                                                              \
        CUresult gv_result;                                                                                            \
        do                                                                                                             \
            gv_result = (call);                                                                                        \
        while (gv_result == CUDA_ERROR_OUT_OF_MEMORY && gv_room_again(bytes, &gv_tries));                              \
        gv_result;                                                                                                     \
    })

/* Notes that charged bytes belong to a handle or address: 0 (there is a place for the note of whatever is charged). O(1). */
int gv_fixed_remember(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes);
/* The same for what ends with a context at the latest. */
int gv_fixed_remember_in(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes, CUcontext context);
/* The bytes of what was freed are discharged; returns them, 0 for what is not known. O(1). */
uint64_t gv_fixed_freed(enum gv_fixed_kind kind, uint64_t key);
/* The bytes noted for a handle or address, 0 when there is none. */
uint64_t gv_fixed_find(enum gv_fixed_kind kind, uint64_t key);

/*
 * The usual way of an allocation: charged, then `call` is asked, then noted under `key` (evaluated after the call) for the
 * current context; where the driver refuses, discharged.
 */
#define GV_FIXED_CREATE(kind, bytes, call, key)                                                                        \
    ({                                                                                                                 \
        const uint64_t gv_bytes = (bytes);                                                                             \
        CUresult gv_created = gv_fixed_charge(kind, gv_bytes);                                                         \
        if (gv_created == CUDA_SUCCESS) {                                                                              \
            gv_created = GV_FIXED_CALL(gv_bytes, call);                                                                \
            if (gv_created == CUDA_SUCCESS)                                                                            \
                gv_fixed_remember_here(kind, (uint64_t)(key), gv_bytes);                                               \
            else                                                                                                       \
                gv_fixed_discharge(kind, gv_bytes);                                                                    \
        }                                                                                                              \
        gv_created;                                                                                                    \
    })
void gv_fixed_remember_here(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes);

/*
 * And of its end. The note is taken out before the driver may give the same handle to another thread, and put back when the
 * driver refuses.
 */
#define GV_FIXED_DESTROY(kind, key, call)                                                                              \
    ({                                                                                                                 \
        struct gv_note gv_its;                                                                                         \
        const int gv_known = gv_fixed_take(kind, (uint64_t)(key), &gv_its);                                            \
        const CUresult gv_destroyed = (call);                                                                          \
        if (gv_known)                                                                                                  \
            gv_fixed_taken(&gv_its, gv_destroyed == CUDA_SUCCESS);                                                     \
        gv_destroyed;                                                                                                  \
    })
int gv_fixed_take(enum gv_fixed_kind kind, uint64_t key, struct gv_note *note);
void gv_fixed_taken(const struct gv_note *note, int gone);

/* A charged piece that the driver has made larger or smaller: the charge follows, whatever the quota says. */
void gv_fixed_resize(enum gv_fixed_kind kind, uint64_t from, uint64_t to);

void gv_fixed_context_ended(CUcontext context); /* the driver has freed what was in it */
void gv_fixed_forget(void);                     /* in the child of a fork */

#endif
