/* SPDX-License-Identifier: Apache-2.0
 *
 * Addresses of the program's own memory management: reserve, map, set access, unmap. What is mapped of blocks that are not in
 * device memory is only noted; the control thread does it when it brings them in.
 */
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "gate.h"
#include "real_driver.h"

/* --- reservations --------------------------------------------------------------------------------------------------------- */

GV_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
                                       unsigned long long flags)
{
    CUresult result = REAL(cuMemAddressReserve)(ptr, size, alignment, addr, flags);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&gv_memory.lock);
    const int error = gv_reservation_add(*ptr, size);
    pthread_mutex_unlock(&gv_memory.lock);
    if (error != 0) {
        REAL(cuMemAddressFree)(*ptr, size);
        result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return result;
}

GV_EXPORT CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    if (gv_memory_owns(ptr))
        return CUDA_ERROR_INVALID_VALUE; /* the window is not the program's */
    pthread_mutex_lock(&gv_memory.lock);
    const int removed = gv_reservation_remove(ptr, size);
    pthread_mutex_unlock(&gv_memory.lock);
    if (removed < 0)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = REAL(cuMemAddressFree)(ptr, size);
    if (result != CUDA_SUCCESS && removed > 0) {
        pthread_mutex_lock(&gv_memory.lock);
        gv_reservation_add(ptr, size);
        pthread_mutex_unlock(&gv_memory.lock);
    }
    return result;
}

/* --- map ------------------------------------------------------------------------------------------------------------------ */

/* Under the lock: may this part of a block of ours lie there? */
static int fits(const struct gv_block *block, uint64_t base, uint64_t bytes)
{
    uint64_t start, length;
    return block->references != 0 && bytes <= block->bytes && base % block->grain == 0 && bytes % block->grain == 0 &&
           gv_reservation_around(base, &start, &length) && bytes <= start + length - base;
}

/* Under the lock: enters a mapping and claims its block. 0 when it cannot be there. */
static int begin_map(struct gv_mapping *mapping, CUmemGenericAllocationHandle handle)
{
    mapping->block = gv_block_settled(handle);
    if (mapping->block == NULL || (!mapping->block->native && !fits(mapping->block, mapping->base, mapping->bytes)) ||
        gv_mapping_around(mapping->base, mapping->bytes) != NULL || gv_mapping_add(mapping) != 0)
        return 0;
    gv_block_claim(mapping->block);
    gv_blocks_begin_claim();
    return 1;
}

static void end_map(struct gv_mapping *mapping, CUresult result)
{
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = mapping->block;
    if (result != CUDA_SUCCESS)
        gv_mapping_remove(mapping);
    else if (block->piece.live++ == 0 && !block->piece.mapped)
        __atomic_fetch_add(&gv_gate.obstacles, 1, __ATOMIC_ACQ_REL);
    gv_block_unclaim(block);
    gv_blocks_end_claim();
    pthread_mutex_unlock(&gv_memory.lock);
}

/* Under the lock: imported memory is charged when it is first mapped, since only then its size is known. */
static int wants_charge(const struct gv_block *block)
{
    return block != NULL && block->native && block->fixed_kind == GV_FIXED_IMPORTED && block->fixed_bytes == 0;
}

/* That may have to wait for room, so it comes before anything is claimed. */
static CUresult charge_import(CUmemGenericAllocationHandle handle, uint64_t bytes)
{
    pthread_mutex_lock(&gv_memory.lock);
    const int wanted = wants_charge(gv_block_find(handle));
    pthread_mutex_unlock(&gv_memory.lock);
    if (!wanted)
        return CUDA_SUCCESS;
    const CUresult result = gv_fixed_charge(GV_FIXED_IMPORTED, bytes);
    if (result != CUDA_SUCCESS)
        return result;
    pthread_mutex_lock(&gv_memory.lock);
    struct gv_block *const block = gv_block_find(handle);
    const int still = wants_charge(block);
    if (still)
        block->fixed_bytes = bytes;
    pthread_mutex_unlock(&gv_memory.lock);
    if (!still)
        gv_fixed_discharge(GV_FIXED_IMPORTED, bytes);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                            unsigned long long flags)
{
    const int ours = gv_block_is_ours(handle);
    if (ptr == 0 || size == 0 || size > UINT64_MAX - ptr || gv_memory_owns(ptr) ||
        (ours && (offset != 0 || flags != 0)))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = ours ? CUDA_SUCCESS : charge_import(handle, size);
    if (result != CUDA_SUCCESS)
        return result;
    struct gv_mapping *const mapping = calloc(1, sizeof *mapping);
    if (mapping == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    mapping->base = ptr;
    mapping->bytes = size;
    pthread_mutex_lock(&gv_memory.lock);
    const int known = gv_block_find(handle) != NULL;
    const int begun = known && begin_map(mapping, handle);
    const CUmemGenericAllocationHandle physical = begun ? mapping->block->piece.handle : handle;
    const int mapped = begun && mapping->block->piece.mapped;
    pthread_mutex_unlock(&gv_memory.lock);
    if (!begun) {
        free(mapping);
        return known || ours ? CUDA_ERROR_INVALID_VALUE : REAL(cuMemMap)(ptr, size, offset, handle, flags);
    }
    if (mapped)
        result = REAL(cuMemMap)(ptr, size, offset, physical, flags);
    end_map(mapping, result);
    return result;
}

/* --- ranges of mappings --------------------------------------------------------------------------------------------------- */

struct claimed {
    struct gv_mapping **mappings; /* by address, without a gap */
    uint64_t count;
};

/*
 * Claims all blocks of the mappings that a range consists of. CUDA_SUCCESS with count 0: nothing of it is mapped by what we
 * know. CUDA_ERROR_INVALID_VALUE: parts of mappings, or gaps.
 */
static CUresult claim(struct claimed *claimed, uint64_t base, uint64_t bytes)
{
    *claimed = (struct claimed){NULL, 0};
    pthread_mutex_lock(&gv_memory.lock);
    int64_t count;
    for (;;) {
        count = gv_mappings_count(base, bytes);
        int busy = 0;
        for (uint64_t at = base; count > 0 && at < base + bytes && !busy;) {
            const struct gv_mapping *const mapping = gv_mapping_around(at, 1);
            busy = gv_block_busy(mapping->block);
            at += mapping->bytes;
        }
        if (!busy)
            break;
        gv_blocks_wait(); /* holding nothing; then everything may be different */
    }
    CUresult result = count < 0 ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    if (count > 0 && (claimed->mappings = malloc((uint64_t)count * sizeof *claimed->mappings)) == NULL)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (count > 0 && result == CUDA_SUCCESS) {
        for (uint64_t at = base; at < base + bytes; at += claimed->mappings[claimed->count++]->bytes) {
            claimed->mappings[claimed->count] = gv_mapping_around(at, 1);
            gv_block_claim(claimed->mappings[claimed->count]->block);
        }
        gv_blocks_begin_claim();
    }
    pthread_mutex_unlock(&gv_memory.lock);
    return result;
}

/* --- unmap ---------------------------------------------------------------------------------------------------------------- */

/* Under the lock: forgets a mapping that is no more. Returns its block if nothing uses that any more. */
static struct gv_block *forget(struct gv_mapping *mapping)
{
    struct gv_block *const block = mapping->block;
    gv_mapping_remove(mapping);
    if (--block->piece.live == 0 && !block->piece.mapped)
        __atomic_fetch_sub(&gv_gate.obstacles, 1, __ATOMIC_ACQ_REL);
    return gv_block_unused(block) ? block : NULL;
}

GV_EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    if (ptr == 0 || size == 0 || size > UINT64_MAX - ptr || gv_memory_owns(ptr))
        return CUDA_ERROR_INVALID_VALUE;
    struct claimed claimed;
    CUresult result = claim(&claimed, ptr, size);
    if (result != CUDA_SUCCESS || claimed.count == 0)
        return result != CUDA_SUCCESS ? result : REAL(cuMemUnmap)(ptr, size);
    uint64_t done = 0;
    for (; done < claimed.count && result == CUDA_SUCCESS; done++) {
        const struct gv_mapping *const mapping = claimed.mappings[done];
        if (mapping->block->piece.mapped)
            result = REAL(cuMemUnmap)(mapping->base, mapping->bytes);
    }
    done -= result != CUDA_SUCCESS;
    struct gv_block *unused = NULL; /* a chain by `next` of those that go */
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < claimed.count; i++)
        gv_block_unclaim(claimed.mappings[i]->block);
    for (uint64_t i = 0; i < done; i++) {
        struct gv_block *const block = forget(claimed.mappings[i]);
        if (block != NULL) {
            block->next = unused;
            unused = block;
        }
    }
    gv_blocks_end_claim();
    pthread_mutex_unlock(&gv_memory.lock);
    free(claimed.mappings);
    while (unused != NULL) {
        struct gv_block *const block = unused;
        unused = block->next;
        gv_block_destroy(block);
    }
    return result;
}

/* --- access --------------------------------------------------------------------------------------------------------------- */

/* What the driver would say about the descriptors for device memory that it does not have at present. */
static CUresult check_access(const CUmemAccessDesc *desc, size_t count)
{
    CUdevice device;
    for (size_t i = 0; i < count; i++) {
        if (desc[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            return CUDA_ERROR_INVALID_VALUE;
        if (desc[i].location.id < 0 || desc[i].location.id >= GV_DEVICES_MAX ||
            REAL(cuDeviceGet)(&device, desc[i].location.id) != CUDA_SUCCESS)
            return CUDA_ERROR_INVALID_DEVICE;
        if (desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READ &&
            desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

static void note_access(struct gv_mapping *mapping, const CUmemAccessDesc *desc, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE && desc[i].location.id < GV_DEVICES_MAX)
            mapping->access[desc[i].location.id] = (uint8_t)desc[i].flags;
}

/* Sets the access of a run of mappings that the driver has. */
static CUresult set_run(const struct claimed *claimed, uint64_t first, uint64_t end, const CUmemAccessDesc *desc,
                        size_t count)
{
    const struct gv_mapping *const last = claimed->mappings[end - 1];
    const uint64_t base = claimed->mappings[first]->base;
    return REAL(cuMemSetAccess)(base, last->base + last->bytes - base, desc, count);
}

GV_EXPORT CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
    if (ptr == 0 || size == 0 || size > UINT64_MAX - ptr || desc == NULL || count == 0)
        return REAL(cuMemSetAccess)(ptr, size, desc, count); /* its error */
    if (gv_memory_owns(ptr))
        return CUDA_ERROR_INVALID_VALUE;
    struct claimed claimed;
    CUresult result = claim(&claimed, ptr, size);
    if (result != CUDA_SUCCESS || claimed.count == 0)
        return result != CUDA_SUCCESS ? result : REAL(cuMemSetAccess)(ptr, size, desc, count);
    for (uint64_t i = 0; i < claimed.count && result == CUDA_SUCCESS; i++)
        if (!claimed.mappings[i]->block->native)
            result = check_access(desc, count);
    for (uint64_t i = 0; i < claimed.count && result == CUDA_SUCCESS;) {
        uint64_t end = i;
        while (end < claimed.count && claimed.mappings[end]->block->piece.mapped)
            end++;
        if (end != i)
            result = set_run(&claimed, i, end, desc, count);
        else
            end++; /* one that the driver does not have: noted */
        for (; i < end; i++)
            if (result == CUDA_SUCCESS)
                note_access(claimed.mappings[i], desc, count);
    }
    pthread_mutex_lock(&gv_memory.lock);
    for (uint64_t i = 0; i < claimed.count; i++)
        gv_block_unclaim(claimed.mappings[i]->block);
    gv_blocks_end_claim();
    pthread_mutex_unlock(&gv_memory.lock);
    free(claimed.mappings);
    return result;
}

GV_EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
    if (flags == NULL || location == NULL)
        return REAL(cuMemGetAccess)(flags, location, ptr);
    const CUmemAccessDesc asked = {.location = *location, .flags = CU_MEM_ACCESS_FLAGS_PROT_NONE};
    const CUresult checked = check_access(&asked, 1);
    pthread_mutex_lock(&gv_memory.lock);
    const struct gv_mapping *const mapping = gv_mapping_around(ptr, 1);
    const int ours = mapping != NULL && !mapping->block->native;
    if (ours && checked == CUDA_SUCCESS)
        *flags = mapping->access[location->id];
    pthread_mutex_unlock(&gv_memory.lock);
    return ours ? checked : REAL(cuMemGetAccess)(flags, location, ptr);
}
