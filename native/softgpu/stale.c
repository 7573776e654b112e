/* SPDX-License-Identifier: Apache-2.0 */
#include "stale.h"
#include "past_cache.h"
#include "vmm.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>

enum { PIECE = 2 << 20, PAGE = 4096, PAGES = PIECE / PAGE };

_Atomic uint64_t gv_stale_pieces;

static bool punch(int fd, uint64_t at)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, PIECE) == 0;
}

void gv_stale_drop(struct gv_physical *physical)
{
    uint64_t stale = 0;
    for (uint64_t i = 0; physical->stale != NULL && i < physical->bytes / PIECE; i++)
        stale += physical->stale[i];
    free(physical->stale);
    physical->stale = NULL;
    atomic_fetch_sub(&gv_stale_pieces, stale);
}

bool gv_stale_note(struct gv_physical *physical)
{
    const uint64_t pieces = physical->bytes / PIECE;
    uint64_t stale = 0;
    bool told = true;
    if ((physical->stale = calloc(pieces, 1)) == NULL)
        return false;
    for (uint64_t i = 0; i < pieces; i++) {
        unsigned char there[PAGES];
        if (mincore(physical->parked + i * PIECE, PIECE, there) == 0 && memchr(there, 0, PAGES) == NULL)
            stale += physical->stale[i] = 1;
        else
            told = told && punch(physical->fd, i * PIECE); /* some was never written, or is in the swap space */
    }
    atomic_fetch_add(&gv_stale_pieces, stale);
    if (!told)
        gv_stale_drop(physical);
    return told;
}

/* Where it can be written to; NULL: nowhere. */
static uint8_t *writable(const struct gv_physical *physical)
{
    if (physical->parked != NULL && mprotect(physical->parked, physical->bytes, PROT_READ | PROT_WRITE) == 0)
        return physical->parked;
    for (const struct gv_view *view = physical->views; view != NULL; view = view->next)
        if (view->protection & PROT_WRITE && view->bytes == physical->bytes)
            return (uint8_t *)view->address;
    return NULL;
}

static void clear_pieces(struct gv_physical *physical, uint64_t first, uint64_t end)
{
    uint8_t *const memory = writable(physical);
    for (uint64_t i = first; i < end; i++) {
        if (!physical->stale[i])
            continue;
        if (memory != NULL)
            gv_clear_past_cache(memory + i * PIECE, PIECE);
        else
            punch(physical->fd, i * PIECE);
        physical->stale[i] = 0;
        atomic_fetch_sub(&gv_stale_pieces, 1);
    }
}

void gv_stale_clear(struct gv_physical *physical)
{
    if (physical->stale != NULL)
        clear_pieces(physical, 0, physical->bytes / PIECE);
    gv_stale_drop(physical);
}

static bool clear_one(struct gv_physical *physical, void *unused)
{
    (void)unused;
    gv_stale_clear(physical);
    return true;
}

void gv_stale_clear_all(void)
{
    pthread_mutex_lock(&gv_memory_lock);
    gv_physical_each(clear_one, NULL);
    pthread_mutex_unlock(&gv_memory_lock);
}

/* --- ranges ---------------------------------------------------------------------------------------------------------------- */

/* Under the lock: pieces that are wholly in the range are forgotten if `forget_whole`, else cleared as those at its ends are. */
static void settle_part(struct gv_physical *physical, uint64_t first, uint64_t end, bool forget_whole)
{
    const uint64_t inner = (first + PIECE - 1) / PIECE, inner_end = end / PIECE, last = (end + PIECE - 1) / PIECE;
    if (!forget_whole || inner >= inner_end) {
        clear_pieces(physical, first / PIECE, last);
        return;
    }
    clear_pieces(physical, first / PIECE, inner);
    for (uint64_t i = inner; i < inner_end; i++) {
        atomic_fetch_sub(&gv_stale_pieces, physical->stale[i]);
        physical->stale[i] = 0;
    }
    clear_pieces(physical, inner_end, last);
}

static void settle_range(uint64_t address, uint64_t bytes, bool forget_whole)
{
    const uint64_t end = address + bytes;
    pthread_mutex_lock(&gv_memory_lock);
    for (uint64_t at = address; at < end && gv_any_stale();) {
        uint64_t base, mapped_end;
        struct gv_physical *const physical = gv_mapped_physical(at, &base, &mapped_end);
        if (physical == NULL) {
            at = gv_round_up(at + 1, GV_GRANULARITY);
            continue;
        }
        const uint64_t part_end = end < mapped_end ? end : mapped_end;
        if (physical->stale != NULL)
            settle_part(physical, at - base, part_end - base, forget_whole);
        at = part_end;
    }
    pthread_mutex_unlock(&gv_memory_lock);
}

void gv_stale_clear_range(uint64_t address, uint64_t bytes) { settle_range(address, bytes, false); }

void gv_stale_forget_range(uint64_t address, uint64_t bytes) { settle_range(address, bytes, true); }
