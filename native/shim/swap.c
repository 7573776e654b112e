/* SPDX-License-Identifier: Apache-2.0 */
#include "swap.h"

#include "arena.h"
#include "blocks.h"
#include "contexts.h"
#include "elide.h"
#include "session.h"
#include "swap_parts.h"

static struct gv_hash_key key;
static int key_made;

void gv_swap_reset(void)
{
    key_made = 0;
    gv_swap_in_reset();
    gv_swap_out_reset();
    gv_elide_forget();
    gv_page_hash_forget();
}

CUresult gv_swap_open(struct gv_piece *piece, CUdeviceptr *address)
{
    if (piece->is_block)
        return gv_block_open_window(gv_block_of(piece), address);
    *address = gv_piece_address(piece);
    return CUDA_SUCCESS;
}

void gv_swap_close(struct gv_piece *piece)
{
    if (piece->is_block)
        gv_block_close_window(gv_block_of(piece));
}

uint64_t gv_swap_run(const struct gv_place *places, uint64_t count, void **host)
{
    uint32_t pinned;
    uint64_t run = 1;
    *host = gv_arena_address(places[0].slot, &pinned);
    while (run < count && run < pinned && places[run].slot == places[0].slot + (gv_slot)run &&
           places[run].address == places[0].address + run * GV_MEMORY_PAGE)
        run++;
    return run;
}

const struct gv_hash_key *gv_swap_hash_key(void)
{
    const uint8_t *const secret = gv_arena_key();
    if (secret == NULL || !gv_page_hash_load())
        return NULL;
    if (!key_made)
        gv_hash_key_make(secret, &key);
    key_made = 1;
    return &key;
}

static void add(uint64_t *field, uint64_t more) { gv_store64(field, *field + more); }

void gv_swap_publish(const struct gv_swap_counts *counts)
{
    struct gv_client *const page = gv_client_page();
    add(&page->hash_errors, counts->hash_errors);
    add(&page->verify_errors, counts->verify_errors);
    gv_swap_publish_held();
}

void gv_swap_publish_held(void) { gv_store64(&gv_client_page()->host_bytes, gv_arena_held()); }

void gv_swap_prepare(void)
{
    if (gv_contexts_enter() == CUDA_SUCCESS)
        gv_swap_hash_key();
}
