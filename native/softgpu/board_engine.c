/* SPDX-License-Identifier: Apache-2.0
 *
 * The engine's fields on the board: busy time, and the engine of a process that has ended.
 */
#include "board.h"

#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

void gv_board_engine_forget(struct gv_board_device *device, int record)
{
    __atomic_fetch_and(&device->engine_waiting[record / 64], ~(1ull << (record % 64)), __ATOMIC_SEQ_CST);
    uint32_t owner = (uint32_t)record + 1;
    if (__atomic_compare_exchange_n(&device->engine_owner, &owner, 0, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        syscall(SYS_futex, &device->engine_owner, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void gv_board_add_busy(struct gv_board_device *device, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns <= from_ns)
        return;
    __atomic_fetch_add(&device->engine_busy_ns, to_ns - from_ns, __ATOMIC_RELAXED);
    __atomic_fetch_add(&device->engine_turns, 1, __ATOMIC_RELAXED);
    const uint64_t last = (to_ns - 1) / GV_BOARD_BUCKET_NS;
    uint64_t first = from_ns / GV_BOARD_BUCKET_NS;
    if (last - first >= GV_BOARD_BUCKETS)
        first = last - GV_BOARD_BUCKETS + 1;
    for (uint64_t number = first; number <= last; number++) {
        struct gv_board_bucket *bucket = &device->buckets[number % GV_BOARD_BUCKETS];
        const uint64_t start = number * GV_BOARD_BUCKET_NS, end = start + GV_BOARD_BUCKET_NS;
        const uint64_t busy = (to_ns < end ? to_ns : end) - (from_ns > start ? from_ns : start);
        /* Only the engine's owner comes here, so there is one writer at a time. */
        if (__atomic_load_n(&bucket->number, __ATOMIC_RELAXED) != number) {
            __atomic_store_n(&bucket->busy_ns, 0, __ATOMIC_RELAXED);
            __atomic_store_n(&bucket->number, number, __ATOMIC_RELEASE); /* a reader of the number sees the 0 or more */
        }
        __atomic_fetch_add(&bucket->busy_ns, busy, __ATOMIC_RELAXED);
    }
}

void gv_board_add_sample(struct gv_board_account *account, uint64_t from_ns, uint64_t to_ns)
{
    if (to_ns <= from_ns)
        return;
    const uint64_t last = (to_ns - 1) / GV_BOARD_SAMPLE_NS;
    uint64_t first = from_ns / GV_BOARD_SAMPLE_NS;
    if (last - first >= GV_BOARD_SAMPLES)
        first = last - GV_BOARD_SAMPLES + 1;
    for (uint64_t number = first; number <= last; number++) {
        uint32_t *in = &account->samples[number % GV_BOARD_SAMPLES].number;
        uint32_t *sum = &account->samples[number % GV_BOARD_SAMPLES].busy_us;
        const uint64_t start = number * GV_BOARD_SAMPLE_NS, end = start + GV_BOARD_SAMPLE_NS;
        const uint64_t busy = (to_ns < end ? to_ns : end) - (from_ns > start ? from_ns : start);
        if (__atomic_load_n(in, __ATOMIC_RELAXED) != (uint32_t)number) { /* one writer: the thread with the engine */
            __atomic_store_n(sum, 0, __ATOMIC_RELAXED);
            __atomic_store_n(in, (uint32_t)number, __ATOMIC_RELEASE);
        }
        __atomic_fetch_add(sum, (uint32_t)(busy / 1000), __ATOMIC_RELAXED);
    }
}
