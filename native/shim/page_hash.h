/* SPDX-License-Identifier: Apache-2.0
 *
 * Hashes of pages, 128 keyed bits: computed on the device by native/kernels/page_hash.cu, on the host by its twin. Pages are
 * compared by them alone, within one job; the key is a secret of the job's arena.
 */
#ifndef GPUVIRT_SHIM_PAGE_HASH_H
#define GPUVIRT_SHIM_PAGE_HASH_H

#include <stdint.h>

#include "cuda_api.h"

enum {
    GV_HASH_PAGE_BYTES = 2 << 20,
    GV_HASH_LANES = 32, /* threads of a row, and lanes of a slice of a page */
    GV_HASH_WARPS = 8,  /* rows of a block, and slices of a page */
    GV_HASH_RUNS = 16,  /* of pages, in one launch */
    GV_HASH_KEY_BYTES = 16,
    GV_HASH_BATCHES = 3,        /* that can be under way at the same time */
    GV_HASH_BATCH_PAGES = 1024, /* at most */
};

/* A parameter of the kernel: what it multiplies with and begins with. Multipliers are odd. */
struct gv_hash_key {
    uint64_t word, chain[2];
    uint64_t seed[2], lane;
};

/* A parameter of the kernel: pages that lie one behind the other, from address[i] on, are blocks first[i] and up. A run that is
 * not used begins behind every block. */
struct gv_hash_runs {
    uint64_t address[GV_HASH_RUNS];
    uint32_t first[GV_HASH_RUNS];
};

struct gv_page_hash {
    uint64_t hash[2];
    uint64_t any; /* 0: no bit of the page is set */
};

void gv_hash_key_make(const uint8_t secret[GV_HASH_KEY_BYTES], struct gv_hash_key *key);

/* The hash of GV_HASH_PAGE_BYTES at `page`, which is aligned to 8. */
void gv_page_hash_host(const void *page, const struct gv_hash_key *key, struct gv_page_hash *hash);

extern const char gv_page_hash_ptx[]; /* page_hash_image.S: the kernel as text */

/*
 * page_hash.c: on the device. Control thread, in the context that gv_contexts_enter chose, on a stream of its own. The results
 * come into host memory that the kernel writes, so that hashing needs no device memory.
 */

/* Loads the kernel into the current context, the first time. 1: it is there. 0: it cannot be, which is said once; pages are then
 * copied without being looked at. */
int gv_page_hash_load(void);

/* Hashes pages, in any order of addresses. `batch`: below GV_HASH_BATCHES, and waited for since it was last used. */
CUresult gv_page_hash_submit(uint32_t batch, const CUdeviceptr *pages, uint32_t count, const struct gv_hash_key *key);
/* Waits for a batch. The results stay until the batch is used again. */
CUresult gv_page_hash_wait(uint32_t batch, const struct gv_page_hash **hashes);
/* Waits for all that was submitted, also what nobody waits for after an error: it reads pages until then. */
void gv_page_hash_settle(void);

void gv_page_hash_context_ended(CUcontext context); /* any thread: what was loaded there has gone with it */
void gv_page_hash_forget(void);

#endif
