/* SPDX-License-Identifier: Apache-2.0
 *
 * Whether this process uses the GPU, waits for it or leaves it idle: told to the daemon in the client page, at changes only.
 * Idle is an event (a synchronising call returned and nothing is outstanding), never a timer.
 */
#ifndef GPUVIRT_SHIM_ACTIVITY_H
#define GPUVIRT_SHIM_ACTIVITY_H

#include <stdint.h>

#include "cuda_api.h"

struct gv_thread;
enum { GV_ACTIVITY_THREADS = 64 }; /* with more submitting threads only a drain proves idleness */

/* What each thread had submitted before a synchronising call. */
struct gv_activity_mark {
    int count;
    uint64_t ended; /* threads that had ended by then with work under way */
    struct gv_thread *threads[GV_ACTIVITY_THREADS];
    uint64_t submitted[GV_ACTIVITY_THREADS];
};

void gv_activity_forget(void); /* in the child of a fork */

void gv_activity_sync_begin(struct gv_activity_mark *mark);
/* After the call: everything (`whole`), or all that was given to `stream`, has finished. */
void gv_activity_sync_end(const struct gv_activity_mark *mark, CUstream stream, int whole);

/* Changes of state. `waiting_since`: when the thread began to wait at the gate, 0 if it did not. */
void gv_activity_running(uint64_t waiting_since);
void gv_activity_waiting(uint64_t since);
void gv_activity_idle(void);
/* All that had been given when the mark was taken has finished; no message is due. */
void gv_activity_drained(const struct gv_activity_mark *mark);
void gv_activity_look(void);  /* control thread: somebody else came to wait; are we idle already? */
void gv_activity_quiet(void); /* as idle, without a message */

/* Control thread, now and then: the count of submissions in the client page is not older than one turn of it. */
void gv_activity_publish(void);

#endif
