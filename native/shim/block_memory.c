/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory for blocks: created, mapped wherever the program mapped it, given the access that the program gave. The block
 * is the caller's (moving), so its mappings do not change meanwhile.
 */
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "real_driver.h"

static void unmap_all(const struct gv_mapping *mapping, const struct gv_mapping *end)
{
    for (; mapping != end; mapping = mapping->next)
        REAL(cuMemUnmap)(mapping->base, mapping->bytes);
}

static void count_held(const struct gv_block *block, int more)
{
    pthread_mutex_lock(&gv_memory.lock);
    gv_memory.held_block_bytes =
        more ? gv_memory.held_block_bytes + block->bytes : gv_memory.held_block_bytes - block->bytes;
    pthread_mutex_unlock(&gv_memory.lock);
}

CUresult gv_block_bring(struct gv_block *block)
{
    count_held(block, 1);
    CUresult result = REAL(cuMemCreate)(&block->piece.handle, block->bytes, &block->properties, 0);
    if (result != CUDA_SUCCESS) {
        count_held(block, 0);
        return result;
    }
    const struct gv_mapping *mapping = block->mappings;
    while (mapping != NULL &&
           (result = REAL(cuMemMap)(mapping->base, mapping->bytes, 0, block->piece.handle, 0)) == CUDA_SUCCESS)
        mapping = mapping->next;
    if (result == CUDA_SUCCESS)
        return CUDA_SUCCESS;
    unmap_all(block->mappings, mapping);
    REAL(cuMemRelease)(block->piece.handle);
    count_held(block, 0);
    return result;
}

void gv_block_drop(struct gv_block *block)
{
    unmap_all(block->mappings, NULL);
    REAL(cuMemRelease)(block->piece.handle);
    count_held(block, 0);
}

/* --- access --------------------------------------------------------------------------------------------------------------- */

CUresult gv_mapping_open(const struct gv_mapping *mapping, uint64_t bytes)
{
    CUmemAccessDesc access[GV_DEVICES_MAX];
    size_t count = 0;
    memset(access, 0, sizeof access);
    for (int device = 0; device < GV_DEVICES_MAX; device++) {
        if (mapping->access[device] == CU_MEM_ACCESS_FLAGS_PROT_NONE)
            continue; /* what a new mapping has */
        access[count].location.type = CU_MEM_LOCATION_TYPE_DEVICE;
        access[count].location.id = device;
        access[count++].flags = (CUmemAccess_flags)mapping->access[device];
    }
    return count == 0 ? CUDA_SUCCESS : REAL(cuMemSetAccess)(mapping->base, bytes, access, count);
}

static int by_address(const void *left, const void *right)
{
    const struct gv_mapping *const a = *(struct gv_mapping *const *)left, *const b = *(struct gv_mapping *const *)right;
    return a->base < b->base ? -1 : a->base > b->base;
}

/* One call for each run of neighbours with equal access: its cost hardly depends on the size. */
CUresult gv_blocks_open(struct gv_piece *const *blocks, uint64_t count)
{
    uint64_t total = 0;
    for (uint64_t i = 0; i < count; i++)
        for (const struct gv_mapping *m = gv_block_of(blocks[i])->mappings; m != NULL; m = m->next)
            total++;
    const struct gv_mapping **const all = malloc((total + 1) * sizeof *all);
    if (all == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    total = 0;
    for (uint64_t i = 0; i < count; i++)
        for (const struct gv_mapping *m = gv_block_of(blocks[i])->mappings; m != NULL; m = m->next)
            all[total++] = m;
    qsort(all, total, sizeof *all, by_address);
    CUresult result = CUDA_SUCCESS;
    for (uint64_t i = 0; i < total && result == CUDA_SUCCESS;) {
        const struct gv_mapping *const first = all[i];
        uint64_t bytes = 0;
        while (i < total && all[i]->base == first->base + bytes &&
               memcmp(all[i]->access, first->access, sizeof first->access) == 0)
            bytes += all[i++]->bytes;
        result = gv_mapping_open(first, bytes);
    }
    free(all);
    return result;
}

/* --- a place to copy through ---------------------------------------------------------------------------------------------- */

CUresult gv_block_open_window(struct gv_block *block, CUdeviceptr *address)
{
    for (const struct gv_mapping *m = block->mappings; m != NULL; m = m->next) {
        if (m->bytes == block->bytes && m->access[gv_memory.device] == CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
            *address = m->base;
            return CUDA_SUCCESS;
        }
    }
    /* Mapped nowhere as a whole, or not for writing: through a mapping of ours, for as long as the copy takes. */
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = gv_memory.device},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUdeviceptr window = 0;
    CUresult result = REAL(cuMemAddressReserve)(&window, block->bytes, 0, 0, 0);
    if (result != CUDA_SUCCESS)
        return result;
    result = REAL(cuMemMap)(window, block->bytes, 0, block->piece.handle, 0);
    if (result == CUDA_SUCCESS) {
        result = REAL(cuMemSetAccess)(window, block->bytes, &access, 1);
        if (result != CUDA_SUCCESS)
            REAL(cuMemUnmap)(window, block->bytes);
    }
    if (result != CUDA_SUCCESS) {
        REAL(cuMemAddressFree)(window, block->bytes);
        return result;
    }
    block->window = window;
    *address = window;
    return CUDA_SUCCESS;
}

void gv_block_close_window(struct gv_block *block)
{
    if (block->window == 0)
        return;
    REAL(cuMemUnmap)(block->window, block->bytes);
    REAL(cuMemAddressFree)(block->window, block->bytes);
    block->window = 0;
}
