/* SPDX-License-Identifier: Apache-2.0
 *
 * Virtual memory management: reserve, map, set access, unmap. Handles are in vmm_handle.c.
 *
 *     reservation   mmap(PROT_NONE, NORESERVE)
 *     mapping       mmap(MAP_FIXED | MAP_SHARED, PROT_NONE) of the handle's memfd: not accessible yet
 *     set access    mprotect
 *     unmap         mmap(MAP_FIXED, PROT_NONE) over it: a reservation again, the next touch faults
 *
 * Memory goes back to the device when handles, mappings, and other processes' imports are gone. All devices of a process
 * share its address space: access is the union of what the locations were given.
 */
#include "vmm.h"
#include "model.h"
#include "parking.h"
#include "pool.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct gv_mapping {
    uint64_t base, bytes; /* first: compare */
    struct gv_handle *handle;
    uint8_t access[GV_BOARD_DEVICES + 1]; /* CUmemAccess_flags per device; the last one: of the host */
    bool absent; /* its memory was parked (parking.h) and is still: it comes when access to it is set */
};

static void *mappings; /* tree of struct gv_mapping, under gv_memory_lock */

static int compare(const void *left, const void *right)
{
    const struct gv_mapping *a = left, *b = right;
    if (a->base + a->bytes <= b->base)
        return -1;
    return b->base + b->bytes <= a->base ? 1 : 0;
}

static struct gv_mapping *mapping_of(uint64_t address, uint64_t bytes)
{
    const struct gv_mapping key = {.base = address, .bytes = bytes};
    struct gv_mapping **node = tfind(&key, &mappings, compare);
    return node == NULL ? NULL : *node;
}

/* Reserves `size` bytes aligned to `alignment`, at `hint` if that is free. */
static void *reserve(size_t size, size_t alignment, uint64_t hint)
{
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (hint != 0 && gv_is_aligned(hint, alignment)) {
        void *exact = mmap((void *)hint, size, PROT_NONE, flags | MAP_FIXED_NOREPLACE, -1, 0);
        if (exact == (void *)hint)
            return exact;
        if (exact != MAP_FAILED)
            munmap(exact, size);
    }
    uint8_t *area = mmap(NULL, size + alignment, PROT_NONE, flags, -1, 0);
    if (area == MAP_FAILED)
        return MAP_FAILED;
    uint8_t *start = (uint8_t *)gv_round_up((uint64_t)area, alignment);
    if (start > area)
        munmap(area, (size_t)(start - area));
    if (start + size < area + size + alignment)
        munmap(start + size, (size_t)(area + size + alignment - (start + size)));
    return start;
}

GV_EXPORT CUresult cuMemAddressReserve(CUdeviceptr *ptr, size_t size, size_t alignment, CUdeviceptr addr,
                                       unsigned long long flags)
{
    GV_ENTER();
    if (ptr == NULL || size == 0 || flags != 0 || !gv_is_aligned(size, GV_SMALLEST_PAGE) ||
        !gv_is_aligned(addr, GV_SMALLEST_PAGE) || (alignment & (alignment - 1)) != 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (alignment < GV_GRANULARITY)
        alignment = GV_GRANULARITY; /* so that handles can be mapped at its start */
    if (size > 1ull << 47 || alignment > 1ull << 46)
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *area = reserve(size, alignment, addr);
    if (area == MAP_FAILED)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_region *region = gv_region_add((uint64_t)area, size, GV_REGION_RESERVED, -1, NULL);
    pthread_mutex_unlock(&gv_memory_lock);
    if (region == NULL) {
        munmap(area, size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *ptr = (CUdeviceptr)area;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuMemAddressFree(CUdeviceptr ptr, size_t size)
{
    GV_ENTER();
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_region *region = gv_region_find(ptr);
    const bool exact =
        region != NULL && region->kind == GV_REGION_RESERVED && region->base == ptr && region->bytes == size;
    const bool in_use = exact && mapping_of(ptr, size) != NULL;
    if (exact && !in_use) {
        gv_region_remove(region);
        munmap((void *)ptr, size);
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return exact && !in_use ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Makes the memory appear there, without access; in no child of the process and no core file, as a device's. */
static bool show_file(const struct gv_mapping *mapping)
{
    void *const at = (void *)mapping->base;
    if (mmap(at, mapping->bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, mapping->handle->physical->fd, 0) == MAP_FAILED)
        return false;
    madvise(at, mapping->bytes, MADV_DONTFORK);
    madvise(at, mapping->bytes, MADV_DONTDUMP);
    return true;
}

static bool show(struct gv_mapping *mapping)
{
    const struct gv_physical *const physical = mapping->handle->physical;
    mapping->absent = physical->parked != NULL && mapping->bytes == physical->bytes;
    return mapping->absent || show_file(mapping);
}

/* The same for one that is absent, before access is set. Mapped twice, its memory may have come to the other address. */
static bool bring(struct gv_mapping *mapping)
{
    struct gv_physical *const physical = mapping->handle->physical;
    mapping->absent = !(physical->parked != NULL && gv_unpark(physical, mapping->base)) && !show_file(mapping);
    return !mapping->absent;
}

GV_EXPORT CUresult cuMemMap(CUdeviceptr ptr, size_t size, size_t offset, CUmemGenericAllocationHandle handle,
                            unsigned long long flags)
{
    GV_ENTER();
    if (ptr == 0 || size == 0 || offset != 0 || flags != 0 || !gv_is_aligned(ptr, GV_GRANULARITY) ||
        !gv_is_aligned(size, GV_GRANULARITY))
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    struct gv_mapping *mapping = calloc(1, sizeof *mapping);
    if (mapping == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_lock(&gv_memory_lock);
    struct gv_handle *known = gv_handle_of(handle);
    const struct gv_region *region = gv_region_find(ptr);
    const bool fits = known != NULL && known->references > 0 && size <= known->physical->bytes && region != NULL &&
                      region->kind == GV_REGION_RESERVED && size <= region->base + region->bytes - ptr &&
                      mapping_of(ptr, size) == NULL;
    if (fits) {
        mapping->base = ptr;
        mapping->bytes = size;
        mapping->handle = known;
        result = CUDA_ERROR_OUT_OF_MEMORY;
        if (tsearch(mapping, &mappings, compare) != NULL) {
            if (!gv_view_add(known->physical, ptr, size, PROT_NONE)) {
                tdelete(mapping, &mappings, compare);
            } else if (!show(mapping)) {
                gv_view_remove(known->physical, ptr);
                tdelete(mapping, &mappings, compare);
            } else {
                known->physical->references++;
                known->mappings++;
                result = CUDA_SUCCESS;
            }
        }
    }
    const int device = result == CUDA_SUCCESS ? known->physical->device : 0;
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS)
        gv_model_vmm(device, GV_VMM_MAP, size);
    else
        free(mapping);
    return result;
}

/* True when [ptr, ptr + size) consists of whole mappings without a gap. Under the lock. */
static bool whole_mappings(uint64_t ptr, uint64_t size)
{
    const uint64_t end = ptr + size;
    uint64_t at = ptr;
    while (at < end) {
        const struct gv_mapping *mapping = mapping_of(at, 1);
        if (mapping == NULL || mapping->base != at)
            return false;
        at += mapping->bytes;
    }
    return at == end;
}

struct gv_physical *gv_mapped_physical(uint64_t address, uint64_t *base, uint64_t *end)
{
    const struct gv_mapping *const mapping = mapping_of(address, 1);
    if (mapping == NULL)
        return NULL;
    *base = mapping->base;
    *end = mapping->base + mapping->bytes;
    return mapping->handle->physical;
}

static void forget_mapping(struct gv_mapping *mapping)
{
    struct gv_handle *handle = mapping->handle;
    gv_view_remove(handle->physical, mapping->base);
    tdelete(mapping, &mappings, compare);
    free(mapping);
    gv_handle_drop(handle, &handle->mappings);
}

/* Memory whose only mapping goes away keeps its pages at hand, see parking.h. */
static void park(uint64_t address, uint64_t bytes)
{
    for (uint64_t at = address; at < address + bytes;) {
        const struct gv_mapping *mapping = mapping_of(at, 1);
        if (!mapping->absent)
            gv_park(mapping->handle->physical); /* if it cannot be, its pages are found again one by one */
        at += mapping->bytes;
    }
}

GV_EXPORT CUresult cuMemUnmap(CUdeviceptr ptr, size_t size)
{
    GV_ENTER();
    if (ptr == 0 || size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    int device = 0;
    pthread_mutex_lock(&gv_memory_lock);
    if (size <= UINT64_MAX - ptr && whole_mappings(ptr, size)) {
        device = mapping_of(ptr, 1)->handle->physical->device;
        result = CUDA_ERROR_OUT_OF_MEMORY;
        park(ptr, size);
        if (mmap((void *)ptr, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) !=
            MAP_FAILED) {
            for (uint64_t at = ptr; at < ptr + size;) {
                struct gv_mapping *mapping = mapping_of(at, 1);
                at += mapping->bytes;
                forget_mapping(mapping);
            }
            result = CUDA_SUCCESS;
        }
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS)
        gv_model_vmm(device, GV_VMM_UNMAP, size);
    return result;
}

static int protection_of(const struct gv_mapping *mapping)
{
    int protection = PROT_NONE;
    for (int d = 0; d <= GV_BOARD_DEVICES; d++) {
        if (mapping->access[d] & CU_MEM_ACCESS_FLAGS_PROT_READ)
            protection |= PROT_READ;
        if (mapping->access[d] == CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            protection |= PROT_READ | PROT_WRITE;
    }
    return protection;
}

/* Which entry of `access` a location means; -1: none. */
static int place_of(const CUmemLocation *location)
{
    switch (location->type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return gv_check_device(location->id) == CUDA_SUCCESS ? location->id : -1;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        return GV_BOARD_DEVICES;
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
        return gv_has_numa_node(location->id) ? GV_BOARD_DEVICES : -1;
    default:
        return -1;
    }
}

static CUresult check_access(const CUmemAccessDesc *desc, size_t count)
{
    if (desc == NULL || count == 0)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        if (place_of(&desc[i].location) < 0)
            return desc[i].location.type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE
                                                                        : CUDA_ERROR_INVALID_VALUE;
        if (desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_NONE && desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READ &&
            desc[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE)
            return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

/* A host reaches host memory only: device memory is behind a bus that the real driver does not map for it. */
static bool host_wants_device_memory(uint64_t ptr, uint64_t size, const CUmemAccessDesc *desc, size_t count)
{
    bool host = false;
    for (size_t i = 0; i < count; i++)
        host |= place_of(&desc[i].location) == GV_BOARD_DEVICES;
    for (uint64_t at = ptr; host && at < ptr + size;) {
        const struct gv_mapping *mapping = mapping_of(at, 1);
        if (mapping->handle->physical->device != GV_HOST)
            return true;
        at += mapping->bytes;
    }
    return false;
}

GV_EXPORT CUresult cuMemSetAccess(CUdeviceptr ptr, size_t size, const CUmemAccessDesc *desc, size_t count)
{
    GV_ENTER();
    if (ptr == 0 || size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check_access(desc, count));
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    if (size <= UINT64_MAX - ptr && whole_mappings(ptr, size) && !host_wants_device_memory(ptr, size, desc, count)) {
        result = CUDA_SUCCESS;
        /* One mprotect for each run of equal protection: usually one in all. */
        uint64_t run = ptr;
        int protection = -1;
        for (uint64_t at = ptr; at < ptr + size && result == CUDA_SUCCESS;) {
            struct gv_mapping *mapping = mapping_of(at, 1);
            for (size_t i = 0; i < count; i++)
                mapping->access[place_of(&desc[i].location)] = (uint8_t)desc[i].flags;
            const int wanted = protection_of(mapping);
            if (mapping->absent && !bring(mapping))
                result = CUDA_ERROR_OUT_OF_MEMORY;
            gv_view_protect(mapping->handle->physical, mapping->base, wanted);
            if (protection >= 0 && wanted != protection) {
                if (mprotect((void *)run, at - run, protection) != 0)
                    result = CUDA_ERROR_OUT_OF_MEMORY;
                run = at;
            }
            protection = wanted;
            at += mapping->bytes;
        }
        if (result == CUDA_SUCCESS && mprotect((void *)run, ptr + size - run, protection) != 0)
            result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    if (result == CUDA_SUCCESS)
        gv_model_vmm(gv_location_device(&desc[0].location), GV_VMM_ACCESS, size);
    return result;
}

GV_EXPORT CUresult cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location, CUdeviceptr ptr)
{
    GV_ENTER();
    if (flags == NULL || location == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const int place = place_of(location);
    if (place < 0)
        return location->type == CU_MEM_LOCATION_TYPE_DEVICE ? CUDA_ERROR_INVALID_DEVICE : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_mapping *mapping = mapping_of(ptr, 1);
    if (mapping != NULL)
        *flags = mapping->access[place];
    pthread_mutex_unlock(&gv_memory_lock);
    return mapping != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

GV_EXPORT CUresult cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *addr)
{
    GV_ENTER();
    if (handle == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_memory_lock);
    const struct gv_mapping *mapping = mapping_of((uint64_t)addr, 1);
    if (mapping != NULL) {
        if (mapping->handle->references++ == 0)
            mapping->handle->physical->references++;
        *handle = (CUmemGenericAllocationHandle)mapping->handle;
    }
    pthread_mutex_unlock(&gv_memory_lock);
    return mapping != NULL ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

bool gv_mapping_at(uint64_t address, uint64_t *base, uint64_t *bytes, int *device, unsigned *access,
                   unsigned *handle_types)
{
    const struct gv_mapping *mapping = mapping_of(address, 1);
    if (mapping == NULL)
        return false;
    const int own = mapping->handle->physical->device;
    if (base != NULL)
        *base = mapping->base;
    if (bytes != NULL)
        *bytes = mapping->bytes;
    if (device != NULL)
        *device = own;
    if (access != NULL)
        *access = mapping->access[own == GV_HOST ? GV_BOARD_DEVICES : own];
    if (handle_types != NULL)
        *handle_types = mapping->handle->properties.requestedHandleTypes;
    return true;
}
