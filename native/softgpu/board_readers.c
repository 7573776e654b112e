/* SPDX-License-Identifier: Apache-2.0
 *
 * What NVML and tools read from the board.
 */
#include "board.h"

#include <stdio.h>

void gv_board_device_name(const struct gv_board *board, uint32_t device, char *name, size_t length)
{
    const struct gv_profile *profile = &board->devices[device].model.profile;
    if (profile->multiprocessors == 0)
        snprintf(name, length, "Soft GPU (gpuvirt)");
    else
        snprintf(name, length, "Soft GPU (gpuvirt) %s", profile->name);
}

uint64_t gv_board_used(struct gv_board *board, uint32_t device)
{
    gv_board_reap(board, 20000000u); /* so old may the death of a process be, and still count */
    return __atomic_load_n(&board->devices[device].used_bytes, __ATOMIC_RELAXED) +
           __atomic_load_n(&board->devices[device].faults.withheld_bytes, __ATOMIC_RELAXED);
}

uint32_t gv_board_utilisation(const struct gv_board *board, uint32_t device, uint64_t window_ns)
{
    const struct gv_board_device *d = &board->devices[device];
    const uint64_t now = gv_board_now_ns();
    const uint64_t last = now / GV_BOARD_BUCKET_NS;
    uint64_t buckets = window_ns / GV_BOARD_BUCKET_NS;
    if (buckets < 1)
        buckets = 1;
    if (buckets > GV_BOARD_BUCKETS - 2)
        buckets = GV_BOARD_BUCKETS - 2;
    const uint64_t first = last - buckets; /* that many whole ones and the running one */
    uint64_t busy = 0;
    for (uint64_t number = first; number <= last; number++) {
        const struct gv_board_bucket *bucket = &d->buckets[number % GV_BOARD_BUCKETS];
        if (__atomic_load_n(&bucket->number, __ATOMIC_ACQUIRE) == number)
            busy += __atomic_load_n(&bucket->busy_ns, __ATOMIC_RELAXED);
    }
    const uint64_t start = first * GV_BOARD_BUCKET_NS;
    if (__atomic_load_n(&d->engine_owner, __ATOMIC_ACQUIRE) != 0) {
        const uint64_t since = __atomic_load_n(&d->engine_since_ns, __ATOMIC_RELAXED);
        if (since < now)
            busy += now - (since > start ? since : start);
    }
    const uint64_t percent = busy * 100 / (now - start);
    return percent > 100 ? 100 : (uint32_t)percent;
}

uint32_t gv_board_users(struct gv_board *board, uint32_t device, struct gv_board_user *users, uint32_t room)
{
    gv_board_reap(board, 0);
    uint32_t count = 0;
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        const struct gv_board_process *process = &board->processes[record];
        const struct gv_board_account *account = &process->accounts[device];
        const uint32_t pid = __atomic_load_n(&process->pid, __ATOMIC_ACQUIRE);
        const uint64_t bytes = account->private_bytes + account->shared_bytes;
        if (pid == 0 || (account->contexts == 0 && bytes == 0))
            continue;
        if (count < room)
            users[count] = (struct gv_board_user){pid, bytes};
        count++;
    }
    for (int i = 0; i < GV_FAULT_STRANGERS; i++) {
        const struct gv_fault_stranger *stranger = &board->devices[device].faults.strangers[i];
        if (stranger->pid == 0)
            continue;
        if (count < room)
            users[count] = (struct gv_board_user){stranger->pid, stranger->bytes};
        count++;
    }
    return count;
}

uint32_t gv_board_bucket_busy(const struct gv_board_device *device, uint64_t number)
{
    const struct gv_board_bucket *bucket = &device->buckets[number % GV_BOARD_BUCKETS];
    const uint64_t start = number * GV_BOARD_BUCKET_NS, end = start + GV_BOARD_BUCKET_NS;
    uint64_t busy = 0;
    if (__atomic_load_n(&bucket->number, __ATOMIC_ACQUIRE) == number)
        busy = __atomic_load_n(&bucket->busy_ns, __ATOMIC_RELAXED);
    if (__atomic_load_n(&device->engine_owner, __ATOMIC_ACQUIRE) != 0) {
        const uint64_t since = __atomic_load_n(&device->engine_since_ns, __ATOMIC_RELAXED);
        busy += since < end ? end - (since > start ? since : start) : 0;
    }
    const uint64_t percent = busy * 100 / GV_BOARD_BUCKET_NS;
    return percent > 100 ? 100 : (uint32_t)percent;
}

uint64_t gv_board_busy_ns(const struct gv_board_device *device)
{
    uint64_t busy = __atomic_load_n(&device->engine_busy_ns, __ATOMIC_RELAXED);
    if (__atomic_load_n(&device->engine_owner, __ATOMIC_ACQUIRE) != 0) {
        const uint64_t since = __atomic_load_n(&device->engine_since_ns, __ATOMIC_RELAXED), now = gv_board_now_ns();
        busy += since < now ? now - since : 0;
    }
    return busy;
}
