/* SPDX-License-Identifier: Apache-2.0
 *
 * The program's own memory management: handles (cuMemCreate), reservations, mappings. What is plain memory of the device is
 * ours: the program gets a handle of our making, the memory is charged at once and created when it must be resident, and it is
 * swapped like an extent, at whatever addresses the program mapped it. All else is the driver's ("native"): it is only noted,
 * so that mappings of both kinds can lie side by side.
 *
 *     block     one handle: size, properties, references of the program, mappings
 *     mapping   where (a part of) a block is mapped, and which access each device was given
 *
 * All fields are under gv_memory.lock. A block that is `moving` is somebody's: the control thread's in a transaction, or a
 * program thread's that calls the driver for it (a claim). A claim is taken for all blocks of a call at once, by a thread that
 * holds none, so two of them never wait for each other; what a claimant waits for is only the driver.
 */
#ifndef GPUVIRT_SHIM_BLOCKS_H
#define GPUVIRT_SHIM_BLOCKS_H

#include "fixed.h"
#include "gpuvirt/messages.h"
#include "memory.h"

struct gv_block;

struct gv_mapping {
    uint64_t base, bytes; /* first: compared */
    struct gv_block *block;
    struct gv_mapping *next; /* of the same block */
    uint64_t serial;
    uint8_t access[GV_DEVICES_MAX]; /* CUmemAccess_flags by device */
};

struct gv_block {
    struct gv_piece piece; /* first. Of a native block: always mapped and kept, never moved */
    uint64_t name;         /* the handle that the program has */
    uint64_t bytes, grain; /* of a native block: bytes 0 if unknown */
    uint64_t serial;
    CUmemAllocationProp properties;
    uint32_t references; /* of the program: creates, retains, imports, less releases */
    uint32_t native;
    uint32_t fixed_kind;  /* of a native block: what `fixed_bytes` is charged as */
    uint64_t fixed_bytes; /* 0: not charged */
    int exported;         /* the descriptor that all exported ones are copies of; -1 = never exported */
    CUdeviceptr window;   /* where the control thread mapped it for a copy, 0 = nowhere */
    struct gv_mapping *mappings;
    struct gv_block *next, **link; /* in gv_memory.blocks; native ones are not there */
};

static inline struct gv_block *gv_block_of(const struct gv_piece *piece) { return (struct gv_block *)piece; }

/* A handle of our making. User addresses never have these bits, nor do small numbers: a driver's handle is either. */
#define GV_BLOCK_NAME (0x6776ull << 48)
static inline int gv_block_is_ours(CUmemGenericAllocationHandle handle) { return handle >> 48 == GV_BLOCK_NAME >> 48; }

/* --- blocks.c: the table of handles --- */

/* Charges and notes a new block of ours with one reference; NULL when the quota (*result) or host memory does not allow it. */
struct gv_block *gv_block_create(uint64_t bytes, uint64_t grain, const CUmemAllocationProp *properties,
                                 CUresult *result);
/* Notes a handle of the driver's, one reference more if it is known; 0, or -1 without host memory. */
int gv_block_note(CUmemGenericAllocationHandle handle, uint64_t bytes, enum gv_fixed_kind kind, uint64_t fixed_bytes);

/* Under the lock, which is left while waiting: the block of a handle that nobody moves, or NULL. */
struct gv_block *gv_block_find(CUmemGenericAllocationHandle handle);
struct gv_block *gv_block_settled(CUmemGenericAllocationHandle handle);

/* Under the lock: the block is the calling thread's until it lets go. */
void gv_block_claim(struct gv_block *block);
void gv_block_unclaim(struct gv_block *block); /* for all blocks of the call; then gv_blocks_claimed ends it */
void gv_blocks_begin_claim(void);
void gv_blocks_end_claim(void);
static inline int gv_block_busy(const struct gv_block *block) { return block->piece.moving || gv_memory.mover_waits; }
/* Under the lock: sleeps until something settles. */
void gv_blocks_wait(void);

/* Under the lock: takes it out of all tables if nothing uses it any more. Then gv_block_destroy, without the lock. */
int gv_block_unused(struct gv_block *block);
void gv_block_destroy(struct gv_block *block);

/* It must stay resident from now on (its physical handle is about to be given away), and be resident: waits at the gate.
 * CUDA_SUCCESS, and the driver's handle. */
CUresult gv_block_keep(struct gv_block *block, CUmemGenericAllocationHandle *physical);

/* Takes one reference away, as cuMemRelease. */
CUresult gv_block_release(CUmemGenericAllocationHandle handle);

void gv_blocks_forget(void); /* in the child of a fork */

/* lent.c: all blocks mapped in a range are kept from now on, and resident when this returns; other addresses are passed over. */
CUresult gv_mappings_keep(CUdeviceptr address, uint64_t bytes);

/* --- mappings.c: what lies where; all under the lock --- */

int gv_reservation_add(uint64_t base, uint64_t bytes); /* 0, or -1 without host memory */
int gv_reservation_around(uint64_t address, uint64_t *base, uint64_t *bytes);
/* 1: exactly a reservation, without mappings: taken out; 0: it is none of the program's; -1: wrong size, or mapped. */
int gv_reservation_remove(uint64_t base, uint64_t bytes);

struct gv_mapping *gv_mapping_around(uint64_t address, uint64_t bytes); /* some mapping that overlaps, or NULL */
int gv_mapping_add(struct gv_mapping *mapping);                         /* 0, or -1 */
void gv_mapping_remove(struct gv_mapping *mapping);                     /* frees it */
/* The number of mappings that [base, base + bytes) consists of; 0: nothing is mapped there; -1: parts, or gaps. */
int64_t gv_mappings_count(uint64_t base, uint64_t bytes);
void gv_mappings_forget(void);

/* --- block_memory.c: device memory for blocks of ours; control thread, in a transaction --- */

CUresult gv_block_bring(struct gv_block *block);                         /* create, map at all its mappings */
void gv_block_drop(struct gv_block *block);                              /* unmap, release */
CUresult gv_blocks_open(struct gv_piece *const *blocks, uint64_t count); /* gives all mappings the access they had */
/* An address through which the whole block can be read and written. */
CUresult gv_block_open_window(struct gv_block *block, CUdeviceptr *address);
void gv_block_close_window(struct gv_block *block);

/* As cuMemSetAccess for the access of one mapping, over `bytes` (neighbours with equal access). */
CUresult gv_mapping_open(const struct gv_mapping *mapping, uint64_t bytes);

/* --- virtual_queries.c --- */

/* The answer for an address in a mapping of a block of ours. 1: answered (*result); 0: none of ours. */
int gv_mapping_answer(void *data, CUpointer_attribute attribute, CUdeviceptr address, CUresult *result);
int gv_mapping_range(CUdeviceptr address, CUdeviceptr *base, size_t *bytes);

#endif
