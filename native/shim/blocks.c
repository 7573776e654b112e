/* SPDX-License-Identifier: Apache-2.0
 *
 * The table of handles, and how long each block lives: until its references and its mappings are gone.
 */
#include "blocks.h"

#include <search.h>
#include <stdlib.h>
#include <unistd.h>

#include "gate.h"
#include "page_records.h"
#include "real_driver.h"
#include "settled.h"
#include "sharing.h"

static void *names; /* tree of struct gv_block by name */

static int compare(const void *left, const void *right)
{
    const struct gv_block *a = left, *b = right;
    return a->name < b->name ? -1 : a->name > b->name;
}

void gv_blocks_forget(void) { names = NULL; /* leaked: what the parent was changing is not walked */ }

struct gv_block *gv_block_find(CUmemGenericAllocationHandle handle)
{
    const struct gv_block key = {.name = handle};
    struct gv_block *const *const node = tfind(&key, &names, compare);
    return node == NULL ? NULL : *node;
}

/* Under the lock. */
static int enter(struct gv_block *block)
{
    if (tsearch(block, &names, compare) == NULL)
        return -1;
    if (block->native)
        return 0;
    block->next = gv_memory.blocks;
    block->link = &gv_memory.blocks;
    if (block->next != NULL)
        block->next->link = &block->next;
    gv_memory.blocks = block;
    gv_memory.block_count++;
    return 0;
}

/* Under the lock. */
static int may_charge(uint64_t bytes)
{
    const uint64_t quota = gv_memory_quota(), charged = gv_memory_charged();
    return charged <= quota && bytes <= quota - charged;
}

struct gv_block *gv_block_create(uint64_t bytes, uint64_t grain, const CUmemAllocationProp *properties,
                                 CUresult *result)
{
    static uint64_t last_name;
    *result = CUDA_ERROR_OUT_OF_MEMORY;
    struct gv_block *const block = calloc(1, sizeof *block);
    if (block == NULL)
        return NULL;
    *block = (struct gv_block){.piece.is_block = 1,
                               .bytes = bytes,
                               .grain = grain,
                               .properties = *properties,
                               .references = 1,
                               .exported = -1};
    pthread_mutex_lock(&gv_memory.lock);
    int fits = may_charge(bytes);
    if (!fits) {
        const uint64_t charged = gv_memory_charged() + bytes;
        pthread_mutex_unlock(&gv_memory.lock);
        const int again = gv_memory_ask(charged);
        pthread_mutex_lock(&gv_memory.lock);
        fits = again && may_charge(bytes);
    }
    if (fits) {
        block->name = GV_BLOCK_NAME | ++last_name; /* never used again */
        block->serial = ++gv_memory.serial;
        fits = enter(block) == 0;
    }
    if (fits)
        gv_memory.block_bytes += bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    if (!fits) {
        free(block);
        return NULL;
    }
    *result = CUDA_SUCCESS;
    gv_extents_publish();
    return block;
}

int gv_block_note(CUmemGenericAllocationHandle handle, uint64_t bytes, enum gv_fixed_kind kind, uint64_t fixed_bytes)
{
    int error = 0;
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *block = gv_block_find(handle);
    if (block != NULL) {
        block->references++;
    } else if ((block = calloc(1, sizeof *block)) == NULL) {
        error = -1;
    } else {
        *block = (struct gv_block){.piece = {.handle = handle, .mapped = 1, .kept = 1, .is_block = 1},
                                   .name = handle,
                                   .bytes = bytes,
                                   .references = 1,
                                   .native = 1,
                                   .fixed_kind = (uint32_t)kind,
                                   .fixed_bytes = fixed_bytes,
                                   .exported = -1};
        error = enter(block);
        if (error != 0)
            free(block);
    }
    pthread_mutex_unlock(&gv_memory.lock);
    return error;
}

void gv_blocks_wait(void) { gv_wait_settled(&gv_memory.settled, &gv_memory.lock, NULL); }

struct gv_block *gv_block_settled(CUmemGenericAllocationHandle handle)
{
    struct gv_block *block = gv_block_find(handle);
    while (block != NULL && gv_block_busy(block)) {
        gv_blocks_wait();
        block = gv_block_find(handle); /* it may have gone meanwhile */
    }
    return block;
}

void gv_block_claim(struct gv_block *block) { block->piece.moving = 1; }
void gv_block_unclaim(struct gv_block *block) { block->piece.moving = 0; }
void gv_blocks_begin_claim(void) { gv_memory.claims++; }
void gv_blocks_end_claim(void)
{
    gv_memory.claims--;
    pthread_cond_broadcast(&gv_memory.settled);
}

int gv_block_unused(struct gv_block *block)
{
    if (block->references != 0 || block->mappings != NULL)
        return 0;
    tdelete(block, &names, compare);
    if (!block->native) {
        *block->link = block->next;
        if (block->next != NULL)
            block->next->link = block->link;
        gv_memory.block_count--;
        if (block->piece.kept && !block->piece.mapped) /* kept ones count as in use */
            __atomic_fetch_sub(&gv_gate.obstacles, 1, __ATOMIC_ACQ_REL);
    }
    return 1;
}

void gv_block_destroy(struct gv_block *block)
{
    if (block->native) {
        if (block->fixed_bytes != 0)
            gv_fixed_discharge(block->fixed_kind, block->fixed_bytes);
        free(block);
        return;
    }
    if (block->piece.mapped)
        gv_block_drop(block);
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.block_bytes -= block->bytes;
    const int kept = block->piece.kept;
    if (kept)
        gv_memory.kept_bytes -= block->bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_pages_forget(&block->piece);
    if (kept)
        gv_fixed_uncount(GV_FIXED_EXPORTED, block->bytes);
    if (block->exported >= 0) {
        close(block->exported);
        gv_sharing_withdraw_handle(block->serial);
    }
    free(block);
    gv_extents_publish();
}

CUresult gv_block_keep(struct gv_block *block, CUmemGenericAllocationHandle *physical)
{
    int fresh = 0;
    pthread_mutex_lock(&gv_memory.lock);
    if (!block->piece.kept) {
        block->piece.kept = 1;
        gv_memory.kept_bytes += block->bytes;
        if (block->piece.live++ == 0 && !block->piece.mapped)
            __atomic_fetch_add(&gv_gate.obstacles, 1, __ATOMIC_ACQ_REL);
        fresh = 1;
    }
    pthread_mutex_unlock(&gv_memory.lock);
    if (fresh)
        gv_fixed_count(GV_FIXED_EXPORTED, block->bytes);
    const struct gv_submission submission = gv_gate_enter_unused();
    CUresult result = submission.refused;
    pthread_mutex_lock(&gv_memory.lock);
    if (result == CUDA_SUCCESS && !block->piece.mapped)
        result = CUDA_ERROR_ILLEGAL_STATE; /* the gate lets everything through: the context is lost */
    *physical = block->piece.handle;
    pthread_mutex_unlock(&gv_memory.lock);
    gv_gate_leave(&submission);
    return result;
}
