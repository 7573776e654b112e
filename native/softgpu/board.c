/* SPDX-License-Identifier: Apache-2.0
 *
 * The board: records of processes, memory budget. Layout and rules in board.h; the file itself in board_file.c, what is read
 * by NVML in board_readers.c.
 */
#include "board.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static struct gv_board *opened;
static int own_record = -1; /* under `opening` */

uint64_t gv_board_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static uint64_t coarse_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct gv_board *gv_board_open(void)
{
    struct gv_board *board = __atomic_load_n(&opened, __ATOMIC_ACQUIRE);
    if (board != NULL)
        return board;
    pthread_mutex_lock(&opening);
    if (opened == NULL) {
        board = gv_board_map();
        __atomic_store_n(&opened, board, __ATOMIC_RELEASE);
    }
    board = opened;
    pthread_mutex_unlock(&opening);
    return board;
}

static bool holds(const struct gv_board_shared *shared, int record)
{
    return shared->inode != 0 && shared->holders[record / 64] >> (record % 64) & 1;
}

/* What a process holds of others' memory follows from the list of it. */
static void repair_shared(struct gv_board *board, int record)
{
    for (uint32_t d = 0; d < board->device_count; d++)
        board->processes[record].accounts[d].shared_bytes = 0;
    for (int s = 0; s < GV_BOARD_SHARED; s++)
        if (holds(&board->shared[s], record))
            board->processes[record].accounts[board->shared[s].device].shared_bytes += board->shared[s].bytes;
}

static bool no_holder(const struct gv_board_shared *shared)
{
    uint64_t any = 0;
    for (int w = 0; w < GV_BOARD_WORDS; w++)
        any |= shared->holders[w];
    return any == 0;
}

/* Sums that can be derived are derived again: the dead owner may have changed a record but not the sum. */
static void repair(struct gv_board *board)
{
    for (int s = 0; s < GV_BOARD_SHARED; s++)
        if (board->shared[s].inode != 0 && no_holder(&board->shared[s]))
            board->shared[s].inode = 0;
    for (int p = 0; p < GV_BOARD_PROCESSES; p++)
        if (board->processes[p].pid != 0)
            repair_shared(board, p);
    for (uint32_t d = 0; d < board->device_count; d++) {
        uint64_t used = 0;
        for (int p = 0; p < GV_BOARD_PROCESSES; p++)
            if (board->processes[p].pid != 0)
                used += board->processes[p].accounts[d].private_bytes;
        for (int s = 0; s < GV_BOARD_SHARED; s++)
            if (board->shared[s].inode != 0 && board->shared[s].device == d)
                used += board->shared[s].bytes;
        __atomic_store_n(&board->devices[d].used_bytes, used, __ATOMIC_RELAXED);
    }
}

void gv_board_lock(struct gv_board *board)
{
    if (pthread_mutex_lock(&board->lock) == EOWNERDEAD) {
        repair(board);
        pthread_mutex_consistent(&board->lock);
    }
}

void gv_board_unlock(struct gv_board *board) { pthread_mutex_unlock(&board->lock); }

/* State and start time from /proc/PID/stat; 0 when there is no such process or only its remains. State 'T' also for a process
 * on its way out: with much memory to free that may take longer than others can wait for the engine. */
uint64_t gv_board_start_time(uint32_t pid, char *state)
{
    const unsigned long exiting = 4; /* PF_EXITING of the kernel's flags, since 2.6 */
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    const ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    const char *rest = strrchr(text, ')'); /* the name may hold spaces and parentheses */
    unsigned long long start = 0;
    long threads = 0;
    char letter = '?';
    unsigned long flags = 0;
    if (rest == NULL ||
        sscanf(rest + 1, " %c %*d %*d %*d %*d %*d %lu %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %llu", &letter,
               &flags, &threads, &start) != 4)
        return 0;
    *state = flags & exiting ? 'T' : letter;
    if ((letter == 'Z' && threads <= 1) || letter == 'X')
        return 0;
    return start;
}

bool gv_board_alive(const struct gv_board *board, int record, bool *stopped)
{
    const uint32_t pid = __atomic_load_n(&board->processes[record].pid, __ATOMIC_ACQUIRE);
    char state = '?';
    const uint64_t start = pid == 0 ? 0 : gv_board_start_time(pid, &state);
    if (stopped != NULL)
        *stopped = state == 'T' || state == 't';
    return start != 0 && start == board->processes[record].start_time;
}

static void release_shared(struct gv_board *board, struct gv_board_shared *shared)
{
    if (!no_holder(shared))
        return;
    __atomic_fetch_sub(&board->devices[shared->device].used_bytes, shared->bytes, __ATOMIC_RELAXED);
    memset(shared, 0, sizeof *shared);
}

/* Under the lock. */
static void free_record(struct gv_board *board, int record)
{
    struct gv_board_process *process = &board->processes[record];
    for (uint32_t d = 0; d < board->device_count; d++) {
        __atomic_fetch_sub(&board->devices[d].used_bytes, process->accounts[d].private_bytes, __ATOMIC_RELAXED);
        gv_board_engine_forget(&board->devices[d], record);
    }
    for (int s = 0; s < GV_BOARD_SHARED; s++) {
        struct gv_board_shared *shared = &board->shared[s];
        if (holds(shared, record)) {
            shared->holders[record / 64] &= ~(1ull << (record % 64));
            release_shared(board, shared);
        }
    }
    __atomic_store_n(&process->pid, 0, __ATOMIC_RELEASE); /* first: what is half erased is nobody's */
    memset(process, 0, sizeof *process);
}

void gv_board_reap(struct gv_board *board, uint64_t interval_ns)
{
    const uint64_t now = coarse_now_ns();
    const uint64_t last = __atomic_load_n(&board->reaped_ns, __ATOMIC_RELAXED);
    if (interval_ns != 0 && now - last < interval_ns)
        return;
    __atomic_store_n(&board->reaped_ns, now, __ATOMIC_RELAXED);
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        const uint32_t pid = __atomic_load_n(&board->processes[record].pid, __ATOMIC_ACQUIRE);
        const uint64_t start = board->processes[record].start_time;
        if (pid == 0 || pid == (uint32_t)getpid() || gv_board_alive(board, record, NULL))
            continue;
        gv_board_lock(board);
        /* Nobody else may have freed and re-used it in between. */
        if (board->processes[record].pid == pid && board->processes[record].start_time == start)
            free_record(board, record);
        gv_board_unlock(board);
    }
}

int gv_board_claim(struct gv_board *board)
{
    pthread_mutex_lock(&opening);
    if (own_record < 0) {
        char state;
        const uint64_t start = gv_board_start_time((uint32_t)getpid(), &state);
        gv_board_reap(board, 0);
        gv_board_lock(board);
        for (int record = 0; record < GV_BOARD_PROCESSES && own_record < 0; record++)
            if (board->processes[record].pid == (uint32_t)getpid())
                free_record(board, record); /* of a process that had our pid, or of us before exec */
        for (int record = 0; record < GV_BOARD_PROCESSES && own_record < 0; record++) {
            struct gv_board_process *process = &board->processes[record];
            if (process->pid == 0) {
                memset(process, 0, sizeof *process);
                for (uint32_t d = 0; d < board->device_count; d++)
                    gv_board_engine_forget(&board->devices[d], record); /* given to the one before us after its end */
                process->start_time = start;
                process->armed = gv_faults_armed(board);
                __atomic_store_n(&process->pid, (uint32_t)getpid(), __ATOMIC_RELEASE);
                own_record = record;
            }
        }
        gv_board_unlock(board);
        if (own_record < 0)
            gv_log_error("the board has no room for another process (%d use it)", GV_BOARD_PROCESSES);
    }
    const int record = own_record;
    pthread_mutex_unlock(&opening);
    return record;
}

void gv_board_forget(void)
{
    pthread_mutex_init(&opening, NULL); /* the child has one thread: whoever held it is not here */
    own_record = -1;
}

static struct gv_board_account *account_of(struct gv_board *board, uint32_t device)
{
    return &board->processes[own_record].accounts[device];
}

static void note_peak(struct gv_board_account *account)
{
    const uint64_t held = account->private_bytes + account->shared_bytes;
    if (held > account->peak_bytes)
        account->peak_bytes = held;
}

bool gv_board_fits(const struct gv_board *board, uint32_t device, uint64_t bytes)
{
    const struct gv_board_device *d = &board->devices[device];
    const uint64_t used = d->used_bytes + d->faults.withheld_bytes;
    return bytes <= d->memory_bytes && used <= d->memory_bytes - bytes;
}

bool gv_board_charge(struct gv_board *board, uint32_t device, uint64_t bytes)
{
    for (int attempt = 0; attempt < 2; attempt++) {
        gv_board_lock(board);
        const bool charged = gv_board_fits(board, device, bytes);
        if (charged) {
            struct gv_board_account *account = account_of(board, device);
            account->private_bytes += bytes;
            __atomic_fetch_add(&board->devices[device].used_bytes, bytes, __ATOMIC_RELAXED);
            note_peak(account);
        }
        gv_board_unlock(board);
        if (charged)
            return true;
        gv_board_reap(board, 0);
    }
    return false;
}

void gv_board_uncharge(struct gv_board *board, uint32_t device, uint64_t bytes)
{
    gv_board_lock(board);
    account_of(board, device)->private_bytes -= bytes;
    __atomic_fetch_sub(&board->devices[device].used_bytes, bytes, __ATOMIC_RELAXED);
    gv_board_unlock(board);
}

/* Under the lock. */
static struct gv_board_shared *find_shared(struct gv_board *board, uint64_t inode)
{
    for (int s = 0; s < GV_BOARD_SHARED; s++)
        if (board->shared[s].inode == inode)
            return &board->shared[s];
    return NULL;
}

static void fill_shared(struct gv_board_shared *shared, uint32_t device, uint64_t inode, uint64_t bytes)
{
    memset(shared->holders, 0, sizeof shared->holders); /* one that died while freeing it may have left some */
    shared->holders[own_record / 64] = 1ull << (own_record % 64);
    shared->bytes = bytes;
    shared->device = device;
    shared->inode = inode; /* last: it makes the entry one */
}

bool gv_board_share(struct gv_board *board, uint32_t device, uint64_t inode, uint64_t bytes)
{
    gv_board_lock(board);
    bool done = find_shared(board, inode) != NULL;
    struct gv_board_shared *room = done ? NULL : find_shared(board, 0);
    if (room != NULL) {
        fill_shared(room, device, inode, bytes);
        account_of(board, device)->private_bytes -= bytes;
        account_of(board, device)->shared_bytes += bytes;
        done = true;
    }
    gv_board_unlock(board);
    return done;
}

bool gv_board_hold(struct gv_board *board, uint32_t device, uint64_t inode, uint64_t bytes)
{
    gv_board_lock(board);
    struct gv_board_shared *shared = find_shared(board, inode);
    bool done = true;
    if (shared != NULL) {
        shared->holders[own_record / 64] |= 1ull << (own_record % 64);
    } else {
        shared = find_shared(board, 0);
        done = shared != NULL && gv_board_fits(board, device, bytes);
        if (done) {
            fill_shared(shared, device, inode, bytes);
            __atomic_fetch_add(&board->devices[device].used_bytes, bytes, __ATOMIC_RELAXED);
        }
    }
    if (done) {
        account_of(board, device)->shared_bytes += bytes;
        note_peak(account_of(board, device));
    }
    gv_board_unlock(board);
    return done;
}

void gv_board_drop(struct gv_board *board, uint64_t inode)
{
    gv_board_lock(board);
    struct gv_board_shared *shared = find_shared(board, inode);
    if (shared != NULL) {
        account_of(board, shared->device)->shared_bytes -= shared->bytes;
        shared->holders[own_record / 64] &= ~(1ull << (own_record % 64));
        release_shared(board, shared);
    }
    gv_board_unlock(board);
}

void gv_board_contexts(struct gv_board *board, uint32_t device, int change)
{
    gv_board_lock(board);
    account_of(board, device)->contexts += (uint32_t)change;
    gv_board_unlock(board);
}
