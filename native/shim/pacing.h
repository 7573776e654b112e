/* SPDX-License-Identifier: Apache-2.0
 *
 * The window: while others want the GPU, what a stream has been given and has not finished is bounded in GPU time (the lease
 * page's window_us, W), so that the job can be asked to give the GPU back. Alone, W is 0 and nothing here is called.
 *
 * Behind some launches the launching thread records an event: a mark. Two marks may be outstanding in a stream, W/2 of GPU time
 * apart; who would give it more waits for the older one, outside of the gate. How many launches make up W/2 is learned from the
 * times at which marks pass, for the stream and for each executable graph.
 *
 * All of it belongs to the thread that launches: no lock, nothing shared. Threads that use one stream have marks of their own;
 * since these pass as fast as the stream's work of all of them does, their sum keeps to W as well, and so does the sum over
 * streams that share the GPU.
 *
 * A mark may stand behind work that ends only when this very thread gets on (a host function that needs its lock): nobody
 * waits for one for ever. (marks.h has other marks: those that a drain beside a capture waits for.)
 */
#ifndef GPUVIRT_SHIM_PACING_H
#define GPUVIRT_SHIM_PACING_H

#include "cuda_api.h"
#include "gate.h"

/* W in microseconds under this lease word; 0: no bound. */
static inline uint32_t gv_pacing_window(uint32_t word)
{
    return gv_lease_state(word) == GV_LEASE_GRANTED ? __atomic_load_n(&gv_gate.lease->window_us, __ATOMIC_RELAXED) : 0;
}

/* Has the stream as much work in flight as it may have? Calling thread, which may be in its launch: never waits. */
int gv_pacing_full(struct gv_thread *thread, CUstream stream);

/* After that, not in a launch and holding nothing: waits until there is less; not for ever. */
void gv_pacing_wait(struct gv_thread *thread, uint32_t window_us);

/* After the driver's call, still in the launch: counts it, and marks the stream when it is time. (Declared in gate.h.) */
void gv_pacing_gave(struct gv_thread *thread);

/* Before gv_gate_leave: what was given is a launch of this graph. */
static inline void gv_pacing_graph(const struct gv_submission *submission, CUgraphExec graph)
{
    if (submission->thread != NULL)
        submission->thread->graph = graph;
}

void gv_pacing_thread_ends(struct gv_thread *thread);
void gv_pacing_context_ended(CUcontext context); /* its events went with it */
void gv_pacing_forget(void);                     /* in the child of a fork */

#endif
