/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of fault rules on the board. See board_faults.h.
 */
#include "board.h"
#include "log.h"

#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

uint32_t gv_faults_armed(const struct gv_board *board)
{
    return (board->faults.count > 0 ? GV_ARMED_RULES : 0u) | (board->faults.lost > 0 ? GV_ARMED_LOST : 0u);
}

/* Under the lock: every process takes the slow path of the entry seam while there is a rule or a lost device. */
static void arm(struct gv_board *board)
{
    const uint32_t bits = gv_faults_armed(board);
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        uint32_t *armed = &board->processes[record].armed;
        if (board->processes[record].pid != 0) {
            __atomic_fetch_or(armed, bits, __ATOMIC_SEQ_CST);
            __atomic_fetch_and(armed, bits | GV_ARMED_CLOSED, __ATOMIC_SEQ_CST);
        }
    }
    __atomic_fetch_add(&board->faults.changed, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &board->faults.changed, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

uint32_t gv_fault_add(struct gv_board *board, const struct gv_fault_rule *rule)
{
    uint32_t id = 0;
    gv_fault_sweep(board);
    gv_board_lock(board);
    for (int i = 0; i < GV_FAULT_RULES && id == 0; i++) {
        struct gv_fault_rule *slot = &board->faults.rules[i];
        if (slot->id != 0)
            continue;
        *slot = *rule;
        id = ++board->faults.last_id;
        __atomic_store_n(&slot->id, id, __ATOMIC_RELEASE); /* a reader that sees the id sees the rule */
        board->faults.count++;
        arm(board);
    }
    gv_board_unlock(board);
    return id;
}

/* Removes the rules that `wanted` names. */
static uint32_t remove_rules(struct gv_board *board, bool (*wanted)(const struct gv_fault_rule *rule, uint32_t which),
                             uint32_t which)
{
    uint32_t removed = 0;
    gv_board_lock(board);
    for (int i = 0; i < GV_FAULT_RULES; i++) {
        struct gv_fault_rule *rule = &board->faults.rules[i];
        if (rule->id != 0 && wanted(rule, which)) {
            __atomic_store_n(&rule->id, 0, __ATOMIC_RELEASE);
            board->faults.count--;
            removed++;
        }
    }
    if (removed > 0)
        arm(board);
    gv_board_unlock(board);
    return removed;
}

static bool has_id(const struct gv_fault_rule *rule, uint32_t which) { return which == 0 || rule->id == which; }

static bool is_orphan(const struct gv_fault_rule *rule, uint32_t which)
{
    char state;
    (void)which;
    return rule->pid != 0 && gv_board_start_time(rule->pid, &state) == 0;
}

uint32_t gv_fault_clear(struct gv_board *board, uint32_t id) { return remove_rules(board, has_id, id); }

void gv_fault_sweep(struct gv_board *board) { remove_rules(board, is_orphan, 0); }

void gv_faults_rearm(struct gv_board *board)
{
    gv_board_lock(board);
    arm(board);
    gv_board_unlock(board);
}

void gv_faults_from_environment(struct gv_board *board, bool nvml)
{
    const char *text = getenv("GPUVIRT_SOFTGPU_FAULTS");
    while (text != NULL && *text != '\0') {
        const size_t length = strcspn(text, ";");
        struct gv_fault_rule rule;
        char message[400];
        if (length > 0 && strspn(text, " ") < length) {
            if (!gv_fault_parse(text, length, &rule, message, sizeof message)) {
                if (!nvml) /* once: a process may have both libraries */
                    gv_log_error("GPUVIRT_SOFTGPU_FAULTS: %s", message);
            } else if ((strncmp(rule.pattern, "nvml", 4) == 0) == nvml) {
                rule.pid = rule.pid != 0 ? rule.pid : (uint32_t)getpid();
                if (gv_fault_add(board, &rule) == 0)
                    gv_log_error("GPUVIRT_SOFTGPU_FAULTS: the board holds %d rules at most", GV_FAULT_RULES);
            }
        }
        text += length + (text[length] == ';');
    }
}
