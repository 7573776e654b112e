/* SPDX-License-Identifier: Apache-2.0
 *
 * State of the process in its client page, and the calls that synchronise (class sync-aware: never gated).
 */
#include "activity.h"

#include <pthread.h>

#include "gate.h"
#include "passed.h"
#include "real_driver.h"
#include "session.h"

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;

void gv_activity_forget(void) { pthread_mutex_init(&state_lock, NULL); }

/* All counters of the client page are written under state_lock, or by the control thread where extents.c and swap.c say so. */
static void enter_state(uint32_t state, uint64_t since)
{
    struct gv_client *const page = gv_client_page();
    if (page->state == GV_CLIENT_RUNNING && page->ready_since_ns != 0 && since > page->ready_since_ns)
        gv_store64(&page->busy_ns, page->busy_ns + (since - page->ready_since_ns));
    gv_store64(&page->submitted, gv_gate_submitted());
    gv_passed_publish(&page->passed_calls);
    gv_store64(&page->ready_since_ns, since);
    gv_store32(&page->state, state);
}

void gv_activity_running(uint64_t waiting_since)
{
    const uint64_t before = __atomic_fetch_and(&gv_gate.obstacles, ~GV_IS_IDLE, __ATOMIC_ACQ_REL);
    if (waiting_since == 0 && !(before & GV_IS_IDLE))
        return;
    pthread_mutex_lock(&state_lock);
    struct gv_client *const page = gv_client_page();
    const uint64_t now = gv_now_ns();
    if (waiting_since != 0)
        gv_store64(&page->waited_ns, page->waited_ns + (now - waiting_since));
    if (page->state != GV_CLIENT_RUNNING)
        enter_state(GV_CLIENT_RUNNING, now);
    pthread_mutex_unlock(&state_lock);
}

void gv_activity_waiting(uint64_t since)
{
    pthread_mutex_lock(&state_lock);
    if (gv_client_page()->state != GV_CLIENT_WAITING)
        enter_state(GV_CLIENT_WAITING, since);
    pthread_mutex_unlock(&state_lock);
}

/* Returns 1 when the process was running. */
static int enter_idle(void)
{
    if (gv_gate.obstacles & (GV_IS_IDLE | GV_UNATTACHED))
        return 0;
    pthread_mutex_lock(&state_lock);
    const int was_running = gv_client_page()->state == GV_CLIENT_RUNNING;
    if (was_running) {
        enter_state(GV_CLIENT_IDLE, gv_now_ns());
        /* From here the next submission leaves the fast path once. One that passes right now is only reported late. */
        __atomic_fetch_or(&gv_gate.obstacles, GV_IS_IDLE, __ATOMIC_ACQ_REL);
    }
    pthread_mutex_unlock(&state_lock);
    return was_running;
}

void gv_activity_idle(void)
{
    if (enter_idle() && gv_lease_state(gv_load32(&gv_gate.lease->word)) == GV_LEASE_GRANTED)
        gv_session_poke(GV_POKE_IDLE);
}

void gv_activity_quiet(void) { enter_idle(); }

#define SYNCHRONISE(call, stream, whole)                                                                               \
    struct gv_activity_mark mark;                                                                                      \
    gv_activity_sync_begin(&mark);                                                                                     \
    const CUresult result = call;                                                                                      \
    if (result == CUDA_SUCCESS)                                                                                        \
        gv_activity_sync_end(&mark, stream, whole);                                                                    \
    else                                                                                                               \
        gv_gate_failed(result);                                                                                        \
    return result

GV_EXPORT CUresult cuCtxSynchronize(void) { SYNCHRONISE(REAL(cuCtxSynchronize)(), NULL, 1); }

GV_EXPORT CUresult cuCtxSynchronize_v2(CUcontext ctx) { SYNCHRONISE(REAL(cuCtxSynchronize_v2)(ctx), NULL, 1); }

GV_EXPORT CUresult cuStreamSynchronize(CUstream hStream)
{
    SYNCHRONISE(REAL(cuStreamSynchronize)(hStream), hStream, 0);
}

GV_EXPORT CUresult cuStreamSynchronize_ptsz(CUstream hStream)
{
    SYNCHRONISE(REAL(cuStreamSynchronize_ptsz)(hStream), hStream == NULL ? CU_STREAM_PER_THREAD : hStream, 0);
}
