/* SPDX-License-Identifier: Apache-2.0
 *
 * Reading what a soft device shall be; traffic of its link. See board_model.h.
 */
#include "board.h"
#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *entry(const char *list, int number, size_t *length)
{
    for (;; number--) {
        *length = strcspn(list, ",");
        if (number <= 0 || list[*length] == '\0')
            return list;
        list += *length + 1;
    }
}

int gv_model_profiles(const char *list)
{
    int count = 1;
    for (; list != NULL && *list != '\0'; list++)
        count += *list == ',';
    return count;
}

const struct gv_profile *gv_model_profile(const char *list, int device)
{
    if (list == NULL || *list == '\0')
        return &gv_profiles[0];
    size_t length;
    const char *name = entry(list, device, &length);
    const struct gv_profile *profile = gv_profile_find(name, length);
    if (profile == NULL) {
        char known[256] = "";
        size_t used = 0;
        for (const struct gv_profile *p = gv_profiles; p->name[0] != '\0' && used < sizeof known; p++)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", p->name);
        gv_log_error("GPUVIRT_SOFTGPU_PROFILE: there is no profile '%.*s'; known are %s", (int)length, name, known);
    }
    return profile;
}

static uint64_t scaled(uint64_t bytes, double scale)
{
    return ((uint64_t)((double)bytes * scale) + (2ull << 20) - 1) & ~((2ull << 20) - 1);
}

/* A number, or the profile's value when there is none. False: neither. */
static bool number_or(const char *text, size_t length, double unit, double otherwise, uint64_t *value)
{
    char *end = NULL;
    const bool own = length > 0 && strncmp(text, "profile", length) != 0;
    const double number = own ? strtod(text, &end) : 0;
    if (own && (end != text + length || !(number >= 0) || number > 1e12))
        return false;
    *value = (uint64_t)(own ? number * unit : otherwise);
    return true;
}

static bool size_or(const char *text, size_t length, uint64_t otherwise, uint64_t *value)
{
    char copy[32];
    if (length == 0 || strncmp(text, "profile", length) == 0) {
        *value = otherwise;
        return true;
    }
    if (length >= sizeof copy)
        return false;
    memcpy(copy, text, length);
    copy[length] = '\0';
    *value = gv_board_parse_bytes(copy);
    return *value != 0;
}

/* "GB/s", "to:from" or "to:from:percent when both". */
static bool read_link(struct gv_board_model *model, const char *text, size_t length)
{
    const struct gv_profile *profile = &model->profile;
    model->link_both_percent = profile->link_both_percent;
    model->link_pageable_percent = profile->link_pageable_percent;
    const char *end = text + length;
    for (int part = 0; part < 3; part++) {
        const size_t size = text < end ? strcspn(text, ":,") : 0;
        uint64_t value;
        if (part < 2) {
            if (!number_or(text, size, 1000, profile->link_mb_s[part], &model->link_mb_s[part]))
                return false;
            if (part == 1 && size == 0 && length > 0)
                model->link_mb_s[1] = model->link_mb_s[0];
        } else if (size > 0) {
            if (!number_or(text, size, 1, 0, &value) || value < 1 || value > 100)
                return false;
            model->link_both_percent = (uint32_t)value;
        }
        text += size < (size_t)(end - text) ? size + 1 : size;
    }
    return text == end;
}

static bool read_vmm(struct gv_board_model *model, const char *text, size_t length)
{
    uint64_t thousandths;
    if (!number_or(text, length, 1000, 1000, &thousandths))
        return false;
    for (int call = 0; call < GV_VMM_CALLS; call++) {
        const struct gv_vmm_cost cost = model->profile.vmm[call];
        model->vmm[call] = (struct gv_vmm_cost){(uint32_t)(cost.fixed_ns * thousandths / 1000),
                                                (uint32_t)(cost.per_mib_ns * thousandths / 1000)};
    }
    return true;
}

static bool read_pin(struct gv_board_model *model, const char *text, size_t length)
{
    uint64_t thousandths;
    if (!number_or(text, length, 1000, 1000, &thousandths))
        return false;
    model->pin_register_us_per_gib = (uint32_t)(model->profile.pin_register_us_per_gib * thousandths / 1000);
    model->pin_allocate_us_per_gib = (uint32_t)(model->profile.pin_allocate_us_per_gib * thousandths / 1000);
    return true;
}

static const char *const names[] = {"link", "pin", "vmm", "reserved", "context", "init", "launch"};
enum { NAMES = sizeof names / sizeof names[0] };

static bool read_one(struct gv_board_model *model, int which, const char *value, size_t length, double scale)
{
    const struct gv_profile *profile = &model->profile;
    switch (which) {
    case 0:
        return read_link(model, value, length);
    case 1:
        return read_pin(model, value, length);
    case 2:
        return read_vmm(model, value, length);
    case 3:
        return size_or(value, length, scaled(profile->reserved_bytes, scale), &model->reserved_bytes);
    case 4:
        model->context_ns = profile->context_us * 1000ull;
        return size_or(value, length, scaled(profile->context_bytes, scale), &model->context_bytes);
    case 5:
        return number_or(value, length, 1e6, profile->init_us * 1e3, &model->init_ns);
    default:
        return number_or(value, length, 1e3, profile->launch_ns, &model->launch_ns);
    }
}

static int name_of(const char *text, size_t length)
{
    for (int i = 0; i < NAMES; i++)
        if (strlen(names[i]) == length && memcmp(names[i], text, length) == 0)
            return i;
    return -1;
}

bool gv_model_read(struct gv_board_model *model, const struct gv_model_wish *wish)
{
    memset(model, 0, sizeof *model);
    model->profile = *wish->profile;
    for (const char *text = wish->models; text != NULL && *text != '\0';) {
        const size_t length = strcspn(text, ","), name = strcspn(text, "=,");
        const char *value = name < length ? text + name + 1 : text + length;
        const size_t value_length = (size_t)(text + length - value);
        const int which = name_of(text, name);
        bool known = which >= 0 && read_one(model, which, value, value_length, wish->scale);
        if (name == 3 && memcmp(text, "all", 3) == 0 && value_length == 0) {
            known = true;
            for (int i = 0; i < NAMES; i++)
                read_one(model, i, "", 0, wish->scale);
        }
        if (!known && length > 0) {
            gv_log_error(
                "GPUVIRT_SOFTGPU_MODEL: '%.*s' is not understood; write all, or some of link=GB/s[:GB/s[:percent]], "
                "pin=FACTOR, vmm=FACTOR, reserved=SIZE, context=SIZE, init=MS, launch=US, each also without a value",
                (int)length, text);
            return false;
        }
        text += length + (text[length] == ',');
    }
    return true;
}

void gv_model_count_link(struct gv_board_device *device, int direction, uint64_t bytes)
{
    struct gv_board_link *link = &device->model.link[direction];
    const uint64_t number = gv_board_now_ns() / GV_BOARD_BUCKET_NS;
    __atomic_fetch_add(&link->bytes, bytes, __ATOMIC_RELAXED);
    uint64_t *in = &link->buckets[number % GV_LINK_BUCKETS].number,
             *sum = &link->buckets[number % GV_LINK_BUCKETS].bytes;
    uint64_t old = __atomic_load_n(in, __ATOMIC_RELAXED);
    /* Of several processes the first begins the bucket; what another adds just before that may be lost, for a display. */
    if (old != number && __atomic_compare_exchange_n(in, &old, number, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(sum, 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(sum, bytes, __ATOMIC_RELAXED);
}

uint64_t gv_model_link_rate(const struct gv_board_device *device, int direction, uint64_t window_ns)
{
    const struct gv_board_link *link = &device->model.link[direction];
    const uint64_t now = gv_board_now_ns(), last = now / GV_BOARD_BUCKET_NS, count = window_ns / GV_BOARD_BUCKET_NS;
    uint64_t bytes = 0;
    for (uint64_t number = last - count; number <= last; number++)
        if (__atomic_load_n(&link->buckets[number % GV_LINK_BUCKETS].number, __ATOMIC_RELAXED) == number)
            bytes += __atomic_load_n(&link->buckets[number % GV_LINK_BUCKETS].bytes, __ATOMIC_RELAXED);
    return (uint64_t)((double)bytes * 1e9 / (double)(now - (last - count) * GV_BOARD_BUCKET_NS));
}
