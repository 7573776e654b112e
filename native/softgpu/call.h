/* SPDX-License-Identifier: Apache-2.0
 *
 * The entry seam: every exported function passes it, and it is the one place where a call can be failed, delayed, hung or
 * blocked. Calls nest (exported functions call each other): only the outermost counts.
 *
 *     GV_ENTER()                  exported functions: the seam, then NOT_INITIALIZED when cuInit has not been called
 *     GV_ENTER_CONTEXT(context)   the same, and the thread's context
 *     GV_ENTER_ANY()              those that work without cuInit
 *     GV_READY(), GV_NEED_CONTEXT(context)   helpers of exported functions: no seam
 *
 * Whether a process has a call in progress is told by a depth for each thread, written by that thread alone with plain
 * stores: a shared counter would cost two locked instructions a call. Who closes the gate (call.c) pays instead: it sets the
 * flag, makes every thread of the process pass a barrier (membarrier), and only then looks at the depths. A thread that has
 * stored its depth before that barrier is seen; one that has not will see the flag.
 *
 * While nothing is armed a call costs these two stores and one predictable branch on a relaxed load.
 */
#ifndef GPUVIRT_SOFTGPU_CALL_H
#define GPUVIRT_SOFTGPU_CALL_H

#include "board.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* One for each thread that has called the driver. */
struct gv_caller {
    _Atomic uint32_t depth; /* calls that this thread is in; written by it alone */
    uint32_t unlisted;      /* 1 until it is on the list of call.c; 2 in a host function */
    struct gv_caller *next; /* under the lock of call.c */
};
/* initial-exec, so that the seam is a few instructions; the reason for GV_THREAD_LOCAL's limit holds here too. */
extern __thread struct gv_caller gv_caller __attribute__((tls_model("initial-exec")));

/* `armed` of this process's record; a word that is always 0 before cuInit and in a forked child. */
extern _Atomic(uint32_t *) gv_call_armed;

/* The slow path of an outermost call: waits at a closed gate, applies fault rules. Not SUCCESS: the call's answer. */
CUresult gv_call_admit(const char *function);

static inline uint32_t gv_armed(void)
{
    return __atomic_load_n(atomic_load_explicit(&gv_call_armed, memory_order_relaxed), __ATOMIC_RELAXED);
}

static inline CUresult gv_call_begin(const char *function)
{
    const uint32_t depth = atomic_load_explicit(&gv_caller.depth, memory_order_relaxed);
    atomic_store_explicit(&gv_caller.depth, depth + 1, memory_order_relaxed);
    atomic_signal_fence(memory_order_seq_cst); /* the other half of this fence is the closer's membarrier */
    if (__builtin_expect((gv_armed() | gv_caller.unlisted) != 0, 0) && depth == 0)
        return gv_call_admit(function);
    return CUDA_SUCCESS;
}

/* Release: who sees the depth fall sees what the call did. */
static inline void gv_call_end(const CUresult *admitted)
{
    (void)admitted;
    atomic_store_explicit(&gv_caller.depth, atomic_load_explicit(&gv_caller.depth, memory_order_relaxed) - 1,
                          memory_order_release);
}

#define GV_JOINED(a, b) a##b
#define GV_UNIQUE(name, line) GV_JOINED(name, line)
#define GV_ENTER_ANY() GV_ENTER_NAMED(__func__)
#define GV_ENTER_NAMED(name)                                                                                           \
    __attribute__((cleanup(gv_call_end))) const CUresult GV_UNIQUE(gv_admitted, __LINE__) = gv_call_begin(name);       \
    if (GV_UNIQUE(gv_admitted, __LINE__) != CUDA_SUCCESS)                                                              \
    return GV_UNIQUE(gv_admitted, __LINE__)

/* While a host function runs in this thread: its calls of the driver answer CUDA_ERROR_NOT_PERMITTED. */
void gv_call_forbid(bool forbid);

/* By cuInit: `armed` is the record's word. By a forked child: NULL. */
void gv_calls_start(uint32_t *armed);
/* Closes the gate: calls that begin from now on wait. Threads of the checkpoint functions do not. */
void gv_calls_close(void);
void gv_calls_open(void);
/* True when no call is in progress; those that wait at the gate are not. */
bool gv_calls_quiet(void);

#endif
