/* SPDX-License-Identifier: Apache-2.0 */
#include "page_records.h"

#include <stdlib.h>

#include "blocks.h"

struct gv_page *gv_pages_of(struct gv_piece *piece)
{
    if (piece->pages != NULL)
        return piece->pages;
    const uint64_t count = gv_piece_pages(piece);
    struct gv_page *const pages = calloc(count, sizeof *pages);
    if (pages == NULL)
        return NULL;
    for (uint64_t i = 0; i < count; i++)
        pages[i].slot = -1;
    pthread_mutex_lock(&gv_memory.lock);
    piece->pages = pages;
    pthread_mutex_unlock(&gv_memory.lock);
    return pages;
}

void gv_pages_forget(struct gv_piece *piece)
{
    if (piece->pages == NULL)
        return;
    for (uint64_t i = 0; i < gv_piece_pages(piece); i++)
        gv_arena_release(piece->pages[i].slot);
    free(piece->pages);
    piece->pages = NULL;
    piece->saved = 0;
}

/* Under the lock. */
static uint64_t give_back(struct gv_piece *piece, uint64_t most)
{
    uint64_t given = 0;
    if (piece->pages == NULL || !piece->mapped || piece->moving)
        return 0;
    for (uint64_t i = 0; i < gv_piece_pages(piece) && given < most; i++) {
        struct gv_page *const page = &piece->pages[i];
        if (page->slot < 0)
            continue;
        gv_arena_release(page->slot);
        page->slot = -1;
        page->state = GV_PAGE_UNKNOWN;
        given++;
    }
    return given;
}

uint64_t gv_pages_give_back(uint64_t most)
{
    uint64_t given = 0;
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < gv_memory.extents_touched && given < most; i++)
        given += give_back(&gv_memory.extents[i], most - given);
    for (struct gv_block *block = gv_memory.blocks; block != NULL && given < most; block = block->next)
        given += give_back(&block->piece, most - given);
    pthread_mutex_unlock(&gv_memory.lock);
    return given;
}
