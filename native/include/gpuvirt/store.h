/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena of a job: one file, shared by its processes, that holds the content of device memory which is not on the device.
 * THE definition of its layout, under the same rules as control_block.h; store_ops.h computes the offsets.
 *
 *     header | segments | buckets | slots | data
 *
 *   slot      a page of the data, and its entry in the table: who refers to it, and the hash of its content once it is published
 *   segment   a fixed number of slots: what is given host memory, pinned, and given back at once
 *   owner     a process of the job, by the number that WELCOME gave it: a bit in every bitmap here
 *
 * Who writes what. The daemon writes the header when it makes the file, and `alive` for as long as the job lives; it reads
 * nothing of it. Everything else is written by the processes of the job, under `lock` only. It is a robust mutex: whoever gets
 * it after its holder was killed repairs what was in the middle (shim/slots.c). Fields marked "truth" are right at every
 * instant; those marked "derived" are computed from them again by a repair.
 */
#ifndef GPUVIRT_STORE_H
#define GPUVIRT_STORE_H

#include <stdint.h>

enum {
    GV_STORE_MAGIC = 0x5356470a, /* "\nGVS" */
    GV_STORE_VERSION = 1,
    GV_STORE_OWNERS = 128,
    GV_STORE_OWNER_WORDS = 2, /* of 64 bits */
    GV_STORE_KEY_BYTES = 16,
    GV_STORE_LOCK_BYTES = 64,      /* at least those of a pthread_mutex_t */
    GV_STORE_PAGE_BYTES = 1 << 21, /* of a slot's data */
    GV_STORE_SEGMENT_MAX = 512,    /* slots */
};

enum gv_store_flags {
    GV_STORE_VERIFY = 1, /* what comes back is hashed again and compared */
};

struct gv_store {
    uint32_t magic, version, size, flags; /* daemon, once */
    uint64_t file_bytes;                  /* daemon, once; the rest of the layout follows from this and the next */
    uint32_t segment_slots;               /* daemon, once; a power of two */
    uint32_t reserved;
    uint8_t key[GV_STORE_KEY_BYTES]; /* daemon, once: of the hashes of this job */
    /* Daemon: owners that live, or may; the references of all others are void. Read under `lock`: a number is set before its
     * new owner can take the lock. */
    uint64_t alive[GV_STORE_OWNER_WORDS];
    uint64_t lock[GV_STORE_LOCK_BYTES / 8]; /* a pthread_mutex_t, made by the daemon */
    uint32_t touched;                       /* truth: no segment from this one on was ever given memory; never falls */
    uint32_t repairs;                       /* how often the holder of the lock was killed */
    /* Daemon, after `alive`: rises with each owner that is gone. A number may live and die between two looks at `alive`. */
    uint64_t deaths;
};

enum gv_segment_state {
    GV_SEGMENT_EMPTY = 0,   /* no host memory, no references */
    GV_SEGMENT_BACKING = 1, /* `by` has asked the daemon for it */
    GV_SEGMENT_BACKED = 2,  /* its slots may be taken */
    GV_SEGMENT_GOING = 3,   /* `by` is giving its memory back */
};

struct gv_segment {
    uint32_t state; /* truth: enum gv_segment_state */
    uint32_t by;    /* truth, written before the state: owner that a state between two belongs to */
    uint32_t used;  /* derived: slots that somebody refers to */
    uint32_t reserved;
    uint64_t
        pinned[GV_STORE_OWNER_WORDS]; /* truth: owners that have it pinned, or are about to. Its memory stays while any
                                              lives: what they pinned would not be the file's pages any more */
};

struct gv_slot_entry {
    uint64_t owners[GV_STORE_OWNER_WORDS]; /* truth: who refers to it; none: free */
    uint64_t hash[2];                      /* truth while `published` */
    uint32_t published;                    /* truth; written after the hash and before the chain */
    uint32_t publisher;                    /* a random number of the process that published it */
    int32_t next;                          /* derived: the chain of its bucket; slot + 1, 0 = end */
    uint32_t reserved;
};

/* Where everything is in a file of so many bytes; see store_ops.h. */
struct gv_store_layout {
    uint64_t file_bytes, segment_bytes;
    uint64_t segments_at, buckets_at, slots_at, data_at; /* offsets in the file; data_at: whole pages */
    uint32_t segment_slots, segment_count, slot_count;
    uint32_t bucket_count; /* a power of two; a bucket is an int32_t like `next` */
};

#endif
