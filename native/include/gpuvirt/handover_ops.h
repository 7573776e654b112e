/* SPDX-License-Identifier: Apache-2.0
 *
 * The one moment of a hand-over that cannot wait for Python: the giver has drained, and the taker may launch. For gpuvirtd
 * (through cffi); Python decides who is next while the giver drains, and arms:
 *
 *     Python                      thread                                 state
 *     arm(plan) ----------------> waits for drained_epoch of each        ARMED
 *                                 client of the giver (futex)
 *                                 writes the lease words, wakes taker    FIRING
 *     reads the descriptor <----- says so                                FIRED
 *     take(): when it fired, or that it will not                         IDLE
 *
 * Whoever changes facts takes first: nothing fires while Python decides. Both words of the plan are the daemon's own pages; of
 * the clients' pages only drained_epoch is read.
 */
#ifndef GPUVIRT_HANDOVER_OPS_H
#define GPUVIRT_HANDOVER_OPS_H

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gpuvirt/control_block_ops.h"

enum gv_handover_state {
    GV_HANDOVER_IDLE = 0,
    GV_HANDOVER_ARMED = 1,
    GV_HANDOVER_FIRING = 2,
    GV_HANDOVER_FIRED = 3,
    GV_HANDOVER_STATES = 3, /* mask; above it the number of the plan */
    GV_HANDOVER_CLIENTS = 16,
    GV_HANDOVER_LOOK_NS = 5000000, /* a wake that was missed costs the speed of one hand-over, nothing else */
};

struct gv_handover {
    pthread_t thread;
    int descriptor;           /* becomes readable when it has fired */
    uint32_t state;           /* futex; Python: IDLE, ARMED; thread: FIRING, FIRED */
    uint32_t stop;            /* Python, before it wakes the thread for the last time */
    const uint32_t *waits_on; /* thread: what it is about to read; see gv_handover_leave */
    /* The plan: written by Python in IDLE. What the thread reads in ARMED is atomic; the rest it reads in FIRING alone. */
    uint32_t epoch, clients;
    const uint32_t *drained[GV_HANDOVER_CLIENTS];
    struct gv_lease *giver, *taker;
    uint32_t giver_word, taker_word, flags, window_us;
    uint64_t length_ns; /* of the taker's quantum; 0: none */
    uint64_t at_ns;     /* thread, in FIRING: when the words were written */
};

/* The clients of the giver have drained; false when the plan is void. */
static inline int gv_handover_wait(struct gv_handover *handover, uint32_t state)
{
    int whole = 1;
    const uint32_t epoch = __atomic_load_n(&handover->epoch, __ATOMIC_RELAXED);
    const uint32_t clients = __atomic_load_n(&handover->clients, __ATOMIC_RELAXED);
    for (uint32_t i = 0; whole && i < clients && i < GV_HANDOVER_CLIENTS; i++) {
        const uint32_t *const word = __atomic_load_n(&handover->drained[i], __ATOMIC_RELAXED);
        /* Said before the plan is looked at again (both seq_cst): who has voided the plan and sees nothing here may unmap. */
        __atomic_store_n(&handover->waits_on, word, __ATOMIC_SEQ_CST);
        for (;;) {
            whole = __atomic_load_n(&handover->state, __ATOMIC_SEQ_CST) == state;
            if (!whole)
                break;
            const uint32_t seen = gv_load32(word); /* acquire: its work was finished before */
            if (seen == epoch)
                break;
            gv_futex_wait(word, seen, GV_HANDOVER_LOOK_NS);
        }
    }
    __atomic_store_n(&handover->waits_on, NULL, __ATOMIC_SEQ_CST);
    return whole;
}

static inline void gv_handover_fire(struct gv_handover *handover)
{
    struct gv_lease *const giver = handover->giver, *const taker = handover->taker;
    handover->at_ns = gv_now_ns();
    gv_store32(&taker->flags, handover->flags);
    gv_store64(&taker->deadline_ns, handover->length_ns == 0 ? 0 : handover->at_ns + handover->length_ns);
    gv_store32(&taker->window_us, handover->window_us);
    gv_store32(&taker->word, handover->taker_word); /* release: with what was written before it */
    gv_futex_wake_all(&taker->word);
    gv_store32(&giver->word, handover->giver_word); /* DRAIN kept its gate as closed */
    gv_futex_wake_all(&giver->word);
}

static inline void *gv_handover_thread(void *data)
{
    struct gv_handover *const handover = data;
    while (!__atomic_load_n(&handover->stop, __ATOMIC_ACQUIRE)) {
        uint32_t state = __atomic_load_n(&handover->state, __ATOMIC_ACQUIRE);
        if ((state & GV_HANDOVER_STATES) != GV_HANDOVER_ARMED) {
            gv_futex_wait(&handover->state, state, 3600ull * 1000000000u);
            continue;
        }
        const uint32_t firing = (state & ~(uint32_t)GV_HANDOVER_STATES) | GV_HANDOVER_FIRING;
        if (!gv_handover_wait(handover, state) ||
            !__atomic_compare_exchange_n(&handover->state, &state, firing, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            continue;
        gv_handover_fire(handover);
        /* release: at_ns; the words are written before Python decides anything else */
        __atomic_store_n(&handover->state, firing | GV_HANDOVER_FIRED, __ATOMIC_RELEASE);
        gv_futex_wake_all(&handover->state);
        eventfd_write(handover->descriptor, 1);
    }
    return NULL;
}

/* Starts the thread. 0, or an errno. */
static inline int gv_handover_start(struct gv_handover *handover)
{
    handover->descriptor = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (handover->descriptor < 0)
        return errno;
    sigset_t all, before; /* signals are for Python's main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&handover->thread, NULL, gv_handover_thread, handover);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        close(handover->descriptor);
    return error;
}

/* Part of the plan, in IDLE: who drains, and in how many clients; where each says so. */
static inline void gv_handover_drains(struct gv_handover *handover, uint32_t epoch, uint32_t clients)
{
    __atomic_store_n(&handover->epoch, epoch, __ATOMIC_RELAXED);
    __atomic_store_n(&handover->clients, clients, __ATOMIC_RELAXED);
}

static inline void gv_handover_client(struct gv_handover *handover, uint32_t index, const uint32_t *drained)
{
    __atomic_store_n(&handover->drained[index], drained, __ATOMIC_RELAXED);
}

/* The plan fires when the clients of the giver have drained, at once if they have. Only in IDLE, after the plan was written. */
static inline void gv_handover_arm(struct gv_handover *handover)
{
    const uint32_t number = (handover->state & ~(uint32_t)GV_HANDOVER_STATES) + GV_HANDOVER_STATES + 1;
    __atomic_store_n(&handover->state, number | GV_HANDOVER_ARMED, __ATOMIC_SEQ_CST); /* release: the plan */
    gv_futex_wake_all(&handover->state);
    const uint32_t *const old = __atomic_load_n(&handover->waits_on, __ATOMIC_SEQ_CST);
    if (old != NULL) /* it still sleeps for a plan that was void long ago */
        gv_futex_wake_all((uint32_t *)old);
}

/* Voids the plan: the time at which it has fired, or 0; then it does not fire any more. */
static inline uint64_t gv_handover_take(struct gv_handover *handover)
{
    uint32_t state = __atomic_load_n(&handover->state, __ATOMIC_ACQUIRE);
    for (;;) {
        const uint32_t idle = state & ~(uint32_t)GV_HANDOVER_STATES;
        switch (state & GV_HANDOVER_STATES) {
        case GV_HANDOVER_IDLE:
            return 0;
        case GV_HANDOVER_ARMED:
            /* seq_cst: against what the thread says in waits_on */
            if (__atomic_compare_exchange_n(&handover->state, &state, idle, 0, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
                return 0;
            break;
        case GV_HANDOVER_FIRING: /* some stores and two system calls */
            gv_futex_wait(&handover->state, state, GV_HANDOVER_LOOK_NS);
            state = __atomic_load_n(&handover->state, __ATOMIC_ACQUIRE);
            break;
        default:
            __atomic_store_n(&handover->state, idle, __ATOMIC_SEQ_CST);
            return handover->at_ns;
        }
    }
}

/* After gv_handover_take: waits until the thread reads `word` no longer. Then its page may be unmapped. */
static inline void gv_handover_leave(struct gv_handover *handover, const uint32_t *word)
{
    while (__atomic_load_n(&handover->waits_on, __ATOMIC_SEQ_CST) == word) {
        gv_futex_wake_all((uint32_t *)word);
        sched_yield();
    }
}

/* After gv_handover_take: ends the thread. */
static inline void gv_handover_stop(struct gv_handover *handover)
{
    __atomic_store_n(&handover->stop, 1, __ATOMIC_RELEASE);
    const uint32_t *const word = __atomic_load_n(&handover->waits_on, __ATOMIC_SEQ_CST);
    if (word != NULL)
        gv_handover_leave(handover, word);
    __atomic_add_fetch(&handover->state, GV_HANDOVER_STATES + 1, __ATOMIC_SEQ_CST); /* who is about to sleep does not */
    gv_futex_wake_all(&handover->state);
    pthread_join(handover->thread, NULL);
    close(handover->descriptor);
}

#endif
