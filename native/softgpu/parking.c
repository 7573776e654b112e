/* SPDX-License-Identifier: Apache-2.0 */
#include "parking.h"
#include "stale.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* A process never has more than it once had in use, and no more than this beside what it uses. */
#define MOST_SPARE_BYTES (1ull << 30)

struct spare {
    uint64_t bytes;
    uint32_t place; /* of the device on the board: it is in the name of the descriptor */
    int fd;
    uint8_t *parked;
    struct spare *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* under gv_memory_lock or alone */
static struct spare *spares;                             /* the latest first */
static uint64_t spare_bytes;

/* --- places ---------------------------------------------------------------------------------------------------------------- */

/* Aligned as handles are: then whole page tables move instead of their entries. */
static uint8_t *find_place(uint64_t bytes)
{
    uint8_t *const area =
        mmap(NULL, bytes + GV_GRANULARITY, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return NULL;
    uint8_t *const place = (uint8_t *)gv_round_up((uint64_t)area, GV_GRANULARITY);
    if (place > area)
        munmap(area, (size_t)(place - area));
    munmap(place + bytes, (size_t)(area + GV_GRANULARITY - place));
    return place;
}

static bool move(void *from, uint64_t bytes, void *to, int how)
{
    return mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED | how, to) == to;
}

bool gv_park(struct gv_physical *physical)
{
    const struct gv_view *const view = physical->views;
    if (physical->device == GV_HOST || physical->fd < 0 || physical->inode != 0 || physical->parked != NULL ||
        view == NULL || view->next != NULL || view->bytes != physical->bytes)
        return false;
    uint8_t *const place = find_place(physical->bytes);
    if (place == NULL)
        return false;
    /* What is moved away is still reserved for the program in between, so that nobody else's mapping comes there. */
    if (!move((void *)view->address, physical->bytes, place, MREMAP_DONTUNMAP)) {
        munmap(place, physical->bytes);
        return false;
    }
    madvise(place, physical->bytes,
            MADV_DONTDUMP); /* a device's memory is in no core file, least of all what is freed */
    physical->parked = place;
    return true;
}

bool gv_unpark(struct gv_physical *physical, uint64_t address)
{
    if (!move(physical->parked, physical->bytes, (void *)address, 0))
        return false;
    physical->parked = NULL;
    return true;
}

void gv_park_leave(struct gv_physical *physical)
{
    if (physical->parked != NULL)
        munmap(physical->parked, physical->bytes);
    physical->parked = NULL;
}

/* --- spares ---------------------------------------------------------------------------------------------------------------- */

static void give_back(struct spare *spare)
{
    munmap(spare->parked, spare->bytes);
    close(spare->fd);
    free(spare);
}

/* Under the lock. */
static void take_off(struct spare **link)
{
    spare_bytes -= (*link)->bytes;
    *link = (*link)->next;
}

/* Under the lock: the oldest, or NULL. */
static struct spare *take_oldest(void)
{
    struct spare **link = &spares;
    while (*link != NULL && (*link)->next != NULL)
        link = &(*link)->next;
    struct spare *const oldest = *link;
    if (oldest != NULL)
        take_off(link);
    return oldest;
}

void gv_spares_drop(uint64_t bytes)
{
    for (uint64_t dropped = 0; dropped < bytes;) {
        pthread_mutex_lock(&lock);
        struct spare *const oldest = take_oldest();
        pthread_mutex_unlock(&lock);
        if (oldest == NULL)
            return;
        dropped += oldest->bytes;
        give_back(oldest);
    }
}

bool gv_spare_keep(struct gv_physical *physical)
{
    if (physical->parked == NULL || physical->fd < 0 || physical->inode != 0 || physical->bytes > MOST_SPARE_BYTES)
        return false;
    struct spare *const kept = malloc(sizeof *kept);
    if (kept == NULL)
        return false;
    *kept = (struct spare){
        .bytes = physical->bytes, .place = gv_place(physical->device), .fd = physical->fd, .parked = physical->parked};
    physical->parked = NULL;
    physical->fd = -1;
    pthread_mutex_lock(&lock);
    kept->next = spares;
    spares = kept;
    spare_bytes += kept->bytes;
    const uint64_t over = spare_bytes > MOST_SPARE_BYTES ? spare_bytes - MOST_SPARE_BYTES : 0;
    pthread_mutex_unlock(&lock);
    gv_spares_drop(over);
    return true;
}

/* Under the lock: one of this size on this device, or NULL. */
static struct spare *take_like(const struct gv_physical *physical)
{
    struct spare **link = &spares;
    while (*link != NULL && ((*link)->bytes != physical->bytes || (*link)->place != gv_place(physical->device)))
        link = &(*link)->next;
    struct spare *const found = *link;
    if (found != NULL)
        take_off(link);
    return found;
}

bool gv_spare_take(struct gv_physical *physical, bool wanted)
{
    pthread_mutex_lock(&lock);
    struct spare *const found = wanted ? take_like(physical) : NULL;
    pthread_mutex_unlock(&lock);
    if (found == NULL) {
        gv_spares_drop(physical->bytes);
        return false;
    }
    physical->fd = found->fd;
    physical->parked = found->parked;
    if (!gv_stale_note(physical)) {
        physical->fd = -1;
        physical->parked = NULL;
        give_back(found);
        return false;
    }
    free(found);
    return true;
}
