/* SPDX-License-Identifier: Apache-2.0
 *
 * What C and Python (through cffi) do with the shared pages: atomics, futex, layout checks.
 */
#ifndef GPUVIRT_CONTROL_BLOCK_OPS_H
#define GPUVIRT_CONTROL_BLOCK_OPS_H

#include <errno.h>
#include <linux/futex.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "gpuvirt/control_block.h"
#include "gpuvirt/messages.h"

_Static_assert(sizeof(struct gv_lease) == 72 && offsetof(struct gv_lease, word) == 16, "lease page layout");
_Static_assert(offsetof(struct gv_lease, deadline_ns) == 24 && offsetof(struct gv_lease, quota_bytes) == 40,
               "lease page layout");
_Static_assert(sizeof(struct gv_client) == 464 && offsetof(struct gv_client, drained_epoch) == 20,
               "client page layout");
_Static_assert(offsetof(struct gv_client, charged_bytes) == 56 && offsetof(struct gv_client, fixed) == 128,
               "client page layout");
_Static_assert(sizeof(struct gv_message_header) == 8, "message layout");
_Static_assert(sizeof(struct gv_hello) == 152 && sizeof(struct gv_welcome) == 48, "message layout");
_Static_assert(sizeof(struct gv_refused) == 208 && sizeof(struct gv_moved) == 112, "message layout");
_Static_assert(sizeof(struct gv_usage_process) == 56 && sizeof(struct gv_query) == 88, "message layout");
_Static_assert(sizeof(struct gv_usage) == 40 + 56 * GV_USAGE_PROCESSES, "message layout");

static inline uint32_t gv_lease_epoch(uint32_t word) { return word >> GV_LEASE_STATE_BITS; }
static inline uint32_t gv_lease_state(uint32_t word) { return word & GV_LEASE_STATE_MASK; }
static inline uint32_t gv_lease_word(uint32_t epoch, uint32_t state) { return epoch << GV_LEASE_STATE_BITS | state; }

/* acquire: what the daemon wrote before the word (deadline, flags, quota) is seen by whoever sees the word. */
static inline uint32_t gv_load32(const uint32_t *field) { return __atomic_load_n(field, __ATOMIC_ACQUIRE); }
static inline void gv_store32(uint32_t *field, uint32_t value) { __atomic_store_n(field, value, __ATOMIC_RELEASE); }
static inline uint64_t gv_load64(const uint64_t *field) { return __atomic_load_n(field, __ATOMIC_ACQUIRE); }
static inline void gv_store64(uint64_t *field, uint64_t value) { __atomic_store_n(field, value, __ATOMIC_RELEASE); }

/* Shared futex (no PRIVATE flag): daemon and clients map the page at different addresses. Relative time-out in ns. */
static inline int gv_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns)
{
    const struct timespec limit = {(time_t)(timeout_ns / 1000000000u), (long)(timeout_ns % 1000000000u)};
    return syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, NULL, 0) == 0 ? 0 : errno;
}

static inline int gv_futex_wake_all(uint32_t *word)
{
    return (int)syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

static inline uint64_t gv_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif
