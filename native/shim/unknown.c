/* SPDX-License-Identifier: Apache-2.0 */
#include "unknown.h"

#include <stdio.h>
#include <string.h>

#include "connection.h"
#include "gpuvirt/control_block_ops.h"
#include "header_version.h"
#include "passed.h"

enum { PLACES = 64, NAME_BYTES = 56 };

/* A place is taken by counting `used` up, then filled, then marked `ready`; nothing is ever removed. */
struct place {
    char name[NAME_BYTES];
    int version;
    uint8_t kind;
    uint8_t ready; /* released after the rest is written, acquired before it is read */
};
static struct place places[PLACES];
static uint32_t used; /* places taken; more than PLACES: so many did not fit, and are counted at each look-up */
static uint32_t told; /* places that the control thread has seen */

static int same(const struct place *place, const char *name, enum gv_unknown_kind kind)
{
    return __atomic_load_n(&place->ready, __ATOMIC_ACQUIRE) && place->kind == kind &&
           strncmp(place->name, name, NAME_BYTES - 1) == 0;
}

void gv_unknown_add(const char *name, int version, enum gv_unknown_kind kind)
{
    const uint32_t count = __atomic_load_n(&used, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < count && i < PLACES; i++)
        if (same(&places[i], name, kind))
            return;
    /* Two threads that ask for the same at once may both come here: then it counts twice. */
    const uint32_t mine = __atomic_fetch_add(&used, 1, __ATOMIC_ACQ_REL);
    if (mine >= PLACES)
        return;
    strncpy(places[mine].name, name, NAME_BYTES - 1);
    places[mine].version = version;
    places[mine].kind = (uint8_t)kind;
    __atomic_store_n(&places[mine].ready, 1, __ATOMIC_RELEASE);
}

uint64_t gv_unknown_count(void) { return __atomic_load_n(&used, __ATOMIC_ACQUIRE); }

static void describe(const struct place *place, char *text, size_t size)
{
    const char *const what = place->kind == GV_UNKNOWN_NAME      ? "the name is"
                             : place->kind == GV_UNKNOWN_VERSION ? "this version is"
                                                                 : "these flags are";
    snprintf(text, size, "%s (asked at version %d) is not governed: %s not in this shim's headers (CUDA %d.%d)",
             place->name, place->version, what, GV_HEADER_VERSION / 1000, GV_HEADER_VERSION % 1000 / 10);
}

void gv_unknown_tell(int connection, struct gv_client *page)
{
    const uint64_t count = gv_unknown_count();
    gv_passed_publish(&page->passed_calls);
    gv_passed_report();
    gv_store64(&page->unknown_names, count);
    while (connection >= 0 && told < PLACES && told < count && __atomic_load_n(&places[told].ready, __ATOMIC_ACQUIRE)) {
        struct gv_event event = {0};
        describe(&places[told], event.text, sizeof event.text);
        if (gv_send(connection, GV_EVENT, &event, sizeof event) != 0)
            return; /* whoever reads from the connection notices; the next daemon hears it */
        told++;
    }
}

void gv_unknown_forget(void)
{
    memset(places, 0, sizeof places);
    used = 0;
    told = 0;
}
