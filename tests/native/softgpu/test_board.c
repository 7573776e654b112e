/* SPDX-License-Identifier: Apache-2.0
 *
 * The board alone: budget over processes, death of a process with and without the lock, shared memory, utilisation.
 */
#include "../check.h"
#include "../../../native/softgpu/board.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MB (1ull << 20)
static char path[64];
static struct gv_board *board;

static void start_child(pid_t *child, void (*act)(void))
{
    int ready[2];
    char byte;
    CHECK(pipe(ready) == 0);
    *child = fork();
    if (*child == 0) {
        gv_board_forget();
        CHECK(gv_board_claim(board) >= 0);
        act();
        CHECK(write(ready[1], "x", 1) == 1);
        for (;;)
            pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
}

static void end_child(pid_t child)
{
    int status;
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
}

static void take_60(void) { CHECK(gv_board_charge(board, 0, 60 * MB)); }

static void take_lock(void)
{
    take_60();
    CHECK(pthread_mutex_lock(&board->lock) == 0);
    board->devices[0].used_bytes += 7 * MB; /* half of a change */
}

static void share_10(void)
{
    CHECK(gv_board_charge(board, 0, 10 * MB));
    CHECK(gv_board_share(board, 0, 4242, 10 * MB));
}

static void budget(void)
{
    struct gv_board_user users[4];
    pid_t child;
    CHECK(gv_board_charge(board, 0, 40 * MB));
    CHECK(!gv_board_charge(board, 0, 61 * MB));
    start_child(&child, take_60);
    CHECK_EQUAL(gv_board_used(board, 0), 100 * MB);
    CHECK(!gv_board_charge(board, 0, 2 * MB));
    CHECK_EQUAL(gv_board_users(board, 0, users, 4), 2);
    end_child(child);
    CHECK(gv_board_charge(board, 0, 60 * MB)); /* reaps the dead */
    CHECK_EQUAL(gv_board_users(board, 0, users, 4), 1);
    CHECK_EQUAL(users[0].pid, getpid());
    CHECK_EQUAL(users[0].bytes, 100 * MB);
    gv_board_uncharge(board, 0, 100 * MB);
    CHECK_EQUAL(gv_board_used(board, 0), 0);
}

static void death_with_lock(void)
{
    pid_t child;
    start_child(&child, take_lock);
    end_child(child);
    CHECK(gv_board_charge(board, 0, 2 * MB)); /* finds the owner dead and repairs */
    gv_board_reap(board, 0);
    CHECK_EQUAL(board->devices[0].used_bytes, 2 * MB);
    gv_board_uncharge(board, 0, 2 * MB);
}

static void shared_memory(void)
{
    pid_t child;
    start_child(&child, share_10);
    CHECK_EQUAL(gv_board_used(board, 0), 10 * MB);
    CHECK(gv_board_hold(board, 0, 4242, 10 * MB));
    CHECK_EQUAL(gv_board_used(board, 0), 10 * MB); /* charged once */
    end_child(child);
    gv_board_reap(board, 0);
    CHECK_EQUAL(gv_board_used(board, 0), 10 * MB); /* we hold it */
    gv_board_drop(board, 4242);
    CHECK_EQUAL(gv_board_used(board, 0), 0);
}

static void busy_time(void)
{
    const uint64_t now = gv_board_now_ns();
    CHECK_EQUAL(gv_board_utilisation(board, 0, 500000000), 0);
    gv_board_add_busy(&board->devices[0], now - 1000000000, now);
    CHECK(gv_board_utilisation(board, 0, 500000000) >= 95);
    const uint32_t half = gv_board_utilisation(board, 0, 2000000000);
    CHECK(half >= 40 && half <= 60);
    CHECK_EQUAL(board->devices[0].engine_busy_ns, 1000000000);
}

int main(void)
{
    snprintf(path, sizeof path, "/dev/shm/gpuvirt-test-board-%d", (int)getpid());
    setenv("GPUVIRT_SOFTGPU_BOARD", path, 1);
    setenv("GPUVIRT_SOFTGPU_MEMORY", "100M", 1);
    board = gv_board_open();
    CHECK(board != NULL);
    unlink(path); /* mapped is enough */
    CHECK_EQUAL(board->device_count, 1);
    CHECK_EQUAL(board->devices[0].memory_bytes, 100 * MB);
    CHECK(gv_board_claim(board) >= 0);
    budget();
    death_with_lock();
    shared_memory();
    busy_time();
    return 0;
}
