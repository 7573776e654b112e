/* SPDX-License-Identifier: Apache-2.0
 *
 * The window: which addresses device memory of this process has, and how they are cut into extents.
 *
 *     base   small requests | middle ones                | large ones
 *            fine extents                                | coarse extents
 *
 * One reservation at an address that is the same in every process, and regions whose places follow from the device alone: so
 * the same calls give the same addresses in all replicas of a job.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "blocks.h"
#include "gate.h"
#include "log.h"
#include "memory.h"
#include "real_driver.h"

enum { SMALL_TIMES_DEVICE = 1, MIDDLE_TIMES_DEVICE = 3, LARGE_TIMES_DEVICE = 4 }; /* sizes of the regions */
enum { FINE_PER_DEVICE = 64, COARSE_PER_DEVICE = 32, COARSE_OF_LARGE = 8 };
#define SMALL_UNIT 512ull         /* cuMemAlloc promises 256 */
#define PAGE (2ull << 20)         /* atom of hashing and copying: all else consists of whole ones */
#define FINE_MAX (32ull << 20)    /* more handles than these make a switch cost driver calls instead of copies ... */
#define COARSE_MAX (128ull << 20) /* ... and fewer would make too much of the device one piece */
#define WINDOW_HINT 0x1f0000000000ull
#define WINDOW_SHIFT 42 /* between the windows of two devices: 16 of them lie below 2^47 */

/* Largest power of two up to `most` that gives the device so many extents, but whole pages and what the driver can map. */
static uint64_t choose_extent(uint64_t total, uint64_t granularity, uint64_t most, uint64_t count)
{
    const uint64_t least = granularity > PAGE ? granularity : PAGE;
    uint64_t extent = most;
    while (extent > least && extent * count > total)
        extent /= 2;
    return extent < least ? least : extent;
}

static CUresult ask_device(CUdevice device, size_t *total, size_t *granularity)
{
    int supported = 0;
    const CUmemAllocationProp properties = {.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
    CUresult result =
        REAL(cuDeviceGetAttribute)(&supported, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, device);
    if (result == CUDA_SUCCESS && !supported) {
        gv_log("GPU %d cannot map memory at chosen addresses; gpuvirt needs that", (int)device);
        result = CUDA_ERROR_NOT_SUPPORTED;
    }
    if (result == CUDA_SUCCESS)
        result = REAL(cuDeviceTotalMem_v2)(total, device);
    if (result == CUDA_SUCCESS)
        result = REAL(cuMemGetAllocationGranularity)(granularity, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    return result;
}

CUresult gv_memory_prepare(CUdevice device)
{
    struct gv_memory_state *const m = &gv_memory;
    if (m->bytes != 0)
        return CUDA_SUCCESS;
    size_t total = 0, granularity = 0;
    CUresult result = ask_device(device, &total, &granularity);
    if (result != CUDA_SUCCESS)
        return result;

    const uint64_t whole = (total / COARSE_MAX + 1) * COARSE_MAX; /* regions begin at multiples of any extent */
    const uint64_t small = whole * SMALL_TIMES_DEVICE, middle = whole * MIDDLE_TIMES_DEVICE;
    const uint64_t large = whole * LARGE_TIMES_DEVICE;
    const uint64_t fine = choose_extent(total, granularity, FINE_MAX, FINE_PER_DEVICE);
    const uint64_t coarse = choose_extent(total, granularity, COARSE_MAX, COARSE_PER_DEVICE);
    const uint64_t count = (small + middle) / fine + large / coarse;
    const CUdeviceptr hint = WINDOW_HINT + ((CUdeviceptr)device << WINDOW_SHIFT);
    CUdeviceptr base = 0;
    result = REAL(cuMemAddressReserve)(&base, small + middle + large, COARSE_MAX, hint, 0);
    if (result != CUDA_SUCCESS)
        return result;
    m->extents = mmap(NULL, count * sizeof *m->extents, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (m->extents == MAP_FAILED || gv_ranges_init(&m->small, base, small, SMALL_UNIT) != 0 ||
        gv_ranges_init(&m->middle, base + small, middle, PAGE) != 0 ||
        gv_ranges_init(&m->large, base + small + middle, large, PAGE) != 0)
        return CUDA_ERROR_OUT_OF_MEMORY;
    REAL(cuDeviceGetAttribute)(&m->shareable, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, device);
    m->device = device;
    m->total = total;
    m->fine_bytes = fine;
    m->coarse_bytes = coarse;
    m->fine_count = (small + middle) / fine;
    m->large_limit = coarse * COARSE_OF_LARGE;
    m->elsewhere = base != hint;
    m->base = base;
    m->bytes = small + middle + large; /* last: gv_memory_owns is true from here */
    return CUDA_SUCCESS;
}

int gv_window_remark(char *text, size_t size)
{
    if (!gv_memory.elsewhere)
        return 0;
    gv_memory.elsewhere = 0;
    snprintf(
        text, size,
        "the driver placed device memory at %#llx, not where it was asked to: addresses may differ between processes "
        "of the job, and fewer of their pages are equal",
        (unsigned long long)gv_memory.base);
    return 1;
}

/* --- extents -------------------------------------------------------------------------------------------------------------- */

uint64_t gv_piece_bytes(const struct gv_piece *piece)
{
    if (piece->is_block)
        return gv_block_of(piece)->bytes;
    return gv_extent_index(piece) < gv_memory.fine_count ? gv_memory.fine_bytes : gv_memory.coarse_bytes;
}

CUdeviceptr gv_piece_address(const struct gv_piece *extent)
{
    const uint64_t index = gv_extent_index(extent), fine = gv_memory.fine_count;
    const uint64_t below = index < fine ? index : fine;
    return gv_memory.base + below * gv_memory.fine_bytes + (index - below) * gv_memory.coarse_bytes;
}

uint64_t gv_extent_at(CUdeviceptr address)
{
    const uint64_t inside = address - gv_memory.base, index = inside / gv_memory.fine_bytes,
                   fine = gv_memory.fine_count;
    return index < fine ? index : fine + (inside - fine * gv_memory.fine_bytes) / gv_memory.coarse_bytes;
}

int gv_extent_is_size(uint64_t bytes) { return bytes == gv_memory.fine_bytes || bytes == gv_memory.coarse_bytes; }

uint64_t gv_memory_granule(void) { return gv_memory.fine_bytes; }
