/* SPDX-License-Identifier: Apache-2.0
 *
 * State of the process in its client page, and the calls that wait for work or ask for it (class sync-aware: never gated, never
 * under a lock; their answers are the driver's). An answer that says "finished" may prove that the process is idle.
 */
#include "activity.h"

#include <pthread.h>

#include "gate.h"
#include "passed.h"
#include "pool.h"
#include "real_driver.h"
#include "session.h"

static pthread_mutex_t state_lock = PTHREAD_MUTEX_INITIALIZER;

void gv_activity_forget(void) { pthread_mutex_init(&state_lock, NULL); }

enum { PUBLISH_EVERY_NS = 2000000 };

/*
 * A program that waits for each launch is idle and running again thousands of times a second. While it is alone nobody decides
 * anything by these times, they only add up to how long it was busy: there the clock that costs nothing is as good on average.
 */
static uint64_t state_clock_ns(void)
{
    if (gv_lease_state(gv_load32(&gv_gate.lease->word)) != GV_LEASE_OPEN)
        return gv_now_ns();
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* All counters of the client page are written under state_lock, or by the control thread where extents.c and swap.c say so. */
static void enter_state(uint32_t state, uint64_t since)
{
    struct gv_client *const page = gv_client_page();
    if (page->state == GV_CLIENT_RUNNING && page->ready_since_ns != 0 && since > page->ready_since_ns)
        gv_store64(&page->busy_ns, page->busy_ns + (since - page->ready_since_ns));
    if (state != GV_CLIENT_RUNNING)
        gv_store64(&page->submitted, gv_gate_submitted());
    static uint64_t published; /* it looks at many pages */
    if (since - published > PUBLISH_EVERY_NS) {
        gv_passed_publish(&page->passed_calls);
        published = since;
    }
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
    const uint64_t now = waiting_since != 0 ? gv_now_ns() : state_clock_ns();
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
        enter_state(GV_CLIENT_IDLE, state_clock_ns());
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

void gv_activity_publish(void)
{
    pthread_mutex_lock(&state_lock); /* an older sum must not follow a newer one: counters never fall */
    gv_store64(&gv_client_page()->submitted, gv_gate_submitted());
    pthread_mutex_unlock(&state_lock);
}

#define SYNCHRONISE(call, stream, whole)                                                                               \
    struct gv_activity_mark mark;                                                                                      \
    gv_activity_sync_begin(&mark);                                                                                     \
    const CUresult result = call;                                                                                      \
    gv_pool_program_waited();                                                                                          \
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

/* Somebody else waits for the GPU: only then is it worth a look whether an answer proves idleness. */
static int wanted_by_others(void) { return gv_lease_state(gv_load32(&gv_gate.lease->word)) == GV_LEASE_GRANTED; }

/* Polls, and waits for an event: a program that is alone pays one load for them. */
#define ASK(call, stream)                                                                                              \
    struct gv_activity_mark mark;                                                                                      \
    const int look = wanted_by_others();                                                                               \
    if (look)                                                                                                          \
        gv_activity_sync_begin(&mark);                                                                                 \
    const CUresult result = call;                                                                                      \
    if (look && result == CUDA_SUCCESS)                                                                                \
        gv_activity_sync_end(&mark, stream, 0);                                                                        \
    if (result != CUDA_SUCCESS && result != CUDA_ERROR_NOT_READY)                                                      \
        gv_gate_failed(result);                                                                                        \
    return result

GV_EXPORT CUresult cuStreamQuery(CUstream hStream) { ASK(REAL(cuStreamQuery)(hStream), hStream); }

GV_EXPORT CUresult cuStreamQuery_ptsz(CUstream hStream)
{
    ASK(REAL(cuStreamQuery_ptsz)(hStream), hStream == NULL ? CU_STREAM_PER_THREAD : hStream);
}

#define NO_STREAM ((CUstream) - 1) /* an event says nothing of a whole stream: all of them are asked then */

GV_EXPORT CUresult cuEventQuery(CUevent hEvent) { ASK(REAL(cuEventQuery)(hEvent), NO_STREAM); }

GV_EXPORT CUresult cuEventSynchronize(CUevent hEvent) { ASK(REAL(cuEventSynchronize)(hEvent), NO_STREAM); }
