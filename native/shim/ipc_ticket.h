/* SPDX-License-Identifier: Apache-2.0
 *
 * What the bytes of a CUipcMemHandle of ours say.
 */
#ifndef GPUVIRT_SHIM_IPC_TICKET_H
#define GPUVIRT_SHIM_IPC_TICKET_H

#include <stdint.h>

#include "cuda_api.h"

#define GV_IPC_MAGIC 0x69707667u /* "gvpi": no driver's handle begins so */

struct gv_ipc_ticket {
    uint32_t magic;
    uint32_t pid;          /* of the exporter, */
    uint64_t nonce;        /* which no other process with that pid has */
    uint64_t first, count; /* its extents that the allocation lies in */
    uint64_t offset;       /* of the allocation in the first of them */
    uint64_t bytes;        /* as the program asked */
    uint64_t serial;       /* of the allocation: handles of addresses used again differ */
    uint64_t extent_bytes;
};
_Static_assert(sizeof(struct gv_ipc_ticket) <= CU_IPC_HANDLE_SIZE, "too large for a handle");

#endif
