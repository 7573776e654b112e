/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults on request from outside: what the soft NVML library exports beside NVML, for `gpuvirt soft-gpu fault` and for tests
 * that load it with ctypes. Texts are ASCII; a function that fails answers 0 and leaves one line in `message`.
 *
 *     gv_softgpu_fault_add(rule, message, room)       id of the new rule (see board_faults.h for the words)
 *     gv_softgpu_fault_clear(id)                      how many were removed; 0: all
 *     gv_softgpu_fault_list(text, room)               lines of id, rule, matching calls, calls acted on; separated by tabs
 *     gv_softgpu_fault_device(device, what, a, b, message, room)
 *         "lose"                off the bus, with Xid 79: calls fail, NVML answers GPU_IS_LOST
 *         "recover"             reset: usable again; contexts of before stay dead
 *         "withhold" bytes      so much memory less, until it is withheld 0
 *         "stranger" pid bytes  NVML lists this pid with so much memory; 0 bytes: no longer
 *         "xid" number pid      an Xid event
 *         "ecc" uncorrected n   n errors (uncorrected: 0 or 1) are counted and told
 *         "retire" uncorrected n, "remap" uncorrected n    pages retired, rows remapped
 *     gv_softgpu_events(text, room)                   lines of number, time (ns, monotonic), device, type, data, pid
 */
#include "nvml_device.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TOOL GV_EXPORT __attribute__((used))

TOOL int gv_softgpu_fault_add(const char *rule_text, char *message, size_t room);
TOOL int gv_softgpu_fault_clear(uint32_t id);
TOOL int gv_softgpu_fault_list(char *text, size_t room);
TOOL int gv_softgpu_fault_device(uint32_t number, const char *what, uint64_t a, uint64_t b, char *message, size_t room);
TOOL int gv_softgpu_events(char *text, size_t room);

int gv_softgpu_fault_add(const char *rule_text, char *message, size_t room)
{
    struct gv_board *board = gv_board_open();
    struct gv_fault_rule rule;
    if (!gv_fault_parse(rule_text, strlen(rule_text), &rule, message, room))
        return 0;
    char state;
    if (rule.pid != 0 && gv_board_start_time(rule.pid, &state) == 0) { /* it would be swept away at once */
        snprintf(message, room, "fault rule '%s': there is no process %u", rule_text, rule.pid);
        return 0;
    }
    if (board != NULL && rule.device >= (int32_t)board->device_count) {
        snprintf(message, room, "fault rule '%s': there is no device %d", rule_text, rule.device);
        return 0;
    }
    const uint32_t id = board == NULL ? 0 : gv_fault_add(board, &rule);
    if (id == 0)
        snprintf(message, room,
                 board == NULL ? "there is no board" : "the board holds %d fault rules at most; clear some",
                 GV_FAULT_RULES);
    return (int)id;
}

int gv_softgpu_fault_clear(uint32_t id)
{
    struct gv_board *board = gv_board_open();
    return board == NULL ? 0 : (int)gv_fault_clear(board, id);
}

int gv_softgpu_fault_list(char *text, size_t room)
{
    struct gv_board *board = gv_board_open();
    size_t used = 0;
    int count = 0;
    text[0] = '\0';
    if (board == NULL)
        return 0;
    gv_fault_sweep(board);
    for (int i = 0; i < GV_FAULT_RULES && used < room; i++) {
        char words[256];
        gv_board_lock(board);
        const struct gv_fault_rule rule = board->faults.rules[i];
        gv_board_unlock(board);
        if (rule.id == 0)
            continue;
        gv_fault_format(&rule, words, sizeof words);
        used += (size_t)snprintf(text + used, room - used, "%u\t%s\t%" PRIu64 "\t%" PRIu64 "\n", rule.id, words,
                                 rule.calls, rule.acted);
        count++;
    }
    return count;
}

static void lose(struct gv_board *board, uint32_t number)
{
    struct gv_board_device_faults *faults = &board->devices[number].faults;
    gv_board_lock(board);
    board->faults.lost++;
    __atomic_fetch_add(&faults->losses, 1, __ATOMIC_RELEASE);
    __atomic_store_n(&faults->lost, 1, __ATOMIC_RELEASE); /* after the count: contexts made from now on are refused */
    gv_board_unlock(board);
    gv_faults_rearm(board);
    gv_board_raise(board, number, GV_EVENT_XID, 79, 0);
}

static void recover(struct gv_board *board, uint32_t number)
{
    struct gv_board_device_faults *faults = &board->devices[number].faults;
    gv_board_lock(board);
    faults->ecc[0][0] = faults->ecc[1][0] = 0; /* volatile: since the last reset */
    faults->remap_pending = 0;
    __atomic_store_n(&faults->lost, 0, __ATOMIC_RELEASE);
    gv_board_unlock(board);
}

static bool set_stranger(struct gv_board *board, uint32_t number, uint32_t pid, uint64_t bytes)
{
    struct gv_board_device_faults *faults = &board->devices[number].faults;
    struct gv_fault_stranger *place = NULL;
    gv_board_lock(board);
    for (int i = 0; i < GV_FAULT_STRANGERS && (place == NULL || place->pid != pid); i++)
        if (faults->strangers[i].pid == pid || (faults->strangers[i].pid == 0 && place == NULL))
            place = &faults->strangers[i];
    if (place != NULL) {
        __atomic_fetch_add(&faults->withheld_bytes, bytes - place->bytes, __ATOMIC_RELAXED);
        place->pid = bytes != 0 ? pid : 0;
        place->bytes = bytes;
    }
    gv_board_unlock(board);
    return place != NULL;
}

static void withhold(struct gv_board *board, uint32_t number, uint64_t bytes)
{
    struct gv_board_device_faults *faults = &board->devices[number].faults;
    gv_board_lock(board);
    for (int i = 0; i < GV_FAULT_STRANGERS; i++)
        bytes += faults->strangers[i].bytes;
    __atomic_store_n(&faults->withheld_bytes, bytes, __ATOMIC_RELAXED);
    gv_board_unlock(board);
}

static void count_errors(struct gv_board *board, uint32_t number, bool uncorrected, uint64_t count)
{
    gv_board_lock(board);
    for (int counter = 0; counter < 2; counter++)
        board->devices[number].faults.ecc[uncorrected][counter] += count;
    gv_board_unlock(board);
    gv_board_raise(board, number, uncorrected ? GV_EVENT_ECC_UNCORRECTED : GV_EVENT_ECC_CORRECTED, 0, 0);
    if (uncorrected)
        gv_board_raise(board, number, GV_EVENT_XID, 48, 0);
}

static void repair(struct gv_board *board, uint32_t number, bool rows, bool uncorrected, uint64_t count)
{
    struct gv_board_device_faults *faults = &board->devices[number].faults;
    gv_board_lock(board);
    if (rows) {
        faults->remapped_rows[uncorrected] += (uint32_t)count;
        faults->remap_pending = 1;
    } else {
        faults->retired_pages[uncorrected] += (uint32_t)count;
    }
    gv_board_unlock(board);
    gv_board_raise(board, number, GV_EVENT_XID, 63, 0); /* recorded; takes effect at the next reset */
}

int gv_softgpu_fault_device(uint32_t number, const char *what, uint64_t a, uint64_t b, char *message, size_t room)
{
    struct gv_board *board = gv_board_open();
    snprintf(message, room, "there is no device %u", number);
    if (board == NULL || number >= board->device_count)
        return 0;
    bool known = true, done = true;
    if (strcmp(what, "lose") == 0)
        lose(board, number);
    else if (strcmp(what, "recover") == 0)
        recover(board, number);
    else if (strcmp(what, "withhold") == 0)
        withhold(board, number, a);
    else if (strcmp(what, "stranger") == 0)
        done = a > 0 && a <= INT32_MAX && set_stranger(board, number, (uint32_t)a, b);
    else if (strcmp(what, "xid") == 0)
        gv_board_raise(board, number, GV_EVENT_XID, a, (uint32_t)b);
    else if (strcmp(what, "ecc") == 0 && a <= 1)
        count_errors(board, number, a == 1, b);
    else if ((strcmp(what, "retire") == 0 || strcmp(what, "remap") == 0) && a <= 1)
        repair(board, number, what[2] == 'm', a == 1, b);
    else
        known = false;
    snprintf(message, room, known ? "%s: the board holds %d of them at most" : "unknown fault '%s'", what,
             GV_FAULT_STRANGERS);
    return known && done;
}

int gv_softgpu_events(char *text, size_t room)
{
    struct gv_board *board = gv_board_open();
    uint64_t types[GV_BOARD_DEVICES], after = 0;
    struct gv_board_event event;
    size_t used = 0;
    int count = 0;
    text[0] = '\0';
    memset(types, 0xff, sizeof types);
    while (board != NULL && used < room && gv_board_next_event(board, &after, types, &event)) {
        used +=
            (size_t)snprintf(text + used, room - used, "%" PRIu64 "\t%" PRIu64 "\t%u\t%" PRIu64 "\t%" PRIu64 "\t%u\n",
                             event.number, event.at_ns, event.device, event.type, event.data, event.pid);
        count++;
    }
    return count;
}
