/* SPDX-License-Identifier: Apache-2.0
 *
 * The daemon's side of one client, played by a thread of the test itself: it decides to the instruction when the job has the
 * lease. Every promise is kept: it stores CLOSED only after DRAINED.
 */
#ifndef GPUVIRT_TESTS_PEER_H
#define GPUVIRT_TESTS_PEER_H

#include <stdint.h>

#include "gpuvirt/control_block_ops.h"

/* Before the first CUDA call: opens the socket that the shim will find, sets GPUVIRT_SOCKET and GPUVIRT_JOB. */
void peer_start(void);

/* A new epoch: OPEN, GRANTED or STEP. */
void peer_grant(uint32_t state);

/* Work in flight is bounded to so many microseconds of GPU time under GRANTED; 0: not at all. */
void peer_window(uint32_t microseconds);

/* DRAIN; returns when the client has said DRAINED, and CLOSED is stored. */
void peer_revoke(void);

/* The two halves of it. */
void peer_drain(void);
void peer_close(void);

/* What the shim sees. The client's page is valid after the first attach. */
const struct gv_lease *peer_lease(void);
const struct gv_client *peer_client(void);

/* May the device be given work now? False from the moment at which the client has said that it has drained. */
int peer_allows(void);

/* How many messages of this type have come. */
uint32_t peer_heard(uint16_t type);

#endif
