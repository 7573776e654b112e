/* SPDX-License-Identifier: Apache-2.0
 *
 * Costs of calls: time that passes although nothing is done. See model.h.
 */
#include "model.h"
#include "context.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { SLEEP_FROM_NS = 200000, CREDIT_MOST_NS = 1000000, LATE_CHUNKS = 4, LATE_AT_MOST_NS = 5000000 };
/* Of the fixed part of a VMM call. From 4 processes on 4 GPUs together being 1.11 times as fast as one with 2 MiB handles and
 * 1.94 times with 128 MiB ones: what is under the machine's lock hardly depends on the size. */
enum { LOCKED_PERCENT = 87, LOCKED_PERCENT_OF_SIZE = 12 };

GV_THREAD_LOCAL int64_t owed_ns; /* not slept yet; below 0: slept too long */

void gv_model_sleep_until(uint64_t end)
{
    const struct timespec until = {(time_t)(end / 1000000000u), (long)(end % 1000000000u)};
    while (end != 0 && clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

void gv_model_lose(uint64_t ns)
{
    owed_ns += (int64_t)ns;
    if (owed_ns < SLEEP_FROM_NS)
        return;
    const uint64_t start = gv_board_now_ns();
    gv_model_sleep_until(start + (uint64_t)owed_ns);
    owed_ns -= (int64_t)(gv_board_now_ns() - start);
    if (owed_ns < -CREDIT_MOST_NS)
        owed_ns = -CREDIT_MOST_NS;
}

/* Takes the machine's lock of VMM calls for `ns` from the thread's own time on; returns for how long it waited and had it. */
static uint64_t take_machine(uint64_t ns)
{
    const uint64_t now = gv_board_now_ns();
    const uint64_t start = owed_ns > 0 ? now + (uint64_t)owed_ns : now;
    uint64_t *free_at = &gv_driver.board->vmm_free_at_ns;
    uint64_t old = __atomic_load_n(free_at, __ATOMIC_RELAXED), end;
    do {
        end = (old > start ? old : start) + ns;
    } while (!__atomic_compare_exchange_n(free_at, &old, end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return end - start;
}

void gv_model_vmm(int device, enum gv_vmm_call call, uint64_t bytes)
{
    if (device < 0) /* host memory */
        return;
    struct gv_board_model *model = &gv_board_device(device)->model;
    const struct gv_vmm_cost cost = model->vmm[call];
    if (cost.fixed_ns == 0)
        return;
    const uint64_t mib = bytes >> 20, size = cost.per_mib_ns * (mib > 2 ? mib - 2 : 0);
    const uint64_t locked = (uint64_t)cost.fixed_ns * LOCKED_PERCENT / 100 + size * LOCKED_PERCENT_OF_SIZE / 100;
    const uint64_t all = cost.fixed_ns + size;
    __atomic_fetch_add(&model->vmm_calls, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&model->vmm_ns, all, __ATOMIC_RELAXED);
    gv_model_spend(take_machine(locked) + all - locked);
}

void gv_model_pin(int device, bool allocate, uint64_t bytes)
{
    const struct gv_board_model *model = gv_model_of(device);
    const uint64_t rate = allocate ? model->pin_allocate_us_per_gib : model->pin_register_us_per_gib;
    if (rate != 0)
        gv_model_spend(rate * 1000 * (bytes >> 12) >> 18);
}

bool gv_model_runs(const char *ptx, char *why, size_t room)
{
    const struct gv_context *context = gv_thread_context();
    const struct gv_profile *profile = context != NULL ? gv_profile_of(context->device) : NULL;
    const char *target = profile != NULL && profile->multiprocessors != 0 ? strstr(ptx, ".target") : NULL;
    unsigned wanted;
    char suffix = '\0';
    if (target == NULL || sscanf(target + strlen(".target"), " sm_%u%c", &wanted, &suffix) < 1)
        return true;
    const unsigned have = profile->major * 10 + profile->minor;
    if (wanted <= have && (suffix != 'a' || wanted == have)) /* a: for exactly that card */
        return true;
    snprintf(why, room, "ptxas fatal : the target sm_%u%.*s is not one of a device of compute capability %u.%u", wanted,
             suffix == 'a' || suffix == 'f', &suffix, profile->major, profile->minor);
    return false;
}

bool gv_model_keep(int device, uint64_t *bytes)
{
    const struct gv_board_model *model = gv_model_of(device);
    *bytes = model->context_bytes;
    if (*bytes > 0 && !gv_board_charge(gv_driver.board, gv_place(device), *bytes))
        return false;
    gv_model_spend(model->context_ns);
    return true;
}

void gv_model_give_up(int device, uint64_t bytes)
{
    if (bytes > 0)
        gv_board_uncharge(gv_driver.board, gv_place(device), bytes);
}

GV_THREAD_LOCAL uint64_t last_arrival;

uint64_t gv_model_link_last(void) { return last_arrival; }

void gv_model_link_leave(uint64_t arrival) { last_arrival = arrival; }

/* The other direction is in use at `start`. What it has taken so far ends at most a chunk ahead of its thread, and a thread
 * that wakes late takes time that has passed: so its last chunk is felt for a while longer, for what a long one costs. */
static bool meets(struct gv_board_device *board, int direction, uint64_t start)
{
    return __atomic_load_n(&board->model.link[1 - direction].felt_until_ns, __ATOMIC_RELAXED) > start;
}

uint64_t gv_model_link(int device, int direction, bool pageable, uint64_t bytes, uint64_t after)
{
    struct gv_board_device *board = gv_board_device(device);
    struct gv_board_model *model = &board->model;
    const uint64_t rate = model->link_mb_s[direction];
    if (rate == 0)
        return 0;
    uint64_t *free_at = &board->link_free_at_ns[direction];
    uint64_t cost = bytes * 1000 / rate;
    if (pageable)
        cost = cost * 100 / model->link_pageable_percent;
    const uint64_t ready = after != 0 ? after : gv_board_now_ns();
    uint64_t old = __atomic_load_n(free_at, __ATOMIC_RELAXED), start, end, both;
    do {
        start = old > ready ? old : ready;
        both = meets(board, direction, start) ? cost * 100 / model->link_both_percent : cost;
        end = start + both;
    } while (!__atomic_compare_exchange_n(free_at, &old, end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    cost = both;
    const uint64_t felt = end + (LATE_CHUNKS * cost < LATE_AT_MOST_NS ? LATE_CHUNKS * cost : LATE_AT_MOST_NS);
    __atomic_store_n(&model->link[direction].felt_until_ns, felt, __ATOMIC_RELAXED);
    __atomic_fetch_add(&model->link[direction].busy_ns, cost, __ATOMIC_RELAXED);
    return end;
}
