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

/* Notes that charged bytes belong to a handle or address. 0, or -1 without host memory (nothing noted). O(1). */
int gv_fixed_remember(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes);
/* The bytes of what was freed are discharged; returns them, 0 for what is not known. O(1). */
uint64_t gv_fixed_freed(enum gv_fixed_kind kind, uint64_t key);
/* The bytes noted for a handle or address, 0 when there is none. */
uint64_t gv_fixed_find(enum gv_fixed_kind kind, uint64_t key);

void gv_fixed_forget(void); /* in the child of a fork */

#endif
