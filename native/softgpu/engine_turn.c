/* SPDX-License-Identifier: Apache-2.0
 *
 * Engine hand-over between processes. The word `engine_owner` of the board is taken by compare-and-swap when free; an owner
 * that ends its turn while others wait gives it to the next process in ring order. Waiters sleep on the word for 5 ms at
 * most, then look whether the owner is dead, stopped, or does not know that it owns it, and take it from him.
 *
 * A stopped owner may find on waking that the engine is somebody else's: gv_engine_slice_over says so after its block.
 */
#include "engine.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { LOOK_EVERY_NS = 5000000, ROUNDS = 64 };

static uint32_t own_word(void) { return (uint32_t)gv_driver.record + 1; }

static struct gv_board_device *board_device(int device) { return gv_board_device(device); }

static struct gv_board_account *account_of(int record, int device)
{
    return &gv_driver.board->processes[record].accounts[gv_place(device)];
}

bool gv_turn_is_ours(int device)
{
    return __atomic_load_n(&board_device(device)->engine_owner, __ATOMIC_RELAXED) == own_word();
}

/* Waiters of one turn sleep on different bits, so that a hand-over wakes one process. */
static uint32_t wake_bit(int record) { return 1u << (record % 32); }

static void sleep_on(const uint32_t *word, uint32_t value)
{
    const uint64_t until = gv_board_now_ns() + LOOK_EVERY_NS;
    const struct timespec limit = {(time_t)(until / 1000000000u), (long)(until % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT_BITSET, value, &limit, NULL, wake_bit(gv_driver.record));
}

static bool waits(const struct gv_board_device *device, int record)
{
    return __atomic_load_n(&device->engine_waiting[record / 64], __ATOMIC_SEQ_CST) >> (record % 64) & 1;
}

void gv_turn_want(int number, uint64_t debt_ns, uint32_t contexts)
{
    struct gv_board_device *device = board_device(number);
    struct gv_board_account *own = account_of(gv_driver.record, number);
    if (waits(device, gv_driver.record))
        return;
    __atomic_store_n(&own->engine_debt_ns, debt_ns, __ATOMIC_RELAXED);
    __atomic_store_n(&own->engine_contexts, contexts, __ATOMIC_RELAXED);
    if (!gv_board_engine_wanted(device))
        __atomic_store_n(&device->engine_waited_since_ns, gv_board_now_ns(), __ATOMIC_RELAXED);
    __atomic_fetch_or(&device->engine_waiting[gv_driver.record / 64], 1ull << (gv_driver.record % 64),
                      __ATOMIC_SEQ_CST);
}

void gv_turn_want_not(int number)
{
    __atomic_fetch_and(&board_device(number)->engine_waiting[gv_driver.record / 64], ~(1ull << (gv_driver.record % 64)),
                       __ATOMIC_SEQ_CST);
}

static bool take(struct gv_board_device *device, uint32_t from)
{
    return __atomic_compare_exchange_n(&device->engine_owner, &from, own_word(), false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_SEQ_CST);
}

/* True when `owner` will not give the engine back: dead, stopped, or it was given to one that wanted it no more. */
static bool is_lost(const struct gv_board_device *device, int number, int owner)
{
    bool stopped = false;
    if (!gv_board_alive(gv_driver.board, owner, &stopped) || stopped)
        return true;
    return __atomic_load_n(&account_of(owner, number)->engine_holding, __ATOMIC_SEQ_CST) == 0 && !waits(device, owner);
}

static void wait_for_turn(struct gv_board_device *device, int number)
{
    for (;;) {
        const uint32_t before = __atomic_load_n(&device->engine_owner, __ATOMIC_SEQ_CST);
        if (before == own_word() || (before == 0 && take(device, 0)))
            return;
        if (before == 0)
            continue;
        sleep_on(&device->engine_owner, before);
        /* Nothing changed for 5 ms, or a signal woke us. */
        if (__atomic_load_n(&device->engine_owner, __ATOMIC_SEQ_CST) == before &&
            is_lost(device, number, (int)before - 1) && take(device, before)) {
            gv_board_reap(gv_driver.board, 0);
            return;
        }
    }
}

uint64_t gv_turn_take(int number, uint64_t debt_ns, uint32_t contexts, bool *alone)
{
    struct gv_board_device *device = board_device(number);
    struct gv_board_account *own = account_of(gv_driver.record, number);
    uint64_t paid = 0;
    const bool waiting = waits(device, gv_driver.record);
    if (waiting || !take(device, 0)) {
        gv_turn_want(number, debt_ns, contexts);
        wait_for_turn(device, number);
        const uint64_t left = __atomic_load_n(&own->engine_debt_ns, __ATOMIC_RELAXED);
        paid = left < debt_ns ? debt_ns - left : 0;
    }
    __atomic_store_n(&own->engine_holding, 1, __ATOMIC_SEQ_CST); /* before the bit goes: is_lost looks at both */
    __atomic_store_n(&device->engine_since_ns, gv_board_now_ns(), __ATOMIC_RELAXED);
    gv_turn_want_not(number);
    *alone = !gv_board_engine_wanted(device);
    return paid;
}

/* The next that waits after `record` in ring order, ourselves included when `own`; -1: nobody. */
static int ring_next(const struct gv_board_device *device, int record, bool own)
{
    for (int step = 1; step <= GV_BOARD_PROCESSES; step++) {
        const int other = (record + step) % GV_BOARD_PROCESSES;
        if (other == gv_driver.record ? own : waits(device, other))
            return other;
    }
    return -1;
}

/* Takes a slice for each of its contexts off what a process has overrun; false when it has not overrun that much. */
static bool pays(int record, int device)
{
    struct gv_board_account *account = account_of(record, device);
    const uint32_t contexts = __atomic_load_n(&account->engine_contexts, __ATOMIC_RELAXED);
    const uint64_t price = gv_driver.board->slice_us * 1000ull * (contexts > 1 ? contexts : 1);
    uint64_t debt = __atomic_load_n(&account->engine_debt_ns, __ATOMIC_RELAXED);
    if (record == gv_driver.record || debt < price)
        return false; /* our own debts are engine.c's */
    return __atomic_compare_exchange_n(&account->engine_debt_ns, &debt, debt - price, false, __ATOMIC_RELAXED,
                                       __ATOMIC_RELAXED);
}

int gv_turn_next(int device, bool own)
{
    int record = gv_driver.record;
    for (int round = 0; round < ROUNDS; round++) {
        record = ring_next(board_device(device), record, own);
        if (record < 0 || !pays(record, device))
            return record;
    }
    return record;
}

void gv_turn_account(int number, uint64_t now)
{
    struct gv_board_device *device = board_device(number);
    const uint64_t since = __atomic_load_n(&device->engine_since_ns, __ATOMIC_RELAXED);
    if (!gv_turn_is_ours(number) || now <= since)
        return;
    gv_board_add_busy(device, since, now);
    gv_board_add_sample(account_of(gv_driver.record, number), since, now);
    __atomic_fetch_add(&account_of(gv_driver.record, number)->engine_ns, now - since, __ATOMIC_RELAXED);
    __atomic_store_n(&device->engine_since_ns, now, __ATOMIC_RELAXED);
}

void gv_turn_give(int number, int record)
{
    struct gv_board_device *device = board_device(number);
    gv_turn_account(number, gv_board_now_ns());
    __atomic_store_n(&account_of(gv_driver.record, number)->engine_holding, 0, __ATOMIC_SEQ_CST);
    uint32_t own = own_word();
    if (!__atomic_compare_exchange_n(&device->engine_owner, &own, (uint32_t)(record + 1), false, __ATOMIC_SEQ_CST,
                                     __ATOMIC_SEQ_CST))
        return; /* taken while we were stopped */
    /* A waiter that came after our look finds the word changed or free when it goes to sleep on it. */
    if (record >= 0)
        syscall(SYS_futex, &device->engine_owner, FUTEX_WAKE_BITSET, INT_MAX, NULL, NULL, wake_bit(record));
    else if (gv_board_engine_wanted(device))
        syscall(SYS_futex, &device->engine_owner, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}
