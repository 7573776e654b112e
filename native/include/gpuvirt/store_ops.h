/* SPDX-License-Identifier: Apache-2.0
 *
 * What the daemon (through cffi), the shim and the tests do with the layout of an arena: offsets, the first header.
 */
#ifndef GPUVIRT_STORE_OPS_H
#define GPUVIRT_STORE_OPS_H

#include <pthread.h>
#include <stddef.h>
#include <string.h>

#include "gpuvirt/store.h"

_Static_assert(sizeof(pthread_mutex_t) <= GV_STORE_LOCK_BYTES, "room for the lock");
_Static_assert(offsetof(struct gv_store, lock) % 16 == 0 && sizeof(struct gv_store) == 144, "layout of the header");
_Static_assert(sizeof(struct gv_segment) == 32 && sizeof(struct gv_slot_entry) == 48, "layout of the tables");

static inline uint64_t gv_store_rounded(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

/* 0, or -1 where a file of this size has no room for one segment, or the segment is no power of two. */
static inline int gv_store_layout(uint64_t file_bytes, uint32_t segment_slots, struct gv_store_layout *layout)
{
    memset(layout, 0, sizeof *layout);
    if (segment_slots == 0 || segment_slots > GV_STORE_SEGMENT_MAX || (segment_slots & (segment_slots - 1)) != 0 ||
        file_bytes > 1ull << 50)
        return -1;
    const uint64_t segment_bytes = (uint64_t)segment_slots * GV_STORE_PAGE_BYTES;
    /* As many segments as the whole file could hold, less what their own tables take. */
    for (uint64_t count = file_bytes / segment_bytes; count > 0; count--) {
        const uint64_t slots = count * segment_slots;
        uint64_t buckets = 1;
        while (buckets < slots)
            buckets *= 2;
        if (slots > 1u << 30)
            return -1;
        const uint64_t segments_at = gv_store_rounded(sizeof(struct gv_store), 4096);
        const uint64_t buckets_at = gv_store_rounded(segments_at + count * sizeof(struct gv_segment), 4096);
        const uint64_t slots_at = gv_store_rounded(buckets_at + buckets * sizeof(int32_t), 4096);
        const uint64_t data_at = gv_store_rounded(slots_at + slots * sizeof(struct gv_slot_entry), GV_STORE_PAGE_BYTES);
        if (data_at + count * segment_bytes > file_bytes)
            continue;
        layout->file_bytes = file_bytes;
        layout->segment_bytes = segment_bytes;
        layout->segments_at = segments_at;
        layout->buckets_at = buckets_at;
        layout->slots_at = slots_at;
        layout->data_at = data_at;
        layout->segment_slots = segment_slots;
        layout->segment_count = (uint32_t)count;
        layout->slot_count = (uint32_t)slots;
        layout->bucket_count = (uint32_t)buckets;
        return 0;
    }
    return -1;
}

/* The header of a new file, whose other bytes are zero. 0, or an errno. */
static inline int gv_store_first(uint64_t file_bytes, uint32_t segment_slots, uint32_t flags,
                                 const uint8_t key[GV_STORE_KEY_BYTES], struct gv_store *header)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t lock;
    int error = pthread_mutexattr_init(&attributes);
    if (error != 0)
        return error;
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    error = pthread_mutex_init(&lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    memset(header, 0, sizeof *header);
    header->magic = GV_STORE_MAGIC;
    header->version = GV_STORE_VERSION;
    header->size = sizeof *header;
    header->flags = flags;
    header->file_bytes = file_bytes;
    header->segment_slots = segment_slots;
    memcpy(header->key, key, sizeof header->key);
    memcpy(header->lock, &lock, sizeof lock);
    return error;
}

#endif
