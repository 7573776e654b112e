/* SPDX-License-Identifier: Apache-2.0
 *
 * Faults on request: what the board knows of them. Rules match calls and do something to them; devices have faults of their
 * own. Written by tools and by processes for themselves (fault_tools.c, gv_faults_from_environment), read by all (inject.c).
 *
 * A rule in words:   WHAT:WHEN:ACTION[:pid=N][:device=N]      several are separated by ";"
 *
 *     WHAT     name of an entry point of the driver or of NVML, or a glob of such: cuMemCreate, cuMem*, nvmlDeviceGet*.
 *              Version suffixes may be left out. With a dot in it, a place inside the device instead:
 *              kernel.NAME (each run), copy.to_device, copy.from_device, copy.on_device (each MiB),
 *              checkpoint.save, checkpoint.restore (once, and for each MiB moved)
 *     WHEN     3: the third matching call; 3+: from the third on; *: every one
 *     ACTION   an error (OUT_OF_MEMORY, CUDA_ERROR_..., NVML_ERROR_..., a number), delay=200ms, hang (until the rule is
 *              removed), kill (SIGKILL here), rate=1G (bytes a second, copies), corrupt (a byte, copies)
 *     pid, device   only calls of this process; only while this device is meant
 *
 * Calls are counted in the rule: over all processes that it matches.
 */
#ifndef GPUVIRT_SOFTGPU_BOARD_FAULTS_H
#define GPUVIRT_SOFTGPU_BOARD_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gv_board;

/* Bits of `armed` in the process's record on the board. */
enum {
    GV_ARMED_RULES = 1,  /* there are fault rules; set by who adds one, under the board's lock */
    GV_ARMED_CLOSED = 2, /* calls wait: the process is locked for a checkpoint; set by its service thread */
    GV_ARMED_LOST = 4,   /* a device has fallen off the bus since the board was made */
};

enum { GV_FAULT_RULES = 32, GV_FAULT_PATTERN = 64, GV_FAULT_STRANGERS = 8 };

enum gv_fault_action {
    GV_FAULT_ERROR = 1,
    GV_FAULT_DELAY,
    GV_FAULT_HANG,
    GV_FAULT_KILL,
    GV_FAULT_RATE,
    GV_FAULT_CORRUPT,
};

struct gv_fault_rule {
    uint32_t id;    /* (atomic) 0: free. Never used twice. Written last when made, first when removed, under the lock */
    uint32_t pid;   /* 0: every process */
    int32_t device; /* -1: every device */
    uint32_t action;
    uint64_t first;                 /* acts from this matching call on; 1 is the next */
    uint64_t last;                  /* to this one */
    uint64_t value;                 /* error code; delay in ns; bytes a second */
    uint64_t calls;                 /* (atomic) matching calls so far */
    uint64_t acted;                 /* (atomic) of them, those it did something to */
    char pattern[GV_FAULT_PATTERN]; /* NUL-terminated */
};

struct gv_board_faults {
    uint32_t changed; /* (atomic) grows with every change of a rule; a futex: hanging calls sleep on it */
    uint32_t count;   /* (lock) rules in use */
    uint32_t last_id; /* (lock) */
    uint32_t lost;    /* (lock) how often a device has fallen off the bus */
    struct gv_fault_rule rules[GV_FAULT_RULES];
};

/* Memory that a process holds which is not on the board: of another pid namespace, or one that escaped. */
struct gv_fault_stranger {
    uint32_t pid; /* (lock) 0: free */
    uint32_t reserved;
    uint64_t bytes; /* (lock) part of withheld_bytes */
};

/* Counters as NVML has them: [corrected, uncorrected][volatile, aggregate]. */
struct gv_board_device_faults {
    uint32_t lost;           /* (atomic, written under lock) 1: off the bus */
    uint32_t losses;         /* (atomic) how often it was lost; contexts made before are dead */
    uint64_t withheld_bytes; /* (atomic, written under lock) in use without an owner on the board: capacity lowered */
    struct gv_fault_stranger strangers[GV_FAULT_STRANGERS];
    uint64_t ecc[2][2];        /* (lock) */
    uint32_t retired_pages[2]; /* (lock) because of corrected, uncorrected errors */
    uint32_t remapped_rows[2]; /* (lock) the same */
    uint32_t remap_pending, remap_failed;
    uint64_t reserved[8];
};

/* Fills in `rule` (its first `length` characters), id and counters 0. On failure false and one line in `message`. */
bool gv_fault_parse(const char *text, size_t length, struct gv_fault_rule *rule, char *message, size_t room);
/* The same rule in words. */
void gv_fault_format(const struct gv_fault_rule *rule, char *text, size_t room);

/* The id of the new rule; 0 when all are taken. Arms every process. */
uint32_t gv_fault_add(struct gv_board *board, const struct gv_fault_rule *rule);
/* Removes one, or with id 0 all; how many. What hangs by it goes on. */
uint32_t gv_fault_clear(struct gv_board *board, uint32_t id);
/* After a change of `lost`. */
void gv_faults_rearm(struct gv_board *board);
/* What a new record's `armed` begins with; under the lock. */
uint32_t gv_faults_armed(const struct gv_board *board);
/* Rules that are for dead processes only go. */
void gv_fault_sweep(struct gv_board *board);
/* GPUVIRT_SOFTGPU_FAULTS: rules for this process alone; of entry points that begin with "nvml", or of the others. */
void gv_faults_from_environment(struct gv_board *board, bool nvml);

#endif
