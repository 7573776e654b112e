/* SPDX-License-Identifier: Apache-2.0 */
#include "drain.h"

#include <pthread.h>
#include <sys/eventfd.h>

#include "activity.h"
#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "log.h"
#include "real_driver.h"
#include "restore.h"
#include "session.h"
#include "streams.h"
#include "swap.h"

enum {
    STUCK_MS = 1000,    /* a drain that takes so long may never end */
    STUCK_SOON_MS = 20, /* the same when the program has had work wait for values */
    FENCE_PAUSE_NS = 20 * 1000,
    FENCE_PAUSE_MAX_NS = 1000 * 1000,
};

static uint32_t asked; /* drains begun; futex of the thread; written by the control thread */
static uint32_t ended; /* the last one that has ended; written by who drains */

/* Which drain proves which epoch, so that the thread can tell the daemon by itself: the control thread would be woken first. */
static pthread_mutex_t tell_lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t told_by, told_epoch; /* number of a drain, or 0, and its epoch; under tell_lock */
static uint32_t daemons;             /* that we have been attached to; written under tell_lock by the control thread */

/* The rest is the control thread's. */
static int has_thread;
static struct current {
    uint32_t epoch; /* of the drain that was last begun; a grant's is never 0 */
    uint64_t since;
    int stuck_said, end_said;
} current = {.stuck_said = 1, .end_said = 1};

void gv_drain_forget(void)
{
    asked = ended = 0;
    has_thread = 0;
    pthread_mutex_init(&tell_lock, NULL); /* whoever had it is not in this process */
    gv_drain_renew();
}

void gv_drain_tell(uint32_t epoch)
{
    gv_store32(&gv_session.client->drained_epoch, epoch);
    gv_futex_wake_all(&gv_session.client->drained_epoch); /* gpuvirtd, if it knows already what comes next */
}

/* A drain has ended. Nothing is told of one whose epoch is over, or of another daemon's. */
static void tell_end_of(uint32_t number)
{
    pthread_mutex_lock(&tell_lock);
    if (told_by == number)
        gv_drain_tell(told_epoch);
    pthread_mutex_unlock(&tell_lock);
}

static void will_tell(uint32_t number, uint32_t epoch)
{
    pthread_mutex_lock(&tell_lock);
    told_by = epoch == 0 ? 0 : number;
    told_epoch = epoch;
    pthread_mutex_unlock(&tell_lock);
}

/* The driver's own word for it, and it does not wait; only for who has the one context of the process. */
static int all_finished(void)
{
    if (__atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED) || !gv_contexts_only_current() || !gv_gate_fence_now() ||
        !gv_streams_finished() || !gv_capture_hold_off())
        return 0;
    const CUresult result = REAL(cuCtxSynchronize)(); /* nothing can come: the gate is closed, and nobody was inside */
    gv_capture_let_begin();
    return result == CUDA_SUCCESS;
}

void gv_drain_by_program(void)
{
    const uint32_t daemon = __atomic_load_n(&daemons, __ATOMIC_ACQUIRE);
    const uint32_t word = gv_load32(&gv_session.lease->word);
    const uint32_t epoch = gv_lease_epoch(word);
    if (gv_lease_state(word) != GV_LEASE_DRAIN || gv_load32(&gv_session.client->drained_epoch) == epoch ||
        !all_finished())
        return;
    pthread_mutex_lock(&tell_lock);
    if (daemon == daemons) /* else the epoch is one of a daemon that is gone */
        gv_drain_tell(epoch);
    pthread_mutex_unlock(&tell_lock);
}

/* Returns when no thread is in a launch that saw the word open: one may be blocked in the driver for long. */
static void fence(void)
{
    long pause_ns = FENCE_PAUSE_NS;
    for (; !gv_gate_fence_now(); pause_ns = pause_ns < FENCE_PAUSE_MAX_NS ? pause_ns * 9 / 8 : pause_ns)
        nanosleep(&(struct timespec){0, pause_ns}, NULL);
}

static void drain(void)
{
    struct gv_activity_mark mark;
    fence();
    gv_activity_sync_begin(&mark); /* the lease may come back before this ends: what is given then is not drained */
    const CUresult result = gv_contexts_drain();
    if (result != CUDA_SUCCESS) {
        gv_debug("drained with CUDA error %d", (int)result);
        gv_gate_failed(result);
    }
    gv_activity_drained(&mark);
    gv_gate_notify();
}

static void *drain_thread(void *unused)
{
    (void)unused;
    gv_contexts_second_seat();
    for (;;) {
        const uint32_t number = __atomic_load_n(&asked, __ATOMIC_ACQUIRE);
        if (number == __atomic_load_n(&ended, __ATOMIC_RELAXED)) {
            gv_futex_wait(&asked, number, 3600ull * 1000000000u);
            continue;
        }
        drain();
        tell_end_of(number);
        __atomic_store_n(&ended, number, __ATOMIC_RELEASE);
        eventfd_write(gv_session.doorbell, 1);
    }
    return NULL;
}

/*
 * A program that waits for its launches has nothing on the GPU by the time that the control thread hears of the drain, or is
 * about to: then there is nothing to wait for, and to wake the other thread and be woken by it would take most of the hand-over.
 * Not with a program that gives the GPU what waits: it could come between this look and the proof.
 */
static int nothing_to_wait_for(void)
{
    return !__atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED) && !gv_swap_holds_context() &&
           !gv_restore_under_way() && gv_gate_fence_now() && gv_contexts_enter() == CUDA_SUCCESS &&
           gv_streams_finished();
}

static int has_ended(void) { return __atomic_load_n(&ended, __ATOMIC_ACQUIRE) == asked; }

/* One more; if one is under way, that ends first. */
static void begin_drain(uint32_t epoch)
{
    const int at_once = has_ended() && nothing_to_wait_for();
    will_tell(asked + 1, epoch);
    __atomic_add_fetch(&asked, 1, __ATOMIC_RELEASE);
    if (at_once) {
        drain(); /* the full proof all the same: it does not wait */
        __atomic_store_n(&ended, asked, __ATOMIC_RELEASE);
        return;
    }
    if (!has_thread && gv_session_start_thread(drain_thread) == 0)
        has_thread = 1;
    if (has_thread) {
        gv_futex_wake_all(&asked);
        return;
    }
    drain(); /* no thread to be had: as well as we can */
    __atomic_store_n(&ended, asked, __ATOMIC_RELEASE);
}

static uint64_t patience_ns(void)
{
    return (__atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED) ? STUCK_SOON_MS : STUCK_MS) * 1000000ull;
}

enum gv_drain_news gv_drain_follow(uint32_t epoch)
{
    if (epoch != current.epoch && epoch == 0)
        return GV_DRAIN_NOTHING; /* a drain of the new daemon's took the place of that one */
    if (epoch != current.epoch) {
        current = (struct current){.epoch = epoch, .since = gv_now_ns()};
        begin_drain(epoch);
    }
    if (has_ended() && !current.end_said) {
        current.end_said = current.stuck_said = 1;
        return GV_DRAIN_ENDED;
    }
    if (!current.stuck_said && gv_now_ns() - current.since >= patience_ns()) {
        current.stuck_said = 1;
        return GV_DRAIN_STUCK;
    }
    return GV_DRAIN_NOTHING;
}

int gv_drain_due_ms(int longest)
{
    if (current.stuck_said || has_ended())
        return longest;
    const uint64_t due = current.since + patience_ns(), now = gv_now_ns();
    const uint64_t milliseconds = due <= now ? 0 : (due - now) / 1000000 + 1;
    return milliseconds < (uint64_t)longest ? (int)milliseconds : longest;
}

void gv_drain_again(void)
{
    current = (struct current){.since = gv_now_ns()};
    begin_drain(0);
}

void gv_drain_renew(void)
{
    current = (struct current){.stuck_said = 1, .end_said = 1};
    will_tell(0, 0);
    pthread_mutex_lock(&tell_lock);
    __atomic_store_n(&daemons, daemons + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&tell_lock);
}
