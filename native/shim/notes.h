/* SPDX-License-Identifier: Apache-2.0
 *
 * Notes: how many bytes belong to a handle or address of the driver's, and to which context, so that they can be given back
 * when it is freed. Open addressing with linear probing: O(1), 32 bytes a place, at least a quarter of them empty.
 */
#ifndef GPUVIRT_SHIM_NOTES_H
#define GPUVIRT_SHIM_NOTES_H

#include <pthread.h>
#include <stdint.h>

struct gv_note {
    uint64_t key, bytes; /* bytes 0: an empty place */
    void *context;       /* NULL: it does not end with one */
    uint32_t kind;       /* the caller's */
    uint32_t reserved;
};

struct gv_notes {
    pthread_mutex_t lock;
    struct gv_note *notes;
    uint64_t room; /* a power of two, or 0 */
    uint64_t count, expected;
};
#define GV_NOTES_EMPTY {.lock = PTHREAD_MUTEX_INITIALIZER}

/* Makes sure that one more note finds a place later. -1 without host memory. Each is taken back by gv_notes_unexpect. */
int gv_notes_expect(struct gv_notes *notes);
void gv_notes_unexpect(struct gv_notes *notes);

/* Cannot fail for what was expected; else -1 without host memory. Replaces a note of the same kind and key. */
int gv_notes_put(struct gv_notes *notes, const struct gv_note *note);
/* 1 and the note, taken out, or 0. */
int gv_notes_take(struct gv_notes *notes, uint32_t kind, uint64_t key, struct gv_note *note);
/* Takes out some note of a context; 1, or 0 when it has none (any more). Linear in all notes together, not each. */
int gv_notes_take_of(struct gv_notes *notes, void *context, uint64_t *from, struct gv_note *note);
uint64_t gv_notes_find(struct gv_notes *notes, uint32_t kind, uint64_t key); /* bytes, or 0 */

void gv_notes_forget(struct gv_notes *notes); /* in the child of a fork */

#endif
