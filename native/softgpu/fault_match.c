/* SPDX-License-Identifier: Apache-2.0
 *
 * Which rules a call meets, and what they do to it. See board_faults.h.
 */
#include "inject.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* "cuMemAlloc_v2" is also known as "cuMemAlloc". */
static void without_version(const char *what, char *name, size_t room)
{
    snprintf(name, room, "%s", what);
    char *mark = strrchr(name, '_');
    if (mark != NULL && mark[1] == 'v' && isdigit((unsigned char)mark[2]))
        *mark = '\0';
}

static bool matches(const struct gv_fault_rule *rule, const char *what, const char *name, int device)
{
    if ((rule->pid != 0 && rule->pid != (uint32_t)getpid()) || (rule->device >= 0 && rule->device != device))
        return false;
    if ((strchr(rule->pattern, '.') != NULL) != (strchr(what, '.') != NULL))
        return false; /* cu* and * mean entry points, not places inside the device */
    return fnmatch(rule->pattern, what, 0) == 0 || fnmatch(rule->pattern, name, 0) == 0;
}

static void wait_ns(uint64_t ns)
{
    struct timespec left = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static void act(const struct gv_fault_rule *rule, uint32_t id, struct gv_verdict *verdict)
{
    switch (rule->action) {
    case GV_FAULT_ERROR:
        verdict->error = verdict->error != 0 ? verdict->error : rule->value;
        break;
    case GV_FAULT_DELAY:
        wait_ns(rule->value);
        break;
    case GV_FAULT_HANG:
        verdict->hang = id;
        break;
    case GV_FAULT_KILL:
        kill(getpid(), SIGKILL);
        break;
    case GV_FAULT_RATE:
        verdict->rate = verdict->rate == 0 || rule->value < verdict->rate ? rule->value : verdict->rate;
        break;
    case GV_FAULT_CORRUPT:
        verdict->corrupt = true;
        break;
    default:
        break;
    }
}

struct gv_verdict gv_fault_apply(struct gv_board *board, const char *what, int device)
{
    struct gv_verdict verdict = {0};
    char name[GV_FAULT_PATTERN * 2];
    without_version(what, name, sizeof name);
    for (int i = 0; i < GV_FAULT_RULES; i++) {
        struct gv_fault_rule *rule = &board->faults.rules[i];
        const uint32_t id = __atomic_load_n(&rule->id, __ATOMIC_ACQUIRE);
        if (id == 0 || !matches(rule, what, name, device))
            continue;
        const uint64_t call = __atomic_add_fetch(&rule->calls, 1, __ATOMIC_RELAXED);
        if (call < rule->first || call > rule->last)
            continue;
        __atomic_fetch_add(&rule->acted, 1, __ATOMIC_RELAXED);
        act(rule, id, &verdict);
    }
    return verdict;
}

bool gv_fault_holds(const struct gv_board *board, uint32_t rule)
{
    for (int i = 0; i < GV_FAULT_RULES; i++)
        if (rule != 0 && __atomic_load_n(&board->faults.rules[i].id, __ATOMIC_ACQUIRE) == rule)
            return true;
    return false;
}

void gv_fault_hang(struct gv_board *board, uint32_t rule)
{
    for (;;) {
        const uint32_t seen = __atomic_load_n(&board->faults.changed, __ATOMIC_SEQ_CST);
        if (!gv_fault_holds(board, rule))
            return;
        syscall(SYS_futex, &board->faults.changed, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
}
