/* SPDX-License-Identifier: Apache-2.0
 *
 * All that the board knows, as JSON: for `gpuvirt soft-gpu show`, and for tests and benchmarks that read the ledger. Not part of
 * NVML; exported by the library of the soft NVML because that reads boards.
 */
#include "nvml_device.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct text {
    char *to;
    size_t room, used; /* `used` may exceed `room`: then it did not fit */
};

__attribute__((format(printf, 2, 3))) static void add(struct text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    const size_t left = text->used < text->room ? text->room - text->used : 0;
    const int length = vsnprintf(left > 0 ? text->to + text->used : NULL, left, format, arguments);
    va_end(arguments);
    text->used += length > 0 ? (size_t)length : 0;
}

/* A key with a number, and a comma before it unless it is the first in its braces. */
static void number(struct text *text, const char *key, uint64_t value)
{
    const bool first = text->used > 0 && text->used <= text->room && text->to[text->used - 1] == '{';
    add(text, "%s\"%s\": %llu", first ? "" : ", ", key, (unsigned long long)value);
}

static uint64_t load(const uint64_t *value) { return __atomic_load_n(value, __ATOMIC_RELAXED); }

/* Only those that are on. */
static void models(struct text *text, const struct gv_board_model *model)
{
    const char *comma = "";
    add(text, ", \"models\": {");
    if (model->link_mb_s[0] != 0) {
        add(text, "\"link\": {");
        number(text, "to_mb_s", model->link_mb_s[0]);
        number(text, "from_mb_s", model->link_mb_s[1]);
        number(text, "both_percent", model->link_both_percent);
        number(text, "pageable_percent", model->link_pageable_percent);
        add(text, "}");
        comma = ", ";
    }
    if (model->vmm[0].fixed_ns != 0) {
        static const char *const calls[] = {"create_ns", "map_ns", "access_ns", "unmap_ns"};
        add(text, "%s\"vmm\": {", comma);
        for (int call = 0; call < GV_VMM_CALLS; call++)
            number(text, calls[call], model->vmm[call].fixed_ns);
        add(text, "}");
        comma = ", ";
    }
    const struct {
        const char *name, *key;
        uint64_t value;
    } simple[] = {{"pin", "register_us_per_gib", model->pin_register_us_per_gib},
                  {"reserved", "bytes", model->reserved_bytes},
                  {"context", "bytes", model->context_bytes},
                  {"init", "us", model->init_ns / 1000},
                  {"launch", "ns", model->launch_ns}};
    for (size_t i = 0; i < sizeof simple / sizeof simple[0]; i++)
        if (simple[i].value != 0) {
            add(text, "%s\"%s\": {", comma, simple[i].name);
            number(text, simple[i].key, simple[i].value);
            add(text, "}");
            comma = ", ";
        }
    add(text, "}");
}

/* Busy microseconds of the samples that have ended, newest 1 s. */
static uint64_t recent_us(const struct gv_board_account *account, uint64_t now)
{
    const uint64_t running = now / GV_BOARD_SAMPLE_NS;
    uint64_t busy = 0;
    for (uint64_t sample = running - 8; sample < running; sample++)
        if (__atomic_load_n(&account->samples[sample % GV_BOARD_SAMPLES].number, __ATOMIC_RELAXED) == (uint32_t)sample)
            busy += __atomic_load_n(&account->samples[sample % GV_BOARD_SAMPLES].busy_us, __ATOMIC_RELAXED);
    return busy;
}

static void processes(struct text *text, const struct gv_board *board, uint32_t device)
{
    const uint64_t now = gv_board_now_ns();
    const char *comma = "";
    add(text, ", \"processes\": [");
    for (int record = 0; record < GV_BOARD_PROCESSES; record++) {
        const struct gv_board_account *account = &board->processes[record].accounts[device];
        const uint32_t pid = __atomic_load_n(&board->processes[record].pid, __ATOMIC_ACQUIRE);
        const uint64_t bytes = load(&account->private_bytes) + load(&account->shared_bytes);
        if (pid == 0 || (account->contexts == 0 && bytes == 0))
            continue;
        add(text, "%s{", comma);
        number(text, "pid", pid);
        number(text, "memory", bytes);
        number(text, "memory_peak", load(&account->peak_bytes));
        number(text, "engine_ns", load(&account->engine_ns));
        number(text, "engine_percent", recent_us(account, now) / 10000);
        number(text, "kernels", load(&account->kernels));
        number(text, "to_device", load(&account->to_device));
        number(text, "from_device", load(&account->from_device));
        number(text, "on_device", load(&account->on_device));
        add(text, "}");
        comma = ", ";
    }
    add(text, "]");
}

static void describe(struct text *text, struct gv_board *board, uint32_t d)
{
    const struct gv_board_device *device = &board->devices[d];
    const struct gv_board_model *model = &device->model;
    char name[64];
    gv_board_device_name(board, d, name, sizeof name);
    const uint8_t *u = device->uuid;
    add(text, "{\"index\": %u, \"uuid\": \"GPU-", d);
    for (int i = 0; i < 16; i++)
        add(text, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", u[i]);
    add(text, "\", \"name\": \"%s\", \"profile\": \"%s\", \"architecture\": \"%s\"", name, model->profile.name,
        model->profile.kind);
    number(text, "memory_total", device->memory_bytes + model->reserved_bytes);
    number(text, "memory_used", gv_board_used(board, d) + model->reserved_bytes);
    number(text, "utilisation", gv_board_utilisation(board, d, 1000000000u));
    add(text, ", \"engine\": {");
    number(text, "busy_ns", gv_board_busy_ns(device));
    number(text, "turns", load(&device->engine_turns));
    number(text, "owner", __atomic_load_n(&device->engine_owner, __ATOMIC_RELAXED));
    add(text, "}, \"link\": {");
    number(text, "to_bytes", load(&model->link[0].bytes));
    number(text, "from_bytes", load(&model->link[1].bytes));
    number(text, "to_busy_ns", load(&model->link[0].busy_ns));
    number(text, "from_busy_ns", load(&model->link[1].busy_ns));
    add(text, "}, \"vmm\": {");
    number(text, "calls", load(&model->vmm_calls));
    number(text, "ns", load(&model->vmm_ns));
    add(text, "}");
    models(text, model);
    processes(text, board, d);
    add(text, "}");
}

/* Opens the board (and makes it when there is none) and writes one JSON object with a NUL. Returns its length; more than
 * `room` - 1: too little room; 0: no board, and the reason is on stderr. */
GV_EXPORT size_t gv_softgpu_describe(char *to, size_t room);
GV_EXPORT size_t gv_softgpu_describe(char *to, size_t room)
{
    struct gv_board *board = gv_board_open();
    if (board == NULL)
        return 0;
    gv_board_reap(board, 0);
    struct text text = {to, room, 0};
    unsigned records = 0, shared = 0;
    for (int record = 0; record < GV_BOARD_PROCESSES; record++)
        records += __atomic_load_n(&board->processes[record].pid, __ATOMIC_RELAXED) != 0;
    for (int s = 0; s < GV_BOARD_SHARED; s++)
        shared += load(&board->shared[s].inode) != 0;
    add(&text, "{\"slice_us\": %u, \"records\": %u, \"shared\": %u, \"devices\": [", board->slice_us, records, shared);
    for (uint32_t d = 0; d < board->device_count; d++) {
        add(&text, "%s", d > 0 ? ", " : "");
        describe(&text, board, d);
    }
    add(&text, "]}");
    return text.used;
}
