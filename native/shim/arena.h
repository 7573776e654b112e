/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: host memory for pages that are not in device memory. One sparse, unnamed file from the daemon, shared by all
 * processes of the job; gpuvirt/store.h has its layout, slots.h its table.
 *
 *   slot      one page of the file; several pages with the same content may refer to it, also of several processes
 *   segment   a fixed number of slots: the unit of backing them with host memory (the daemon does that) and of pinning them
 *
 * Control thread only, but for gv_arena_release.
 */
#ifndef GPUVIRT_SHIM_ARENA_H
#define GPUVIRT_SHIM_ARENA_H

#include <stdint.h>

#include "cuda_api.h"
#include "slots.h"

#define GV_MEMORY_PAGE (2ull << 20) /* atom of hashing, of slots and of elision; all pieces are whole pages */

/*
 * Takes the descriptor of WELCOME, and the number that this process has there. A process that attaches again keeps its first
 * arena and its number; the new descriptor is closed. 0, or an errno.
 */
int gv_arena_attach(int descriptor, uint64_t bytes, uint32_t owner);
/* For HELLO: the descriptor that the next daemon gets to know the arena by (-1: none yet), and the number of this process. */
int gv_arena_descriptor(uint32_t *owner);

/*
 * Takes so many slots, in as few runs as possible, each with one reference of this process, unpublished. Their host memory is
 * there for certain, so that a copy cannot fail for lack of it, and pinned if it can be. All or nothing:
 * CUDA_ERROR_OUT_OF_MEMORY when budget or host has no room. May wait for the daemon.
 */
CUresult gv_arena_take(uint32_t count, gv_slot *slots);

/* The slot holds content with this hash from now on; other processes of the job may refer to it. */
void gv_arena_publish(gv_slot slot, const uint64_t hash[2]);

/* It is about to be overwritten. 1: this process alone refers to it, once, and it is unpublished again. 0: somebody else (or
 * another page of this process) does too; the reference is gone: take another slot. */
int gv_arena_reclaim(gv_slot slot);

/* A published slot with that hash, with one more reference of this process; -1: none. *foreign: its content came from
 * another process of the job. */
gv_slot gv_arena_find(const uint64_t hash[2], int *foreign);

/* One reference less. Its memory goes back to the host at a later sweep. Any thread; takes no lock of other processes. */
void gv_arena_release(gv_slot slot);

/* Where its page is; *run: how many pages from there on lie in one pinned piece. */
void *gv_arena_address(gv_slot slot, uint32_t *run);

/* Gives unused host memory back. Needs a context. */
void gv_arena_sweep(void);

uint64_t gv_arena_held(void);      /* bytes of the slots that this process refers to */
const uint8_t *gv_arena_key(void); /* 16 bytes: the key of this job's hashes; NULL before the first attach */
int gv_arena_verify(void);         /* 1: what comes back is to be hashed and compared */

void gv_arena_forget(void);

#endif
