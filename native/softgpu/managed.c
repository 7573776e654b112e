/* SPDX-License-Identifier: Apache-2.0
 *
 * Managed memory: allocation, properties of its parts, residency. See managed.h.
 */
#include "managed.h"
#include "capture.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* A run of pages with the same properties. The runs of an allocation cover it without gaps. */
struct part {
    uint64_t first, end;
    struct gv_advice advice;
    int resident; /* the device that is charged, or GV_HOST */
    struct part *next;
};

/* Behind a region: region->owner. */
struct gv_managed {
    struct part *parts; /* in order of addresses */
    uint64_t first, end;
    struct gv_managed *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below */
static struct gv_managed *all;
static uint64_t used_bytes; /* of cuMemAllocManaged */

/* GPUVIRT_SOFTGPU_MANAGED: bytes that a process may have; none: what the machine gives. */
static uint64_t budget(void)
{
    static _Atomic uint64_t known;
    uint64_t bytes = atomic_load(&known);
    if (bytes == 0) {
        const char *text = getenv("GPUVIRT_SOFTGPU_MANAGED");
        bytes = text != NULL && *text != '\0' ? gv_board_parse_bytes(text) : 0;
        if (bytes == 0)
            bytes = UINT64_MAX;
        atomic_store(&known, bytes);
    }
    return bytes;
}

static bool spend(uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    const bool fits = bytes <= budget() && used_bytes <= budget() - bytes;
    if (fits)
        used_bytes += bytes;
    pthread_mutex_unlock(&lock);
    return fits;
}

static void unspend(uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    used_bytes -= bytes;
    pthread_mutex_unlock(&lock);
}

bool gv_managed_begin(struct gv_region *region, CUmemLocation preferred)
{
    struct gv_managed *managed = calloc(1, sizeof *managed);
    struct part *part = calloc(1, sizeof *part);
    if (managed == NULL || part == NULL) {
        free(managed);
        free(part);
        return false;
    }
    part->first = managed->first = region->base & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
    part->end = managed->end = gv_round_up(region->base + region->bytes, GV_SMALLEST_PAGE);
    part->advice.preferred = preferred;
    part->resident = GV_HOST;
    managed->parts = part;
    region->owner = managed;
    pthread_mutex_lock(&lock);
    managed->next = all;
    all = managed;
    pthread_mutex_unlock(&lock);
    return true;
}

static void leave(struct part *part)
{
    if (part->resident != GV_HOST)
        gv_board_uncharge(gv_driver.board, gv_place(part->resident), part->end - part->first);
    part->resident = GV_HOST;
}

void gv_managed_end(struct gv_region *region)
{
    struct gv_managed *managed = region->owner;
    pthread_mutex_lock(&lock);
    for (struct gv_managed **link = &all; *link != NULL; link = &(*link)->next)
        if (*link == managed) {
            *link = managed->next;
            break;
        }
    for (struct part *part = managed->parts, *next; part != NULL; part = next) {
        next = part->next;
        leave(part);
        free(part);
    }
    pthread_mutex_unlock(&lock);
    free(managed);
    region->owner = NULL;
}

CUresult gv_managed_check(CUdeviceptr pointer, size_t bytes, struct gv_managed_range *range)
{
    enum gv_region_kind kind;
    if (bytes == 0 || !gv_range_known(pointer, bytes, &kind) || !gv_is_managed_kind(kind))
        return CUDA_ERROR_INVALID_VALUE;
    range->first = pointer & ~(uint64_t)(GV_SMALLEST_PAGE - 1);
    range->end = gv_round_up(pointer + bytes, GV_SMALLEST_PAGE);
    return CUDA_SUCCESS;
}

/* Under the lock: the range begins and ends with a part. Out of memory: it does not, and more is changed than asked. */
static void split_at(struct gv_managed *managed, uint64_t address)
{
    for (struct part *part = managed->parts; part != NULL; part = part->next)
        if (part->first < address && address < part->end) {
            struct part *rest = malloc(sizeof *rest);
            if (rest == NULL)
                return;
            *rest = *part;
            rest->first = part->end = address;
            part->next = rest;
            return;
        }
}

static bool same(const struct part *a, const struct part *b)
{
    return a->resident == b->resident && a->advice.read_mostly == b->advice.read_mostly &&
           a->advice.accessed_by == b->advice.accessed_by && a->advice.preferred.type == b->advice.preferred.type &&
           a->advice.preferred.id == b->advice.preferred.id && a->advice.prefetched.type == b->advice.prefetched.type &&
           a->advice.prefetched.id == b->advice.prefetched.id;
}

static void join_equal(struct gv_managed *managed)
{
    for (struct part *part = managed->parts; part != NULL;) {
        struct part *next = part->next;
        if (next != NULL && same(part, next)) {
            part->end = next->end;
            part->next = next->next;
            free(next);
        } else {
            part = next;
        }
    }
}

/* Under the lock. Two small allocations of a pool may share a page: the first one that holds the start. */
static struct gv_managed *managed_at(const struct gv_managed_range *range)
{
    for (struct gv_managed *managed = all; managed != NULL; managed = managed->next)
        if (managed->first <= range->first && range->end <= managed->end)
            return managed;
    return NULL;
}

void gv_managed_each(const struct gv_managed_range *range, bool change,
                     void (*visit)(struct gv_advice *advice, void *data), void *data)
{
    pthread_mutex_lock(&lock);
    struct gv_managed *managed = managed_at(range);
    if (managed != NULL && change) {
        split_at(managed, range->first);
        split_at(managed, range->end);
    }
    for (struct part *part = managed != NULL ? managed->parts : NULL; part != NULL; part = part->next)
        if (part->first < range->end && range->first < part->end)
            visit(&part->advice, data);
    if (managed != NULL && change)
        join_equal(managed);
    pthread_mutex_unlock(&lock);
}

/* Under the lock. True when something went. */
static bool evict(int device, uint64_t bytes, const struct gv_managed_range *but)
{
    uint64_t gone = 0;
    for (struct gv_managed *managed = all; managed != NULL && gone < bytes; managed = managed->next)
        for (struct part *part = managed->parts; part != NULL && gone < bytes; part = part->next)
            if (part->resident == device && (but == NULL || part->end <= but->first || but->end <= part->first)) {
                gone += part->end - part->first;
                leave(part);
            }
    return gone > 0;
}

bool gv_managed_make_room(int device, uint64_t bytes)
{
    pthread_mutex_lock(&lock);
    const bool went = evict(device, bytes, NULL);
    pthread_mutex_unlock(&lock);
    return went;
}

void gv_managed_move(const struct gv_managed_range *range, int device)
{
    pthread_mutex_lock(&lock);
    struct gv_managed *managed = managed_at(range);
    if (managed != NULL) {
        split_at(managed, range->first);
        split_at(managed, range->end);
    }
    for (struct part *part = managed != NULL ? managed->parts : NULL; part != NULL; part = part->next) {
        if (part->end <= range->first || range->end <= part->first || part->resident == device)
            continue;
        const uint64_t bytes = part->end - part->first;
        leave(part);
        if (device != GV_HOST &&
            (gv_board_charge(gv_driver.board, gv_place(device), bytes) ||
             (evict(device, bytes, range) && gv_board_charge(gv_driver.board, gv_place(device), bytes))))
            part->resident = device;
    }
    if (managed != NULL)
        join_equal(managed);
    pthread_mutex_unlock(&lock);
}

GV_EXPORT CUresult cuMemAllocManaged(CUdeviceptr *dptr, size_t bytesize, unsigned int flags)
{
    GV_ENTER_CONTEXT(context);
    if (dptr == NULL || bytesize == 0 || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST))
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_capture_check_unsafe());
    const uint64_t size = gv_round_up(bytesize, GV_SMALLEST_PAGE);
    if (size < bytesize || !spend(size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct gv_region *region = NULL;
    if (memory != MAP_FAILED) {
        pthread_mutex_lock(&gv_memory_lock);
        region = gv_region_add((uint64_t)memory, bytesize, GV_REGION_MANAGED, context->device, context);
        if (region != NULL && !gv_managed_begin(region, (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_INVALID})) {
            gv_region_remove(region);
            region = NULL;
        }
        if (region != NULL)
            region->flags = flags;
        pthread_mutex_unlock(&gv_memory_lock);
        if (region == NULL)
            munmap(memory, size);
    }
    if (region == NULL) {
        unspend(size);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *dptr = (CUdeviceptr)memory;
    return CUDA_SUCCESS;
}

void gv_managed_free(struct gv_region *region)
{
    const uint64_t size = gv_round_up(region->bytes, GV_SMALLEST_PAGE);
    gv_managed_end(region);
    munmap((void *)region->base, size);
    unspend(size);
    gv_region_remove(region);
}
