/* SPDX-License-Identifier: Apache-2.0
 *
 * Engine hand-over. The word `engine_owner` of the board is taken by compare-and-swap when free; an owner that ends its turn
 * while others wait gives it to the next process in ring order, so nobody starves and two equals get equal turns. Waiters
 * sleep on the word for 10 ms at most, then look whether the owner is dead or stopped and take it from him.
 *
 * A stopped owner may find on waking that the engine is somebody else's: gv_engine_slice_over says so after its block.
 */
#include "engine.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_NS = 10000000 };

/* This process's part. `held`: the board's word was ours when we last looked. All under `lock`. */
static struct engine {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool held, acquiring, yielding;
    int active; /* threads between enter and leave */
    _Atomic uint64_t slice_end_ns;
} engines[GV_BOARD_DEVICES] = {
    [0 ... GV_BOARD_DEVICES - 1] = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER}};

static uint32_t own_word(void) { return (uint32_t)gv_driver.record + 1; }

static void sleep_on(const uint32_t *word, uint32_t value)
{
    const struct timespec limit = {0, LOOK_EVERY_NS};
    syscall(SYS_futex, word, FUTEX_WAIT, value, &limit, NULL, 0);
}

static void start_turn(struct gv_board_device *device, int number)
{
    const uint64_t now = gv_board_now_ns();
    __atomic_store_n(&device->engine_since_ns, now, __ATOMIC_RELAXED);
    atomic_store_explicit(&engines[number].slice_end_ns, now + gv_driver.board->slice_us * 1000ull,
                          memory_order_relaxed);
}

static void set_waiting(struct gv_board_device *device, bool waiting)
{
    uint64_t *word = &device->engine_waiting[gv_driver.record / 64];
    const uint64_t bit = 1ull << (gv_driver.record % 64);
    if (waiting) {
        if (!(__atomic_fetch_or(word, bit, __ATOMIC_SEQ_CST) & bit))
            __atomic_fetch_add(&device->engine_waiters, 1, __ATOMIC_SEQ_CST);
    } else if (__atomic_fetch_and(word, ~bit, __ATOMIC_SEQ_CST) & bit) {
        __atomic_fetch_sub(&device->engine_waiters, 1, __ATOMIC_SEQ_CST);
    }
}

/* Blocks until the board's word is ours. */
static void acquire(int number)
{
    struct gv_board_device *device = &gv_driver.board->devices[number];
    uint32_t expected = 0;
    if (!__atomic_compare_exchange_n(&device->engine_owner, &expected, own_word(), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST)) {
        set_waiting(device, true);
        for (;;) {
            expected = 0;
            if (__atomic_compare_exchange_n(&device->engine_owner, &expected, own_word(), false, __ATOMIC_SEQ_CST,
                                            __ATOMIC_SEQ_CST) ||
                expected == own_word()) /* given to us */
                break;
            sleep_on(&device->engine_owner, expected);
            const uint32_t owner = __atomic_load_n(&device->engine_owner, __ATOMIC_SEQ_CST);
            bool stopped = false;
            if (owner != expected || owner == 0 || owner == own_word())
                continue;
            /* Nothing changed for 10 ms (or a signal woke us). */
            if (!gv_board_alive(gv_driver.board, (int)owner - 1, &stopped) || stopped) {
                uint32_t dead = owner;
                if (__atomic_compare_exchange_n(&device->engine_owner, &dead, own_word(), false, __ATOMIC_SEQ_CST,
                                                __ATOMIC_SEQ_CST)) {
                    gv_board_reap(gv_driver.board, 0);
                    break;
                }
            }
        }
        set_waiting(device, false);
    }
    start_turn(device, number);
}

/* The next waiting process after us in ring order, or -1. */
static int next_waiting(const struct gv_board_device *device)
{
    for (int step = 1; step <= GV_BOARD_PROCESSES; step++) {
        const int record = (gv_driver.record + step) % GV_BOARD_PROCESSES;
        const uint64_t word = __atomic_load_n(&device->engine_waiting[record / 64], __ATOMIC_SEQ_CST);
        if (word == 0) {
            step += 63 - record % 64; /* skip the rest of an empty word */
            continue;
        }
        if (word >> (record % 64) & 1 && record != gv_driver.record)
            return record;
    }
    return -1;
}

static void release(int number)
{
    struct gv_board_device *device = &gv_driver.board->devices[number];
    const uint64_t now = gv_board_now_ns();
    const uint64_t since = __atomic_load_n(&device->engine_since_ns, __ATOMIC_RELAXED);
    if (__atomic_load_n(&device->engine_owner, __ATOMIC_SEQ_CST) != own_word())
        return; /* taken while we were stopped */
    gv_board_add_busy(device, since, now);
    __atomic_fetch_add(&gv_driver.board->processes[gv_driver.record].accounts[number].engine_ns, now - since,
                       __ATOMIC_RELAXED);
    const int next = __atomic_load_n(&device->engine_waiters, __ATOMIC_SEQ_CST) != 0 ? next_waiting(device) : -1;
    __atomic_store_n(&device->engine_owner, (uint32_t)(next + 1), __ATOMIC_SEQ_CST);
    /* A waiter that came after our look finds the word changed or free when it goes to sleep on it. */
    if (next >= 0 || __atomic_load_n(&device->engine_waiters, __ATOMIC_SEQ_CST) != 0)
        syscall(SYS_futex, &device->engine_owner, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* Under the lock. */
static void join_turn(struct engine *engine, int device)
{
    while (engine->yielding || engine->acquiring)
        pthread_cond_wait(&engine->changed, &engine->lock);
    if (!engine->held) {
        engine->acquiring = true;
        pthread_mutex_unlock(&engine->lock);
        acquire(device);
        pthread_mutex_lock(&engine->lock);
        engine->acquiring = false;
        engine->held = true;
        pthread_cond_broadcast(&engine->changed);
    }
    engine->active++;
}

/* Under the lock. */
static void quit_turn(struct engine *engine, int device)
{
    if (--engine->active > 0)
        return;
    release(device);
    engine->held = false;
    if (engine->yielding) {
        engine->yielding = false;
        pthread_cond_broadcast(&engine->changed);
    }
}

void gv_engine_enter(int device)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    join_turn(engine, device);
    pthread_mutex_unlock(&engine->lock);
}

void gv_engine_leave(int device)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    quit_turn(engine, device);
    pthread_mutex_unlock(&engine->lock);
}

bool gv_engine_slice_over(int number)
{
    const struct gv_board_device *device = &gv_driver.board->devices[number];
    if (__atomic_load_n(&device->engine_waiters, __ATOMIC_RELAXED) == 0 &&
        __atomic_load_n(&device->engine_owner, __ATOMIC_RELAXED) == own_word())
        return false;
    return gv_board_now_ns() >= atomic_load_explicit(&engines[number].slice_end_ns, memory_order_relaxed) ||
           __atomic_load_n(&device->engine_owner, __ATOMIC_RELAXED) != own_word();
}

void gv_engine_yield(int device)
{
    struct engine *engine = &engines[device];
    pthread_mutex_lock(&engine->lock);
    engine->yielding = true;
    quit_turn(engine, device);
    join_turn(engine, device);
    pthread_mutex_unlock(&engine->lock);
}
