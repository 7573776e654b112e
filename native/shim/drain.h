/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting until all that was given to the GPU has finished, in a thread of its own: it can take for ever (work that waits for a
 * value which another thread of the job must write, and that thread waits at the gate), and meanwhile the control thread must
 * go on: say so to the daemon, bring in memory, take the lease back. The thread begins with the first drain.
 */
#ifndef GPUVIRT_SHIM_DRAIN_H
#define GPUVIRT_SHIM_DRAIN_H

#include <stdint.h>

/* --- control thread ------------------------------------------------------------------------------------------------------- */

enum gv_drain_news { GV_DRAIN_NOTHING, GV_DRAIN_ENDED, GV_DRAIN_STUCK };

/* The lease word says DRAIN with this epoch: begins the drain at the first sight of it; returns what the daemon must hear now, each
 * once. The doorbell rings when the drain ends. Epoch 0: the drain of gv_drain_again, if there is one. */
enum gv_drain_news gv_drain_follow(uint32_t epoch);

/* Another daemon, whose page says CLOSED; under the old one work may have been given: begins the drain of epoch 0. */
void gv_drain_again(void);

/* Milliseconds until gv_drain_follow may have something to say that no descriptor tells, at most `longest`. */
int gv_drain_due_ms(int longest);

/* A thread of the program that is about to wait at the gate: if everything that was given to the GPU has finished already, it
 * says so for the control thread, which would have to be woken first. That one does it again: it has more to look at. */
void gv_drain_by_program(void);

/* The proof of this epoch, into the client page; wakes who waits for it. */
void gv_drain_tell(uint32_t epoch);

void gv_drain_renew(void);  /* another daemon, before its page is there: its epochs begin anew */
void gv_drain_forget(void); /* in the child of a fork */

#endif
