/* SPDX-License-Identifier: Apache-2.0
 *
 * The board: the state of this machine's soft devices, shared by every process that uses them (driver and NVML).
 *
 * One named tmpfs file of fixed size, mapped by everybody. It holds what a real device would know: how much memory is in
 * use and by whom, who has the compute engine, how long it was busy. It never holds device memory itself.
 *
 *     board ── device[]   capacity, memory in use, engine word, busy time
 *           ── process[]  (pid, start time): the ledger of one process per device
 *           ── shared[]   allocations that were exported: charged once, held by several processes
 *
 * `lock` is robust and process-shared. It is held for nanoseconds only, never across a wait, a copy or a system call that
 * blocks. Whoever finds its owner dead repairs the sums from the records. Fields marked (lock) change only under it and
 * may be read without it as a hint; fields marked (atomic) are written by one process with relaxed atomics.
 * Layout changes bump GV_BOARD_VERSION; a process that finds another version refuses the board.
 */
#ifndef GPUVIRT_SOFTGPU_BOARD_H
#define GPUVIRT_SOFTGPU_BOARD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board_checkpoint.h"
#include "board_events.h"
#include "board_faults.h"
#include "board_model.h"

enum {
    GV_BOARD_MAGIC = 0x47535642, /* "BVSG" */
    GV_BOARD_VERSION = 3,
    GV_BOARD_DEVICES = 16,
    GV_BOARD_PROCESSES = 256,
    GV_BOARD_SHARED = 1024,
    GV_BOARD_WORDS = GV_BOARD_PROCESSES / 64,
    GV_BOARD_BUCKETS = 64, /* of busy time, for utilisation */
    GV_BOARD_SAMPLES = 16, /* the same of one process, in units of GV_BOARD_SAMPLE_NS */
};

#define GV_BOARD_BUCKET_NS 50000000ull /* 50 ms: 64 of them cover 3.2 s */

#define GV_BOARD_SAMPLE_NS 125000000ull /* 125 ms: 2 s in all */

/* Busy time of one interval of GV_BOARD_BUCKET_NS. */
struct gv_board_bucket {
    uint64_t number;  /* (atomic) monotonic time / GV_BOARD_BUCKET_NS */
    uint64_t busy_ns; /* (atomic) */
};

struct gv_board_device {
    uint8_t uuid[16];      /* set once by the creator of the board */
    uint64_t memory_bytes; /* capacity; set once */
    uint64_t used_bytes;   /* (lock) all that is charged to this device */

    /* Engine: 0 free, else number of the owning process record + 1. Taken by compare-and-swap, handed over by its owner,
     * taken from an owner that is dead or stopped. A futex: waiters sleep on it. */
    uint32_t engine_owner;
    uint32_t engine_reserved;
    uint64_t engine_waiting[GV_BOARD_WORDS]; /* (atomic) bit set of the processes that want it */
    uint64_t engine_waited_since_ns;         /* (atomic) when the first of those that wait now came */
    uint64_t engine_since_ns;                /* (atomic) when the owner took it; valid while engine_owner != 0 */
    uint64_t engine_busy_ns;                 /* (atomic) total of all finished turns */
    uint64_t engine_turns;                   /* (atomic) finished turns */
    struct gv_board_bucket buckets[GV_BOARD_BUCKETS];

    struct gv_board_device_faults faults;
    uint64_t link_free_at_ns[2]; /* (atomic) link model: when the last copy to [0] and from [1] the device ends */
    struct gv_board_model model; /* what it pretends to be and to cost */
    uint64_t reserved[8];
};

/* What one process did on one device. Written by that process. */
struct gv_board_account {
    uint64_t private_bytes;                     /* (lock) memory that only this process holds */
    uint64_t shared_bytes;                      /* (lock) memory in shared[] that this process holds too */
    uint64_t peak_bytes;                        /* (lock) highest private + shared */
    uint64_t engine_ns;                         /* (atomic) time on the engine */
    uint64_t kernels;                           /* (atomic) kernels finished */
    uint64_t to_device, from_device, on_device; /* (atomic) bytes copied */
    uint32_t contexts;                          /* (lock) contexts on this device; NVML lists the process while > 0 */
    uint32_t engine_holding;                    /* (atomic) 1 between taking the engine and giving it away */
    uint32_t engine_contexts;                   /* (atomic) contexts that share its turn; 0 counts as 1 */
    uint32_t reserved;
    /* (atomic) how far the process overran its slices. Whoever passes it over for a slice takes that off. */
    uint64_t engine_debt_ns;
    struct {
        uint32_t number, busy_us; /* (atomic) monotonic time / GV_BOARD_SAMPLE_NS; of it on the engine */
    } samples[GV_BOARD_SAMPLES];
};

struct gv_board_process {
    uint32_t pid;        /* (lock) 0: free. As in the host's pid namespace of the board's users */
    uint32_t armed;      /* (atomic) GV_ARMED_*: what the entry seam must look at; a futex */
    uint64_t start_time; /* (lock) field 22 of /proc/PID/stat: tells a recycled pid from the process */
    struct gv_board_checkpoint checkpoint;
    struct gv_board_account accounts[GV_BOARD_DEVICES];
};

/* Memory that was exported; `inode` is that of its memfd. */
struct gv_board_shared {
    uint64_t inode; /* (lock) 0: free */
    uint64_t bytes;
    uint32_t device;
    uint32_t reserved;
    uint64_t holders[GV_BOARD_WORDS]; /* (lock) process records that hold it */
};

struct gv_board {
    uint32_t magic, version;
    uint64_t size;           /* of this struct */
    uint32_t device_count;   /* set once */
    uint32_t slice_us;       /* engine time slice; set once */
    uint64_t reaped_ns;      /* (atomic) when somebody last looked for dead processes */
    uint64_t made_ns;        /* set once: when it was made, on the monotonic clock */
    uint64_t vmm_free_at_ns; /* (atomic) VMM model: when the machine's lock is free */
    pthread_mutex_t lock;
    struct gv_board_device devices[GV_BOARD_DEVICES];
    struct gv_board_process processes[GV_BOARD_PROCESSES];
    struct gv_board_shared shared[GV_BOARD_SHARED];
    struct gv_board_faults faults;
    struct gv_board_events events;
};

/* Maps the board, creating it when there is none. Path: GPUVIRT_SOFTGPU_BOARD, default /dev/shm/gpuvirt-softgpu-<uid>; a new
 * one gets GPUVIRT_SOFTGPU_DEVICES devices of GPUVIRT_SOFTGPU_MEMORY bytes (suffix K, M, G) or those of the
 * GPUVIRT_SOFTGPU_PROFILE times GPUVIRT_SOFTGPU_MEMORY_SCALE, with the costs of GPUVIRT_SOFTGPU_MODEL. Thread-safe, idempotent.
 * Returns NULL and logs one line when it cannot. */
struct gv_board *gv_board_open(void);

/* The same without the memory of having done so: gv_board_open's part. */
struct gv_board *gv_board_map(void);

/* "512M" -> bytes; 0 when it is no size. */
uint64_t gv_board_parse_bytes(const char *text);

/* The record of this process, claimed on first use; its number, or -1 when all are taken. */
int gv_board_claim(struct gv_board *board);
/* After fork: the child has no record. */
void gv_board_forget(void);

/* Memory budget. charge() returns false when the device has not that much left, dead processes reaped. */
bool gv_board_charge(struct gv_board *board, uint32_t device, uint64_t bytes);
void gv_board_uncharge(struct gv_board *board, uint32_t device, uint64_t bytes);
/* share(): a private charge becomes one that other processes can hold (idempotent). hold(): this process imports it; charges
 * the device again when nobody held it any more. drop(): this process holds it no longer. */
bool gv_board_share(struct gv_board *board, uint32_t device, uint64_t inode, uint64_t bytes);
bool gv_board_hold(struct gv_board *board, uint32_t device, uint64_t inode, uint64_t bytes);
void gv_board_drop(struct gv_board *board, uint64_t inode);

void gv_board_contexts(struct gv_board *board, uint32_t device, int change);

/* For the parts of the board in other files. The lock is held for nanoseconds only. */
void gv_board_lock(struct gv_board *board);
void gv_board_unlock(struct gv_board *board);
/* Under the lock: has the device that much left? */
bool gv_board_fits(const struct gv_board *board, uint32_t device, uint64_t bytes);
/* State and start time from /proc/PID/stat; 0 when there is no such process or only its remains. */
uint64_t gv_board_start_time(uint32_t pid, char *state);

/* Frees the records of dead processes; at most every `interval_ns` machine-wide, 0 = now. */
void gv_board_reap(struct gv_board *board, uint64_t interval_ns);
/* False when the process of this record is dead; `stopped` (may be NULL) tells SIGSTOP, debuggers, and a process that is
 * being killed but has not let go of its memory yet. */
bool gv_board_alive(const struct gv_board *board, int record, bool *stopped);

/* Readers for NVML and tools. */
/* Says what it is; the profile is named, never the card. */
void gv_board_device_name(const struct gv_board *board, uint32_t device, char *name, size_t length);
uint64_t gv_board_used(struct gv_board *board, uint32_t device);
/* Share of the last `window_ns` (<= 3 s) in which the engine was busy, 0-100. */
uint32_t gv_board_utilisation(const struct gv_board *board, uint32_t device, uint64_t window_ns);
/* The same for one bucket that has ended, by its number. */
uint32_t gv_board_bucket_busy(const struct gv_board_device *device, uint64_t number);
/* All the time that the engine has been busy, the turn that goes on included. */
uint64_t gv_board_busy_ns(const struct gv_board_device *device);
/* Adds a finished turn [from, to) to busy time and buckets; the same for the owner's account. */
void gv_board_add_busy(struct gv_board_device *device, uint64_t from_ns, uint64_t to_ns);
void gv_board_add_sample(struct gv_board_account *account, uint64_t from_ns, uint64_t to_ns);

struct gv_board_user {
    uint32_t pid;
    uint64_t bytes;
};
/* Live processes with a context or memory on `device`; returns how many there are, fills at most `room`. */
uint32_t gv_board_users(struct gv_board *board, uint32_t device, struct gv_board_user *users, uint32_t room);

uint64_t gv_board_now_ns(void);

/* True when a process waits for the engine. */
static inline bool gv_board_engine_wanted(const struct gv_board_device *device)
{
    uint64_t any = 0;
    for (int w = 0; w < GV_BOARD_WORDS; w++)
        any |= __atomic_load_n(&device->engine_waiting[w], __ATOMIC_RELAXED);
    return any != 0;
}
/* Takes the engine from a record that has ended or is about to be used anew, and wakes those that wait. */
void gv_board_engine_forget(struct gv_board_device *device, int record);

#endif
