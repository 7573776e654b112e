/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of an arena (gpuvirt/store.h): which slots are free, who refers to the others, which content is where. It calls
 * no driver, asks nobody and waits for nothing but the lock, which is held for some microseconds. Every function but open,
 * lock and release_memory is to be called under the lock.
 */
#ifndef GPUVIRT_SHIM_SLOTS_H
#define GPUVIRT_SHIM_SLOTS_H

#include "gpuvirt/store.h"

typedef int32_t gv_slot; /* one page of the arena, >= 0; -1 = none */

struct gv_slots {
    struct gv_store *store; /* these four: in the shared file */
    struct gv_segment *segments;
    int32_t *buckets;
    struct gv_slot_entry *entries;
    struct gv_store_layout layout;
    uint32_t owner; /* number of this process */
    uint32_t nonce; /* never 0: no earlier process of this number had it */
    uint32_t pins;  /* 1: this process pins what it uses */
    uint64_t deaths_seen;
};

/* The tables of a mapped file. 0, or an errno where the file is none of this version. */
int gv_slots_open(struct gv_slots *slots, void *address, uint64_t file_bytes, uint32_t owner, uint32_t nonce);

/* 0, or an errno: then nothing may be touched. Repairs what a killed holder left. */
int gv_slots_lock(struct gv_slots *slots);
void gv_slots_unlock(struct gv_slots *slots);

/* Forgets every reference, pin and half-done step of this owner number: they are of a process that had it before. */
void gv_slots_begin(struct gv_slots *slots);
/* The same for all owners that do not live any more, if that has changed. */
void gv_slots_void_dead(struct gv_slots *slots);

/* Takes so many free slots of backed segments, in as few runs as possible; their segments count as pinned by this process,
 * if it pins. All or nothing; returns how many are missing. */
uint32_t gv_slots_take(struct gv_slots *slots, uint32_t count, gv_slot *taken);

/* The next run of empty segments (at most `wanted` of them) is to be backed: marks it and returns its length; 0 = there is none.
 * Then gv_slots_backed with the outcome. */
uint32_t gv_slots_begin_backing(struct gv_slots *slots, uint32_t wanted, uint32_t *segment);
void gv_slots_end_backing(struct gv_slots *slots, uint32_t segment, uint32_t count, int backed);

void gv_slots_publish(struct gv_slots *slots, gv_slot slot, const uint64_t hash[2]);
/* 1: only this process refers to it, and it is unpublished now. 0: this process does not refer to it any more. */
int gv_slots_reclaim(struct gv_slots *slots, gv_slot slot);
/* A published slot with this hash, or -1; this process refers to it. *foreign: another process published it. */
gv_slot gv_slots_find(struct gv_slots *slots, const uint64_t hash[2], int *foreign);
void gv_slots_release(struct gv_slots *slots, gv_slot slot);

/* A segment that is to be pinned: 1, and its memory stays until gv_slots_unpinned; 0: it is not backed. */
int gv_slots_pin(struct gv_slots *slots, uint32_t segment);
void gv_slots_unpinned(struct gv_slots *slots, uint32_t segment);

/* Is its memory of no use? Then its state is GOING, and the caller gives it back and calls gv_slots_gone. */
int gv_slots_begin_going(struct gv_slots *slots, uint32_t segment);
void gv_slots_gone(struct gv_slots *slots, uint32_t segment);

/* Free slots of backed segments. */
uint32_t gv_slots_free(const struct gv_slots *slots);

#endif
