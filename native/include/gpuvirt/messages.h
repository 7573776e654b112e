/* SPDX-License-Identifier: Apache-2.0
 *
 * Every message on the daemon's client socket (AF_UNIX, SOCK_SEQPACKET, path GPUVIRT_SOCKET). One packet is one struct.
 * THE definition, under the same rules as control_block.h. Identity is never in a message: the daemon takes pid and uid from
 * the kernel (SO_PEERCRED, SO_PEERPIDFD); a claimed pid is compared and a wrong one refused.
 *
 *     shim                                    daemon
 *     HELLO(job token, device sizes)   ->     from a process that was attached: + descriptor of the arena that it has
 *                                      <-     WELCOME + 3 descriptors: lease page (read-only), client page, arena of the job
 *                                      <-     or REFUSED(reason), then close
 *     WANT(need)                       ->     a thread waits at the gate, or needs more memory while it holds the lease
 *                                      <-     RESTORE(allowance, credit): bring everything in, at most `allowance` resident; of
 *                                             it, `credit` now
 *                                      <-     CREDIT(credit): so much by now, as the others leave; or cancelled: give it up
 *     RESTORED(status, resident)       ->     then the daemon stores GRANTED or OPEN into the lease word
 *     IDLE                             ->     only while the word is GRANTED
 *                                             the daemon stores DRAIN(epoch) and wakes the futex; the control thread of the
 *                                      <-     shim also gets WAKE (it sleeps in poll, not on the futex)
 *     DRAINED(epoch)                   ->     the daemon stores CLOSED(epoch)
 *     STUCK(epoch)                     ->     or, when that takes long: what runs may wait for what waits at the gate. If the job
 *                                             wants the lease it gets it back for a while: STEP, with a new epoch
 *                                             (GRANTED, now and then, if that has not helped and work may wait for values)
 *                                      <-     EVICT(target): only sent while the word is CLOSED and drained
 *     PROGRESS(resident)               ->     on the way there, a window at a time: what has left is free for others
 *     EVICTED(status, resident)        ->
 *     BACK(segments)                   ->     these segments of the arena need host memory
 *                                      <-     BACKED(status)
 *     MEMORY                           ->     charged bytes changed by much (or the job asks for more than its allowance)
 *     CHARGE(bytes)                    ->     may I charge so much in all? Where the quota is used up, or shared with others
 *                                      <-     SHARED(status): no; or yes, until the sender reports less in another message
 *     SHARE(extents) + descriptors     ->     other processes of this job may have these extents of mine; or not any more
 *     FETCH(pid, extents)              ->     give me those of that process
 *                                      <-     SHARED(status) + descriptors: the answer to either
 *
 *     any process of a job (the NVML shim)
 *     QUERY(job token, GPU)            ->     on a connection of its own, in place of HELLO: the process is no client by it
 *                                      <-     USAGE or REFUSED(reason); then it may ask again, or hang up. A daemon that
 *                                             has restarted hangs up while it waits for processes of the job
 *
 * Rules
 *  - `allowance` is a promise of the daemon: a client never has more than that resident on the device. EVICT lowers it to its
 *    target at once; RESTORE and CREDIT raise it, to the credit; PROGRESS is a promise of the client in return: it will not have
 *    more than that resident again before the next RESTORE. A client below its allowance may create extents without asking.
 *  - EVICT and RESTORE go window by window. status 0: done. Otherwise a CUresult: the windows that were done stay done, the rest
 *    is as before; `resident` says what is there, `short_bytes` how much room was missing.
 *  - A RESTORE that has used up its credit says MEMORY once and waits. Nothing of it moves then; the lease may be far off.
 *  - After a WELCOME the lease word is CLOSED whatever it was before (a restarted daemon knows nothing): the client drains and
 *    sends DRAINED(0) before anything else, then MEMORY with what it has resident.
 *  - Unknown types are ignored by the shim and answered with a closed connection by the daemon. A message whose size, magic or
 *    version is wrong closes the connection.
 *  - Closing the connection ends the client's membership only when its pidfd also says that it is dead; else the daemon waits
 *    for it to come back (it may be mending its connection) and keeps its memory charged.
 */
#ifndef GPUVIRT_MESSAGES_H
#define GPUVIRT_MESSAGES_H

#include <stdint.h>

enum {
    GV_MESSAGE_MAGIC = 0x5647,
    GV_PROTOCOL_VERSION = 1,
    GV_TOKEN_BYTES = 64, /* job token, NUL-terminated text, from the environment variable GPUVIRT_JOB */
    GV_TEXT_BYTES = 192, /* NUL-terminated UTF-8 */
    GV_DEVICES_MAX = 16,
    GV_UUID_BYTES = 16,
    GV_SHARE_MAX = 16,       /* descriptors of one SHARE or SHARED */
    GV_USAGE_PROCESSES = 64, /* of one job on one GPU, in one answer; those with the most memory */
};

enum gv_message_type {
    /* shim -> daemon */
    GV_HELLO = 1,
    GV_WANT = 2,
    GV_IDLE = 3,
    GV_DRAINED = 4,
    GV_RESTORED = 5,
    GV_EVICTED = 6,
    GV_MEMORY = 7,
    GV_EVENT = 8, /* a line for the log of the daemon: what could not be virtualised, what failed */
    GV_QUERY = 9, /* what does my job have on this GPU? */
    GV_SHARE = 10,
    GV_FETCH = 11,
    GV_STUCK = 12,
    GV_BACK = 13,
    GV_PROGRESS = 14,
    GV_CHARGE = 15,
    /* daemon -> shim */
    GV_WELCOME = 65,
    GV_REFUSED = 66,
    GV_RESTORE = 67,
    GV_EVICT = 68,
    GV_WAKE = 69,
    GV_USAGE = 70,
    GV_SHARED = 71,
    GV_BACKED = 72,
    GV_CREDIT = 73,
};

struct gv_message_header {
    uint16_t magic;   /* GV_MESSAGE_MAGIC */
    uint16_t version; /* GV_PROTOCOL_VERSION of the sender */
    uint16_t type;    /* enum gv_message_type */
    uint16_t size;    /* of the whole message, bytes */
};

struct gv_hello {
    struct gv_message_header header;
    uint32_t minimum_version; /* lowest protocol version that the shim understands */
    uint32_t claimed_pid;     /* must equal the kernel's, else REFUSED */
    uint32_t device;          /* ordinal that the process sees: what it first asked memory or a context for */
    uint32_t reattach;        /* 1: this process was attached before (to an earlier daemon or connection) */
    uint64_t granularity;     /* bytes of one extent */
    uint64_t device_total;    /* bytes of that device as the driver says */
    uint64_t charged_bytes, resident_bytes;
    uint8_t device_uuid[GV_UUID_BYTES]; /* of that device: the daemon finds its GPU by it */
    char token[GV_TOKEN_BYTES];
    uint64_t native_bytes; /* here and below: fixed memory, which cannot be evicted; part of both other figures */
    uint32_t owner;        /* with reattach: its number in the arena, whose descriptor comes with the message */
    uint32_t reserved;
};

struct gv_welcome {
    struct gv_message_header header;
    uint32_t generation;  /* of the daemon */
    uint32_t client;      /* number of this client at the daemon, for logs */
    uint64_t allowance;   /* bytes that may be resident from the start (what a re-attaching client had) */
    uint64_t quota;       /* bytes that the job may charge */
    uint64_t arena_bytes; /* size of the arena file (sparse) */
    uint32_t owner;       /* number of this client among those that share the arena of its job */
    uint32_t reserved;
};

struct gv_refused {
    struct gv_message_header header;
    uint32_t code; /* CUresult that cuInit should give */
    uint32_t reserved;
    char reason[GV_TEXT_BYTES]; /* names the thing, the reason and the fix */
};

struct gv_want {
    struct gv_message_header header;
    uint64_t
        charged_bytes; /* all that must be resident for the job to run; fixed memory that waits for room included */
    uint64_t resident_bytes, native_bytes;
};

struct gv_idle {
    struct gv_message_header header;
    uint64_t since_ns;
};

struct gv_drained {
    struct gv_message_header header;
    uint32_t epoch; /* of the DRAIN; 0 right after WELCOME */
    uint32_t reserved;
};

struct gv_stuck {
    struct gv_message_header header;
    uint32_t epoch; /* of the DRAIN that does not end */
    uint32_t waits; /* 1: the program has had work wait for values, so it may not merely be long */
};

struct gv_restore {
    struct gv_message_header header;
    uint64_t allowance; /* bytes that may be resident when it is done */
    uint64_t credit;    /* of them, bytes that may be resident now; CREDIT raises it */
};

struct gv_credit {
    struct gv_message_header header;
    uint64_t credit;    /* bytes that may be resident from now on */
    uint32_t cancelled; /* 1: give up the RESTORE that is under way, keep what is in: RESTORED(CUDA_ERROR_NOT_READY) */
    uint32_t reserved;
};

struct gv_progress {
    struct gv_message_header header;
    uint64_t resident_bytes;
};

struct gv_evict {
    struct gv_message_header header;
    /* Bytes that may be resident from now on; free cached extents go first. Fixed memory stays: what is above the target
     * because of it is told by the answer, with status 0. */
    uint64_t target;
};

/* RESTORED and EVICTED */
struct gv_moved {
    struct gv_message_header header;
    uint32_t status; /* CUresult; 0 = the whole request was carried out */
    uint32_t reserved;
    uint64_t charged_bytes, resident_bytes;
    uint64_t moved_bytes; /* copied over the link by this request */
    uint64_t short_bytes; /* RESTORED with CUDA_ERROR_OUT_OF_MEMORY: room that was missing */
    uint64_t duration_ns;
    uint64_t native_bytes;
    uint64_t zero_bytes, clean_bytes, duplicate_bytes; /* that left or came without being copied */
    uint64_t copy_ns, hash_ns, map_ns;                 /* spent on copies, on hashing, in calls that map memory */
};

struct gv_memory {
    struct gv_message_header header;
    uint64_t charged_bytes, resident_bytes, native_bytes;
};

/* The answer is a SHARED: 0, or CUDA_ERROR_OUT_OF_MEMORY, whose reason the daemon keeps among the events of the job. A process
 * that has the GPU's quota for itself asks only before it fails. One that shares it with others of its job charges nothing that
 * it was not granted: what it reports in any other message is what it keeps of that. */
struct gv_charge {
    struct gv_message_header header;
    uint32_t request; /* of the sender, for the answer */
    uint32_t reserved;
    uint64_t charged_bytes; /* in all, with what is asked for */
    uint64_t asked_bytes;   /* by the program, in this allocation */
};

struct gv_event {
    struct gv_message_header header;
    char text[GV_TEXT_BYTES];
};

/* The extents [first, first + count) of the sender, one descriptor each; withdrawn: no descriptors, and no answer. What the
 * program exported itself has numbers with bit 63. */
struct gv_share {
    struct gv_message_header header;
    uint32_t request; /* of the sender, for the answer; 0 = no answer wanted */
    uint32_t count;   /* at most GV_SHARE_MAX */
    uint64_t nonce;   /* of the sending process: another one that gets its pid is not taken for it */
    uint64_t first;
    uint32_t withdrawn; /* 0 or 1 */
    uint32_t reserved;
};

struct gv_fetch {
    struct gv_message_header header;
    uint32_t request;
    uint32_t
        pid; /* of a process of the same job, as the kernel numbers it; 0: a descriptor comes with the question, and
                     the answer says whether a process of the job has shared just that (0), or not (CUDA_ERROR_NOT_FOUND) */
    uint64_t nonce, first;
    uint32_t count; /* at most GV_SHARE_MAX */
    uint32_t reserved;
};

/* Request 0 is no answer: extents [first, first + count) of that process are not its own any more, or it has ended. Whoever has
 * opened them has them alone from now on, and is charged. */
struct gv_shared {
    struct gv_message_header header;
    uint32_t request;
    uint32_t status; /* CUresult; 0: to a FETCH, the descriptors come with it, in order */
    char reason[GV_TEXT_BYTES];
    uint32_t pid, count;
    uint64_t nonce, first;
};

/* The sender is about to swap to these segments of its job's arena. */
struct gv_back {
    struct gv_message_header header;
    uint32_t request;        /* of the sender, for the answer */
    uint32_t segment, count; /* the first, and how many */
    uint32_t reserved;
};

struct gv_backed {
    struct gv_message_header header;
    uint32_t request;
    uint32_t status;  /* CUresult; 0: all of them have host memory, which is charged to the job */
    uint64_t missing; /* bytes that the host budget or the host lacks */
    char reason[GV_TEXT_BYTES];
};

struct gv_query {
    struct gv_message_header header;
    uint8_t device_uuid[GV_UUID_BYTES];
    char token[GV_TOKEN_BYTES];
};

/* One process of the asking process's job on the GPU that it asked for. Times are of the daemon's CLOCK_MONOTONIC. */
struct gv_usage_process {
    uint32_t pid;           /* in the pid namespace of the process that asks; one that it cannot see is left out */
    uint32_t host_pid;      /* in that of the daemon */
    uint64_t charged_bytes; /* device memory charged to it */
    uint64_t peak_bytes;    /* the most of it that the daemon has seen */
    uint64_t busy_ns;       /* time with work on the GPU, since it attached */
    uint64_t recent_ns;     /* the same within the last `window_ns` */
    uint64_t window_ns;     /* some seconds; shorter for a process that has just attached */
    uint64_t attached_ns;   /* when it attached */
};

struct gv_usage {
    struct gv_message_header header;
    uint32_t generation; /* of the daemon */
    uint32_t count;      /* entries that follow */
    uint64_t quota;      /* bytes that the job may charge on this GPU */
    uint64_t charged;    /* bytes that all its processes have charged there, also those that are left out */
    uint64_t now_ns;
    struct gv_usage_process processes[GV_USAGE_PROCESSES];
};

struct gv_wake {
    struct gv_message_header header;
};

#endif
