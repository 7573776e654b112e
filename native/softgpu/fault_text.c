/* SPDX-License-Identifier: Apache-2.0
 *
 * Fault rules in words: reading and writing them. Pure.
 */
#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>

#include "board_faults.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct named {
    const char *name;
    uint64_t value;
};

static const struct named cuda_errors[] = {
#define GV_RESULT(name) {#name, (uint64_t)name},
#include "results.inc"
#undef GV_RESULT
};

/* Of nvml.h. */
static const struct named nvml_errors[] = {
    {"NVML_ERROR_UNINITIALIZED", 1},
    {"NVML_ERROR_INVALID_ARGUMENT", 2},
    {"NVML_ERROR_NOT_SUPPORTED", 3},
    {"NVML_ERROR_NO_PERMISSION", 4},
    {"NVML_ERROR_ALREADY_INITIALIZED", 5},
    {"NVML_ERROR_NOT_FOUND", 6},
    {"NVML_ERROR_INSUFFICIENT_SIZE", 7},
    {"NVML_ERROR_INSUFFICIENT_POWER", 8},
    {"NVML_ERROR_DRIVER_NOT_LOADED", 9},
    {"NVML_ERROR_TIMEOUT", 10},
    {"NVML_ERROR_IRQ_ISSUE", 11},
    {"NVML_ERROR_LIBRARY_NOT_FOUND", 12},
    {"NVML_ERROR_FUNCTION_NOT_FOUND", 13},
    {"NVML_ERROR_CORRUPTED_INFOROM", 14},
    {"NVML_ERROR_GPU_IS_LOST", 15},
    {"NVML_ERROR_RESET_REQUIRED", 16},
    {"NVML_ERROR_OPERATING_SYSTEM", 17},
    {"NVML_ERROR_LIB_RM_VERSION_MISMATCH", 18},
    {"NVML_ERROR_IN_USE", 19},
    {"NVML_ERROR_MEMORY", 20},
    {"NVML_ERROR_NO_DATA", 21},
    {"NVML_ERROR_UNKNOWN", 999},
};

static const struct named words[] = {{"hang", GV_FAULT_HANG}, {"kill", GV_FAULT_KILL}, {"corrupt", GV_FAULT_CORRUPT}};
static const struct named time_units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
static const struct named size_units[] = {{"", 1}, {"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}};
#define COUNT(list) (sizeof(list) / sizeof *(list))

/* `prefix` may be left out. */
static bool find(const struct named *list, size_t count, const char *prefix, const char *name, uint64_t *value)
{
    const size_t skip = strlen(prefix);
    for (size_t i = 0; i < count; i++)
        if (strcasecmp(list[i].name, name) == 0 || (skip > 0 && strcasecmp(list[i].name + skip, name) == 0)) {
            *value = list[i].value;
            return true;
        }
    return false;
}

static const char *name_of(const struct named *list, size_t count, uint64_t value)
{
    for (size_t i = 0; i < count; i++)
        if (list[i].value == value)
            return list[i].name;
    return NULL;
}

static bool is_number(const char *text, uint64_t *value, const char **rest)
{
    char *end;
    errno = 0;
    if (!isdigit((unsigned char)*text))
        return false;
    *value = strtoull(text, &end, 10);
    *rest = end;
    return errno == 0;
}

/* A number with one of the units. */
static bool is_quantity(const char *text, const struct named *units, size_t count, uint64_t *value)
{
    uint64_t unit;
    if (!is_number(text, value, &text) || !find(units, count, "", text, &unit) || *value > UINT64_MAX / unit)
        return false;
    *value *= unit;
    return true;
}

static const char *const symbols[] = {
#define GV_SYMBOL(number, name) #name,
#include "entry_points.inc"
#undef GV_SYMBOL
};

/* Beside kernel.NAME. */
static const char *const places[] = {"copy.to_device", "copy.from_device", "copy.on_device", "checkpoint.save",
                                     "checkpoint.restore"};
enum { COPY_PLACES = 3 };

static bool any(const char *pattern, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fnmatch(pattern, list[i], 0) == 0)
            return true;
    return false;
}

/* A misspelt rule would never act, and its test would pass. Entry points of NVML and kernels are not known here. */
static bool can_happen(const char *pattern)
{
    if (strncmp(pattern, "kernel.", 7) == 0 || strncmp(pattern, "nvml", 4) == 0)
        return true;
    if (strchr(pattern, '.') != NULL)
        return any(pattern, places, COUNT(places)) || pattern[strcspn(pattern, ".*?[")] != '.';
    return any(pattern, symbols, COUNT(symbols)) || fnmatch(pattern, "nvmlInit", 0) == 0;
}

static bool is_nvml(const char *pattern) { return strncmp(pattern, "nvml", 4) == 0; }

static bool parse_when(const char *text, struct gv_fault_rule *rule)
{
    rule->first = 1;
    rule->last = UINT64_MAX;
    if (strcmp(text, "*") == 0)
        return true;
    if (!is_number(text, &rule->first, &text) || rule->first == 0)
        return false;
    if (strcmp(text, "+") == 0)
        return true;
    rule->last = rule->first;
    return *text == '\0';
}

static bool parse_action(const char *text, struct gv_fault_rule *rule)
{
    const char *rest;
    uint64_t action;
    if (find(words, COUNT(words), "", text, &action)) {
        rule->action = (uint32_t)action;
        return true;
    }
    if (strncmp(text, "delay=", 6) == 0) {
        rule->action = GV_FAULT_DELAY;
        return is_quantity(text + 6, time_units, COUNT(time_units), &rule->value);
    }
    if (strncmp(text, "rate=", 5) == 0) {
        rule->action = GV_FAULT_RATE;
        return is_quantity(text + 5, size_units, COUNT(size_units), &rule->value) && rule->value > 0;
    }
    rule->action = GV_FAULT_ERROR;
    if (is_number(text, &rule->value, &rest))
        return *rest == '\0' && rule->value > 0 && rule->value <= INT32_MAX;
    return is_nvml(rule->pattern)
               ? find(nvml_errors, COUNT(nvml_errors), "NVML_ERROR_", text, &rule->value)
               : find(cuda_errors, COUNT(cuda_errors), "CUDA_ERROR_", text, &rule->value) && rule->value > 0;
}

static bool parse_filter(const char *text, struct gv_fault_rule *rule)
{
    uint64_t number;
    if (strncmp(text, "pid=", 4) == 0 && is_number(text + 4, &number, &text) && *text == '\0' && number > 0 &&
        number <= INT32_MAX) {
        rule->pid = (uint32_t)number;
        return true;
    }
    if (strncmp(text, "device=", 7) == 0 && is_number(text + 7, &number, &text) && *text == '\0' && number < 64) {
        rule->device = (int32_t)number;
        return true;
    }
    return false;
}

bool gv_fault_parse(const char *text, size_t length, struct gv_fault_rule *rule, char *message, size_t room)
{
    char copy[256], *rest = copy;
    memset(rule, 0, sizeof *rule);
    rule->device = -1;
    while (length > 0 && isspace((unsigned char)*text))
        text++, length--;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        length--;
    snprintf(message, room, "fault rule '%.*s': write WHAT:WHEN:ACTION, for example cuMemCreate:3:OUT_OF_MEMORY",
             (int)length, text);
    if (length >= sizeof copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    const char *pattern = strsep(&rest, ":"), *when = strsep(&rest, ":"), *action = strsep(&rest, ":");
    if (action == NULL || *pattern == '\0' || strlen(pattern) >= sizeof rule->pattern)
        return false;
    memcpy(rule->pattern, pattern, strlen(pattern));
    if (!can_happen(pattern)) {
        snprintf(message, room,
                 "fault rule '%.*s': there is no '%s'; an entry point of the driver or of NVML, kernel.NAME, "
                 "copy.to_device, .from_device, .on_device, checkpoint.save or .restore",
                 (int)length, text, pattern);
        return false;
    }
    if (!parse_when(when, rule)) {
        snprintf(message, room, "fault rule '%.*s': WHEN is '%s', must be 3, 3+ or *", (int)length, text, when);
        return false;
    }
    if (!parse_action(action, rule)) {
        snprintf(message, room,
                 "fault rule '%.*s': unknown action '%s'; an error, delay=200ms, hang, kill, rate=1G or corrupt",
                 (int)length, text, action);
        return false;
    }
    if ((rule->action == GV_FAULT_RATE && !any(pattern, places, COUNT(places))) ||
        (rule->action == GV_FAULT_CORRUPT && !any(pattern, places, COPY_PLACES))) {
        snprintf(message, room, "fault rule '%.*s': %s is for copies; write for example copy.to_device:*:%s",
                 (int)length, text, action, action);
        return false;
    }
    for (const char *filter; (filter = strsep(&rest, ":")) != NULL;)
        if (!parse_filter(filter, rule)) {
            snprintf(message, room, "fault rule '%.*s': unknown filter '%s'; pid=N or device=N", (int)length, text,
                     filter);
            return false;
        }
    if (is_nvml(pattern) && rule->device >= 0) {
        snprintf(message, room, "fault rule '%.*s': calls of NVML are of no device; leave device=%d out", (int)length,
                 text, rule->device);
        return false;
    }
    *message = '\0';
    return true;
}

void gv_fault_format(const struct gv_fault_rule *rule, char *text, size_t room)
{
    char when[48] = "*", action[80], pid[24] = "", device[24] = "";
    if (rule->last != UINT64_MAX)
        snprintf(when, sizeof when, "%" PRIu64, rule->first);
    else if (rule->first > 1)
        snprintf(when, sizeof when, "%" PRIu64 "+", rule->first);
    const char *name = is_nvml(rule->pattern) ? name_of(nvml_errors, COUNT(nvml_errors), rule->value)
                                              : name_of(cuda_errors, COUNT(cuda_errors), rule->value);
    if (rule->action == GV_FAULT_DELAY)
        snprintf(action, sizeof action, "delay=%" PRIu64 "us", rule->value / 1000);
    else if (rule->action == GV_FAULT_RATE)
        snprintf(action, sizeof action, "rate=%" PRIu64, rule->value);
    else if (rule->action == GV_FAULT_ERROR && name == NULL)
        snprintf(action, sizeof action, "%" PRIu64, rule->value);
    else
        snprintf(action, sizeof action, "%s",
                 rule->action == GV_FAULT_ERROR ? name : name_of(words, COUNT(words), rule->action));
    if (rule->pid != 0)
        snprintf(pid, sizeof pid, ":pid=%u", rule->pid);
    if (rule->device >= 0)
        snprintf(device, sizeof device, ":device=%d", rule->device);
    snprintf(text, room, "%s:%s:%s%s%s", rule->pattern, when, action, pid, device);
}
