/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon wants moved: RESTORE, CREDIT and EVICT, and what it is told of them. Control thread only.
 */
#ifndef GPUVIRT_SHIM_MOVES_H
#define GPUVIRT_SHIM_MOVES_H

#include "connection.h"
#include "memory.h"

void gv_moves_take(const union gv_packet *packet);

/* Carries on what is under way. 1: it can go on at once; 0: it waits for the doorbell, for a message, or there is nothing. */
int gv_moves_go_on(void);
/* The connection is lost: what is under way ends at the window where it is. */
void gv_moves_lost(void);

/* Under the lease: brings in what the allowance has room for already. 1: nothing is missing any more, or it is on its way. */
int gv_moves_grow(void);

void gv_moves_forget(void); /* in the child of a fork */

/* --- control.c --- */

void gv_control_tell(uint16_t type, void *message, size_t size);
int gv_control_connected(void);
struct gv_memory_report gv_control_report(void); /* of what the daemon is about to hear */
void gv_control_served(void);                    /* the next WANT is a new one */
void gv_control_tell_memory(void);

#endif
