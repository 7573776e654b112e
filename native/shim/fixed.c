/* SPDX-License-Identifier: Apache-2.0 */
#include "fixed.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"
#include "session.h"

struct note {
    uint64_t key, bytes; /* bytes 0: an empty place */
    uint32_t kind;
    uint32_t reserved;
};

/* Open addressing with linear probing; `room` is a power of two and at least a quarter of it is empty. */
static struct {
    pthread_mutex_t lock;
    struct note *notes;
    uint64_t room, count;
    struct gv_fixed_entry kinds[GV_FIXED_KINDS];
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

void gv_fixed_forget(void)
{
    memset(&table, 0, sizeof table); /* the parent's notes leak: freeing them is not safe here */
    pthread_mutex_init(&table.lock, NULL);
}

static uint64_t place_of(enum gv_fixed_kind kind, uint64_t key)
{
    const uint64_t mixed = (key ^ ((uint64_t)kind << 56)) * 0x9e3779b97f4a7c15ull; /* Fibonacci hashing */
    return (mixed ^ (mixed >> 32)) & (table.room - 1);
}

/* Under the lock. The place of this key, or the empty one where it would be. `room` is not 0. */
static struct note *look_up(enum gv_fixed_kind kind, uint64_t key)
{
    uint64_t i = place_of(kind, key);
    while (table.notes[i].bytes != 0 && (table.notes[i].key != key || table.notes[i].kind != kind))
        i = (i + 1) & (table.room - 1);
    return &table.notes[i];
}

/* Under the lock. */
static int make_room(void)
{
    if (table.room != 0 && (table.count + 1) * 4 <= table.room * 3)
        return 0;
    struct note *const old = table.notes;
    const uint64_t old_room = table.room, room = old_room == 0 ? 64 : old_room * 2;
    struct note *const fresh = calloc(room, sizeof *fresh);
    if (fresh == NULL)
        return -1;
    table.notes = fresh;
    table.room = room;
    for (uint64_t i = 0; i < old_room; i++)
        if (old[i].bytes != 0)
            *look_up(old[i].kind, old[i].key) = old[i];
    free(old);
    return 0;
}

/* Under the lock. Closes the gap, so that no search stops too early. */
static void take_out(struct note *note)
{
    uint64_t gap = (uint64_t)(note - table.notes);
    for (uint64_t i = (gap + 1) & (table.room - 1); table.notes[i].bytes != 0; i = (i + 1) & (table.room - 1)) {
        const uint64_t wanted = place_of(table.notes[i].kind, table.notes[i].key);
        if (((i - wanted) & (table.room - 1)) >= ((i - gap) & (table.room - 1))) {
            table.notes[gap] = table.notes[i];
            gap = i;
        }
    }
    table.notes[gap].bytes = 0;
    table.count--;
}

/* Under table.lock: the page is written by whoever holds it. */
static void publish(enum gv_fixed_kind kind)
{
    struct gv_client *const page = gv_client_page();
    if (page == NULL)
        return;
    gv_store64(&page->fixed[kind].bytes, table.kinds[kind].bytes);
    gv_store64(&page->fixed[kind].count, table.kinds[kind].count);
}

void gv_fixed_count(enum gv_fixed_kind kind, uint64_t bytes)
{
    pthread_mutex_lock(&table.lock);
    table.kinds[kind].bytes += bytes;
    table.kinds[kind].count++;
    publish(kind);
    pthread_mutex_unlock(&table.lock);
    gv_extents_publish();
}

void gv_fixed_uncount(enum gv_fixed_kind kind, uint64_t bytes)
{
    pthread_mutex_lock(&table.lock);
    table.kinds[kind].bytes -= bytes;
    table.kinds[kind].count--;
    publish(kind);
    pthread_mutex_unlock(&table.lock);
    gv_extents_publish();
}

CUresult gv_fixed_charge(enum gv_fixed_kind kind, uint64_t bytes)
{
    const CUresult result = gv_room_take(bytes);
    if (result != CUDA_SUCCESS)
        return result;
    gv_fixed_count(kind, bytes);
    return CUDA_SUCCESS;
}

void gv_fixed_discharge(enum gv_fixed_kind kind, uint64_t bytes)
{
    gv_room_give(bytes);
    gv_fixed_uncount(kind, bytes);
}

int gv_fixed_remember(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes)
{
    pthread_mutex_lock(&table.lock);
    const int error = make_room();
    if (error == 0) {
        struct note *const note = look_up(kind, key);
        table.count += note->bytes == 0;
        *note = (struct note){.key = key, .bytes = bytes, .kind = kind};
    }
    pthread_mutex_unlock(&table.lock);
    return error;
}

uint64_t gv_fixed_find(enum gv_fixed_kind kind, uint64_t key)
{
    pthread_mutex_lock(&table.lock);
    const uint64_t bytes = table.room == 0 ? 0 : look_up(kind, key)->bytes;
    pthread_mutex_unlock(&table.lock);
    return bytes;
}

uint64_t gv_fixed_freed(enum gv_fixed_kind kind, uint64_t key)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&table.lock);
    if (table.room != 0) {
        struct note *const note = look_up(kind, key);
        bytes = note->bytes;
        if (bytes != 0)
            take_out(note);
    }
    pthread_mutex_unlock(&table.lock);
    if (bytes != 0)
        gv_fixed_discharge(kind, bytes);
    return bytes;
}
