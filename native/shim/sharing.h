/* SPDX-License-Identifier: Apache-2.0
 *
 * Extents of this process for the other processes of its job, and theirs for us: descriptors that go through the daemon, which
 * knows who belongs to which job. It holds them while the extents are in use here.
 */
#ifndef GPUVIRT_SHIM_SHARING_H
#define GPUVIRT_SHIM_SHARING_H

#include <stdint.h>

#include "connection.h"
#include "cuda_api.h"

/* A number that no other process has that gets our pid. Not 0. */
uint64_t gv_sharing_nonce(void);

/* Offers extents [first, first + count), one descriptor each (the caller closes them); returns when the daemon has them. */
CUresult gv_sharing_offer(uint64_t first, uint32_t count, const int *descriptors);
/* They are no longer ours. Waits for nothing. */
void gv_sharing_withdraw(uint64_t first, uint32_t count);
/* Extents of another process of the job; at most GV_SHARE_MAX. The descriptors are the caller's. */
CUresult gv_sharing_fetch(uint32_t pid, uint64_t nonce, uint64_t first, uint32_t count, int *descriptors);

/* What the program exports itself as a descriptor, by a number of ours: so that whoever imports it is not charged again. */
CUresult gv_sharing_offer_handle(uint64_t number, int descriptor);
void gv_sharing_withdraw_handle(uint64_t number);
/* Is this descriptor one that a process of the job offered so? */
int gv_sharing_is_ours(int descriptor);
/* CHARGE: may this process charge so much in all? 0: no, or no answer, for which an allocation that can wait waits longer. */
int gv_sharing_charge(uint64_t charged, uint64_t asked, int can_wait);

/* --- control thread --- */

typedef void gv_sharing_sender(uint16_t type, void *message, size_t size, const int *descriptors, int count);
void gv_sharing_send(gv_sharing_sender *send);                              /* all that waits */
void gv_sharing_answered(const struct gv_shared *answer, int *descriptors); /* takes the descriptors */
void gv_sharing_reattached(void); /* another daemon: it knows nothing of what was offered, and will not answer */
void gv_sharing_forget(void);     /* in the child of a fork */

#endif
