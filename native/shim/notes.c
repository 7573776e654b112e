/* SPDX-License-Identifier: Apache-2.0 */
#include "notes.h"

#include <stdlib.h>
#include <string.h>

void gv_notes_forget(struct gv_notes *notes)
{
    memset(notes, 0, sizeof *notes); /* the parent's notes leak: freeing them is not safe here */
    pthread_mutex_init(&notes->lock, NULL);
}

static uint64_t place_of(const struct gv_notes *notes, uint32_t kind, uint64_t key)
{
    const uint64_t mixed = (key ^ ((uint64_t)kind << 56)) * 0x9e3779b97f4a7c15ull; /* Fibonacci hashing */
    return (mixed ^ (mixed >> 32)) & (notes->room - 1);
}

/* Under the lock. The place of this key, or the empty one where it would be. `room` is not 0. */
static struct gv_note *look_up(const struct gv_notes *notes, uint32_t kind, uint64_t key)
{
    uint64_t i = place_of(notes, kind, key);
    while (notes->notes[i].bytes != 0 && (notes->notes[i].key != key || notes->notes[i].kind != kind))
        i = (i + 1) & (notes->room - 1);
    return &notes->notes[i];
}

/* Under the lock: places for so many notes. */
static int make_room(struct gv_notes *notes, uint64_t count)
{
    if (notes->room != 0 && count * 4 <= notes->room * 3)
        return 0;
    struct gv_note *const old = notes->notes;
    const uint64_t old_room = notes->room, room = old_room == 0 ? 64 : old_room * 2;
    struct gv_note *const fresh = calloc(room, sizeof *fresh);
    if (fresh == NULL)
        return -1;
    notes->notes = fresh;
    notes->room = room;
    for (uint64_t i = 0; i < old_room; i++)
        if (old[i].bytes != 0)
            *look_up(notes, old[i].kind, old[i].key) = old[i];
    free(old);
    return 0;
}

int gv_notes_expect(struct gv_notes *notes)
{
    pthread_mutex_lock(&notes->lock);
    const int error = make_room(notes, notes->expected + 1);
    notes->expected += error == 0;
    pthread_mutex_unlock(&notes->lock);
    return error;
}

void gv_notes_unexpect(struct gv_notes *notes)
{
    pthread_mutex_lock(&notes->lock);
    notes->expected--;
    pthread_mutex_unlock(&notes->lock);
}

int gv_notes_put(struct gv_notes *notes, const struct gv_note *note)
{
    pthread_mutex_lock(&notes->lock);
    const int error = make_room(notes, notes->count + 1);
    if (error == 0) {
        struct gv_note *const place = look_up(notes, note->kind, note->key);
        notes->count += place->bytes == 0;
        *place = *note;
    }
    pthread_mutex_unlock(&notes->lock);
    return error;
}

/* Under the lock. Closes the gap, so that no search stops too early. */
static void take_out(struct gv_notes *notes, struct gv_note *note)
{
    const uint64_t mask = notes->room - 1;
    uint64_t gap = (uint64_t)(note - notes->notes);
    for (uint64_t i = (gap + 1) & mask; notes->notes[i].bytes != 0; i = (i + 1) & mask) {
        const uint64_t wanted = place_of(notes, notes->notes[i].kind, notes->notes[i].key);
        if (((i - wanted) & mask) >= ((i - gap) & mask)) {
            notes->notes[gap] = notes->notes[i];
            gap = i;
        }
    }
    notes->notes[gap].bytes = 0;
    notes->count--;
}

int gv_notes_take(struct gv_notes *notes, uint32_t kind, uint64_t key, struct gv_note *note)
{
    int found = 0;
    pthread_mutex_lock(&notes->lock);
    if (notes->count != 0) {
        struct gv_note *const place = look_up(notes, kind, key);
        found = place->bytes != 0;
        if (found) {
            *note = *place;
            take_out(notes, place);
        }
    }
    pthread_mutex_unlock(&notes->lock);
    return found;
}

int gv_notes_take_of(struct gv_notes *notes, void *context, uint64_t *from, struct gv_note *note)
{
    int found = 0;
    pthread_mutex_lock(&notes->lock);
    /* What moves into a gap comes from behind it, or was looked at before: nothing is missed by staying at this place. */
    for (; *from < notes->room && !found; *from += !found) {
        struct gv_note *const place = &notes->notes[*from];
        found = place->bytes != 0 && place->context == context;
        if (found) {
            *note = *place;
            take_out(notes, place);
        }
    }
    pthread_mutex_unlock(&notes->lock);
    return found;
}

uint64_t gv_notes_find(struct gv_notes *notes, uint32_t kind, uint64_t key)
{
    pthread_mutex_lock(&notes->lock);
    const uint64_t bytes = notes->count == 0 ? 0 : look_up(notes, kind, key)->bytes;
    pthread_mutex_unlock(&notes->lock);
    return bytes;
}
