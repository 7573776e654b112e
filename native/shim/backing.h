/* SPDX-License-Identifier: Apache-2.0
 *
 * Asks the daemon for host memory in the middle of a transaction. What else comes on the connection meanwhile is kept, in its
 * order, for the loop of the control thread. Control thread only.
 */
#ifndef GPUVIRT_SHIM_BACKING_H
#define GPUVIRT_SHIM_BACKING_H

#include "connection.h"
#include "cuda_api.h"

/* The connection to use from now on; -1: there is none. What was kept of the one before is void. */
void gv_backing_connected(int connection);

/* Host memory for these segments of the arena: waits for the answer. CUDA_ERROR_OUT_OF_MEMORY without it. */
CUresult gv_backing_ask(uint32_t segment, uint32_t count);

/* What was kept: is there any; the oldest (1, with its descriptors, or 0). */
int gv_backing_any(void);
int gv_backing_next(union gv_packet *packet, int descriptors[GV_DESCRIPTORS_MAX]);

void gv_backing_forget(void); /* in the child of a fork */

#endif
