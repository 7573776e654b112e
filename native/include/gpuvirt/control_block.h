/* SPDX-License-Identifier: Apache-2.0
 *
 * The pages that the daemon and the shim share. THE definition: C includes it, Python gets it through cffi
 * (native/generate/cffi_module.py), control_block_ops.h asserts its layout.
 *
 * Rules of this file: only fixed-width integers; every pad byte is a named `reserved`; constants are enums; no pointers, no
 * bit-fields, no functions. Append only; any other change bumps GV_PAGE_VERSION. All times are CLOCK_MONOTONIC nanoseconds.
 */
#ifndef GPUVIRT_CONTROL_BLOCK_H
#define GPUVIRT_CONTROL_BLOCK_H

#include <stdint.h>

enum {
    GV_PAGE_VERSION = 1,
    GV_PAGE_BYTES = 4096,
    GV_LEASE_MAGIC = 0x4c56470a,  /* "\nGVL" */
    GV_CLIENT_MAGIC = 0x4356470a, /* "\nGVC" */
};

/* The lease word is epoch << GV_LEASE_STATE_BITS | state, so that one load decides. A zeroed page means CLOSED. */
enum { GV_LEASE_STATE_BITS = 3, GV_LEASE_STATE_MASK = 7 };

enum gv_lease_state {
    GV_LEASE_CLOSED = 0,  /* nobody of this job may launch */
    GV_LEASE_OPEN = 1,    /* the job may launch; nobody else wants the GPU, so it need not say when it idles */
    GV_LEASE_GRANTED = 2, /* the job may launch; somebody else waits: say at once when idle */
    GV_LEASE_DRAIN = 3, /* launch nothing more, finish what was given to the GPU, then answer DRAINED with this epoch */
    GV_LEASE_STEP =
        4, /* a drain did not end: give work only to streams that have finished theirs (odd epoch: no waits) */
};

enum gv_lease_flags {
    GV_LEASE_FITS = 1, /* all memory of all jobs of this GPU fits into it at once */
};

/* One page per job. The daemon writes it; the clients of the job map it read-only and wait on `word` by futex (shared). */
struct gv_lease {
    uint32_t magic, version, size, generation; /* set once by the daemon; generation counts its restarts */
    uint32_t word;                             /* futex; written last with release, read by the gate with acquire */
    uint32_t flags;                            /* enum gv_lease_flags */
    uint64_t deadline_ns;                      /* end of the present quantum; 0 = none */
    uint64_t heartbeat_ns;                     /* the daemon's loop turned at this time */
    uint64_t quota_bytes;   /* device memory that this job may charge in all; the daemon may change it */
    uint32_t window_us;     /* GPU time of work that may be in flight, written before `word`; 0 = no bound, no marks */
    uint32_t clients;       /* processes of the job on this GPU */
    uint64_t charged_bytes; /* what all of them together have charged, as they reported */
    uint64_t pinned_quota_bytes; /* host memory that each process of this job may pin; 0 = no limit */
};

enum gv_client_state {
    GV_CLIENT_IDLE = 0,    /* nothing submitted is unfinished, nobody waits at the gate */
    GV_CLIENT_RUNNING = 1, /* work was submitted since the last proof of idleness */
    GV_CLIENT_WAITING = 2, /* a thread waits at the gate */
};

/*
 * Device memory that gpuvirt does not move, by the reason. It is charged to the job and stays resident while it lives: fixed
 * memory. gpuvirt.control.fixed has the words for people.
 */
enum gv_fixed_kind {
    GV_FIXED_ARRAY = 0,     /* CUDA arrays and mipmaps: they have no address that could be kept */
    GV_FIXED_MANAGED = 1,   /* managed memory: the driver itself moves it */
    GV_FIXED_GRAPH = 2,     /* memory nodes of graphs: the driver maps it while it launches */
    GV_FIXED_POOL = 3,      /* pools shared with other processes, or of a kind that only the driver knows */
    GV_FIXED_EXPORTED = 4,  /* another process or device holds a handle of it */
    GV_FIXED_IMPORTED = 5,  /* of somebody outside the job */
    GV_FIXED_EXTERNAL = 6,  /* memory of a graphics or display API */
    GV_FIXED_MULTICAST = 7, /* bound to a multicast object */
    GV_FIXED_LIMITS = 8,    /* the device's heap and printf buffer beyond their defaults */
    GV_FIXED_MAPPING = 9,   /* the program's own mappings that are not plain memory of this device */
    GV_FIXED_KINDS = 10,
    GV_FIXED_ROOM = 16, /* entries of the table in the page */
};

struct gv_fixed_entry {
    uint64_t bytes, count; /* charged now; pieces that are alive */
};

/* One page per client (process). The client writes it, the daemon reads it and believes nothing: it copies, then checks. */
struct gv_client {
    uint32_t magic, version, size, reserved0; /* set once by the daemon */
    uint32_t state;                           /* enum gv_client_state */
    uint32_t drained_epoch;                   /* epoch of the last DRAIN that was completed */
    uint64_t ready_since_ns;                  /* when the present RUNNING or WAITING began */
    uint64_t busy_ns;                         /* time in RUNNING with the lease held, up to the last change of state */
    uint64_t submitted;                       /* gated calls so far (updated at changes of state) */
    uint64_t waited_ns;                       /* time that threads spent at the gate */
    uint64_t charged_bytes;                   /* device memory charged to the program: extents in use */
    uint64_t resident_bytes;                  /* of these, in device memory now (plus cached free extents) */
    uint64_t native_bytes;                    /* fixed memory, all kinds together; part of both charged and resident */
    uint64_t out_bytes, in_bytes;             /* swapped so far */
    uint64_t pinned_bytes;                    /* host memory that the program has pinned */
    uint64_t passed_calls;                    /* calls of class pass-through so far (updated at changes of state) */
    uint64_t unknown_names; /* names or versions asked for that the shim's headers do not have: ungoverned */
    uint64_t reserved1;
    struct gv_fixed_entry fixed[GV_FIXED_ROOM]; /* by enum gv_fixed_kind */
    /* What left device memory without being copied, so far: zeros; what the arena held already; what another page had. */
    uint64_t zero_bytes, clean_bytes, duplicate_bytes;
    uint64_t early_bytes;              /* copied ahead of a switch, while the link was idle */
    uint64_t copy_ns, hash_ns, map_ns; /* time spent on moving, in all */
    uint64_t hash_errors,
        verify_errors;   /* equal hashes of unequal pages; pages that came back with another hash: always 0 */
    uint64_t host_bytes; /* pages of the arena that this process refers to */
};

#endif
