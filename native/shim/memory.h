/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory of this process at addresses that never change.
 *
 *   window   one reservation of addresses, larger than the device: regions for small, middle, large requests (window.c)
 *   range    what the program got from an allocation call (ranges.h)
 *   piece    one physical handle, or nothing, and where it is mapped: the atom of residency. Two kinds:
 *   extent   a piece of ours: a slice of the window. Those of the region for large requests are coarse, all others fine
 *   block    a piece of the program's own: cuMemCreate, mapped where the program mapped it (blocks.h)
 *   arena    the host file that holds pieces which are not in device memory
 *
 * A piece in use (live > 0) that is not mapped is *absent*; while any is absent the gate stays shut (GV_ABSENT_MASK). An
 * allocation only makes pieces absent; the control thread makes them present before the next launch (residency.c). So
 * allocating never waits for the GPU, also without the lease.
 *
 * Extents out of use stay mapped until the next work is given to the GPU (GV_HAS_UNUSED): whoever takes them again before that
 * costs no call of the driver, and work that touches them later faults as it would natively. Then they are unmapped and their
 * handles kept for reuse, within the allowance.
 *
 * gv_memory.lock protects all fields; it is never held across a driver call or a wait. Who calls the driver for a piece sets
 * `moving` first: then nobody else touches its mapping.
 */
#ifndef GPUVIRT_SHIM_MEMORY_H
#define GPUVIRT_SHIM_MEMORY_H

#include <pthread.h>
#include <stdint.h>

#include "cuda_api.h"
#include "ranges.h"

struct gv_page;
struct gv_piece {
    CUmemGenericAllocationHandle handle; /* valid while mapped */
    uint32_t live;         /* ranges that lie in an extent; mappings of a block, and one while it is kept */
    struct gv_page *pages; /* what is known of each (page_records.h); NULL = nothing */
    uint8_t mapped;        /* kernels may touch it */
    uint8_t moving;        /* somebody calls the driver for it; `mapped` of an extent is 0 meanwhile */
    uint8_t saved;         /* the arena holds its content */
    uint8_t kept;          /* never evicted: somebody else may have it mapped */
    uint8_t is_block;
    uint8_t unused; /* an extent out of use that is still mapped: counted in unused_bytes */
    uint8_t reserved[2];
};

struct gv_memory_state {
    pthread_mutex_t lock;
    CUdevice device;
    uint64_t total;                    /* of the device */
    uint64_t base, bytes;              /* the window */
    uint64_t fine_bytes, coarse_bytes; /* sizes of extents: for window.c alone */
    uint64_t fine_count;               /* extents below the region for large requests; the same */
    uint64_t large_limit;              /* bytes of the smallest large request */
    struct gv_ranges small, middle, large;
    struct gv_piece *extents; /* by address; a sparse mapping */
    uint64_t extents_touched;
    int elsewhere;       /* the window is not at the address that all processes ask for */
    uint64_t live_bytes; /* of extents in use by the program: charged */
    uint64_t
        held_bytes; /* of extents with a physical handle, just being mapped or unmapped included; and cached ones */
    uint64_t fixed_bytes;    /* memory that does not move (fixed.h): part of what is charged and of what is resident */
    uint64_t fixed_wanted;   /* of it, what waits for room (room.h): charged, not resident */
    struct gv_block *blocks; /* all, the newest first (blocks.h) */
    uint64_t block_count;
    uint64_t block_bytes;      /* of all blocks: charged */
    uint64_t held_block_bytes; /* of blocks with a physical handle, those included that are just being moved */
    uint64_t kept_bytes;       /* of extents and blocks that are kept: reported as fixed */
    uint32_t claims;           /* program threads that call the driver for blocks now */
    uint32_t mover_waits;      /* the control thread waits for claims to end: no new ones */
    pthread_cond_t settled;    /* blocks stopped moving, or claims ended */
    int shareable;             /* handles of this device can become file descriptors */
    uint64_t cached_bytes;     /* of handles without an address, ready for reuse (extents.c); part of held_bytes */
    uint64_t unused_bytes;     /* of extents out of use that are still mapped; part of held_bytes */
    uint64_t unused_first, unused_last; /* between them they all are */
    uint64_t allowance;      /* bytes that may be resident: the daemon's promise; written by the control thread */
    uint64_t reported;       /* charged bytes as the daemon last heard; written by the control thread */
    uint64_t reported_fixed; /* likewise */
    uint64_t granted;        /* what this process may charge while others share its job's quota; under the lock */
    uint32_t reports;        /* how often the daemon was told what is charged; control thread */
    uint8_t restoring;       /* the control thread is filling the allowance: nobody else takes of it */
    uint64_t serial;
    uint32_t any_sync_memops; /* some range has it, or had: look */
};
extern struct gv_memory_state gv_memory;

/* window.c: reserves the window on this device. Called once per process, before the first attach. */
CUresult gv_memory_prepare(CUdevice device);
void gv_memory_forget(void); /* in the child of a fork */
/* A line for the daemon's log if the driver did not place the window where all processes ask for it; 1 once, else 0. */
int gv_window_remark(char *text, size_t size);

static inline int gv_memory_owns(CUdeviceptr address) { return address - gv_memory.base < gv_memory.bytes; }

/* window.c: the only places that know how large extents are and where. Address: of an extent, a block may be mapped anywhere. */
uint64_t gv_piece_bytes(const struct gv_piece *piece);
CUdeviceptr gv_piece_address(const struct gv_piece *extent);
uint64_t gv_extent_at(CUdeviceptr address); /* the number of the extent around an address of the window */
int gv_extent_is_size(uint64_t bytes);      /* whether extents of just this size exist */
static inline uint64_t gv_extent_index(const struct gv_piece *extent) { return (uint64_t)(extent - gv_memory.extents); }
/* What quotas are rounded to: the smallest amount that is charged for the first byte of an allocation. */
uint64_t gv_memory_granule(void);

uint64_t gv_memory_charged(void);  /* bytes of extents in use, of blocks and of fixed memory */
uint64_t gv_memory_resident(void); /* bytes of physical memory, cached handles and fixed memory included */
uint64_t gv_memory_quota(void);    /* what this process may charge without asking. Under the lock, or as a hint */
uint64_t gv_memory_left(void);     /* what it could charge besides, as far as is known */
/* After that was too little, and others share it: asks the daemon for `charged` bytes in all. 1: try again. */
int gv_memory_ask(uint64_t charged);
void gv_memory_granted(uint64_t charged); /* the answer; control thread */
/* The program is about to be told that it cannot have so much: the daemon keeps that and the reason among the job's events. */
void gv_memory_refused(uint64_t bytes);

/* A new range, charged to the quota. CUDA_ERROR_OUT_OF_MEMORY when the quota or the addresses are used up. */
CUresult gv_memory_take(uint64_t bytes, void *context, void *pool, CUdeviceptr *address);
/* Gives a range back; nothing on the GPU may use it any more. */
void gv_memory_give(struct gv_range *range);
/* Gives back all ranges of a context that is gone. */
void gv_memory_give_context(void *context);

/* The range in use that begins at / contains an address; its fields may change once the lock is released, so they are copied. */
int gv_memory_find(CUdeviceptr address, int interior, struct gv_range *copy);
/* Takes the range out of the table of the program (a second free must fail); it stays charged until given back. */
struct gv_range *gv_memory_claim(CUdeviceptr address);
/* Whether copies and memsets of the range around an address always wait for their end. 0: there is no such range. */
int gv_memory_set_sync_memops(CUdeviceptr address, int wanted);
/* Puts a claimed range into the table again: as it was, or as a new allocation. */
void gv_memory_unclaim(struct gv_range *range);
void gv_memory_readmit(struct gv_range *range, void *context, void *pool);

/* What a transaction of the control thread came to (restore.h, evict.h). */
struct gv_move {
    CUresult status;
    uint64_t bytes_moved, bytes_short;                 /* copied over the link; room that was missing */
    uint64_t zero_bytes, clean_bytes, duplicate_bytes; /* that left or came without being copied */
    uint64_t copy_ns, hash_ns, map_ns;
};

/* extents.c: physical memory for extents. Control thread only, but where it says "any thread". */
CUresult gv_extent_bring(struct gv_piece *extent);       /* create and map */
void gv_extent_drop(struct gv_piece *extent, int reuse); /* unmap; `reuse`: the handle may be cached */
CUresult gv_extents_open(struct gv_piece *const *extents, uint64_t count); /* access; sorted upwards */
/* Any thread: gives memory that is not in use back to the driver, cached handles first; the bytes. */
uint64_t gv_extents_release_cached(uint64_t bytes_wanted);
/* Under the lock: bytes of these extents that cached handles can serve, so that to bring them makes nothing more resident. */
uint64_t gv_extents_cached_for(struct gv_piece *const *extents, uint64_t count);
/* Any thread: unmaps extents of [first, last] not in use. */
void gv_extents_release_unused(uint64_t first, uint64_t last);
void gv_extents_release_all_unused(void);
/* Any thread: extents of [first, last] went out of use: forgets their content, and unmaps at once what others may have open. */
void gv_extents_vacated(uint64_t first, uint64_t last);
/* Under the lock: whether the extent is mapped without being in use. */
void gv_extent_note_unused(struct gv_piece *extent, int unused);
void gv_extents_forget(void); /* in the child of a fork */
struct gv_memory_report {
    uint64_t charged, resident, fixed; /* bytes; fixed is part of both others */
};
void gv_extents_report(struct gv_memory_report *report);
/* The same for the daemon, which hears with it that what was granted beyond the charge is given back. Control thread. */
void gv_extents_tell(struct gv_memory_report *report);
void gv_extents_publish(void); /* charged and resident bytes to the client page */

#endif
