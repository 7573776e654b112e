/* SPDX-License-Identifier: Apache-2.0 */
#include "fixed.h"

#include <string.h>

#include "memory.h"
#include "real_driver.h"
#include "session.h"

static struct gv_notes notes = GV_NOTES_EMPTY;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gv_fixed_entry kinds[GV_FIXED_KINDS]; /* under lock, as their copy in the client page */

void gv_fixed_forget(void)
{
    gv_notes_forget(&notes);
    pthread_mutex_init(&lock, NULL);
    memset(kinds, 0, sizeof kinds);
}

static void count(enum gv_fixed_kind kind, uint64_t bytes, uint64_t pieces)
{
    pthread_mutex_lock(&lock);
    kinds[kind].bytes += bytes;
    kinds[kind].count += pieces;
    struct gv_client *const page = gv_client_page();
    if (page != NULL) {
        gv_store64(&page->fixed[kind].bytes, kinds[kind].bytes);
        gv_store64(&page->fixed[kind].count, kinds[kind].count);
    }
    pthread_mutex_unlock(&lock);
    gv_extents_publish();
}

void gv_fixed_count(enum gv_fixed_kind kind, uint64_t bytes) { count(kind, bytes, 1); }
void gv_fixed_uncount(enum gv_fixed_kind kind, uint64_t bytes) { count(kind, -bytes, -1ull); }

CUresult gv_fixed_charge(enum gv_fixed_kind kind, uint64_t bytes)
{
    if (gv_notes_expect(&notes) != 0) /* before anything is allocated */
        return CUDA_ERROR_OUT_OF_MEMORY;
    const CUresult result = gv_room_take(bytes);
    if (result == CUDA_SUCCESS)
        count(kind, bytes, 1);
    else
        gv_notes_unexpect(&notes);
    return result;
}

void gv_fixed_discharge(enum gv_fixed_kind kind, uint64_t bytes)
{
    gv_room_give(bytes);
    gv_notes_unexpect(&notes);
    count(kind, -bytes, -1ull);
}

int gv_fixed_remember_in(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes, CUcontext context)
{
    const struct gv_note note = {.key = key, .bytes = bytes, .context = context, .kind = kind};
    return gv_notes_put(&notes, &note);
}

int gv_fixed_remember(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes)
{
    return gv_fixed_remember_in(kind, key, bytes, NULL);
}

void gv_fixed_remember_here(enum gv_fixed_kind kind, uint64_t key, uint64_t bytes)
{
    CUcontext context = NULL;
    REAL(cuCtxGetCurrent)(&context);
    gv_fixed_remember_in(kind, key, bytes, context);
}

uint64_t gv_fixed_find(enum gv_fixed_kind kind, uint64_t key) { return gv_notes_find(&notes, kind, key); }

int gv_fixed_take(enum gv_fixed_kind kind, uint64_t key, struct gv_note *note)
{
    return gv_notes_take(&notes, kind, key, note);
}

void gv_fixed_taken(const struct gv_note *note, int gone)
{
    if (gone)
        gv_fixed_discharge(note->kind, note->bytes);
    else
        gv_notes_put(&notes, note);
}

uint64_t gv_fixed_freed(enum gv_fixed_kind kind, uint64_t key)
{
    struct gv_note note;
    if (!gv_notes_take(&notes, kind, key, &note))
        return 0;
    gv_fixed_discharge(kind, note.bytes);
    return note.bytes;
}

void gv_fixed_context_ended(CUcontext context)
{
    struct gv_note note;
    uint64_t from = 0;
    if (context == NULL)
        return;
    while (gv_notes_take_of(&notes, context, &from, &note))
        gv_fixed_discharge(note.kind, note.bytes);
}

void gv_fixed_resize(enum gv_fixed_kind kind, uint64_t from, uint64_t to)
{
    gv_room_give(from - to); /* a negative gift, when it grew */
    count(kind, to - from, 0);
}
