/* SPDX-License-Identifier: Apache-2.0
 *
 * The gate: where a call that gives work to the GPU waits until the job holds the lease and its memory is resident.
 *
 *     const struct gv_submission s = gv_gate_enter(stream, per_thread);
 *     if (s.refused != CUDA_SUCCESS) return s.refused;
 *     result = real(...);
 *     gv_gate_leave(&s);
 *
 * Fast path: two loads and two stores to the thread's own record. Nothing shared is written per launch, no lock is held while
 * waiting. A revocation cannot be overtaken: the thread says "in launch" before it looks at the lease word, and the control
 * thread, after the daemon closed the word, makes all threads see that (membarrier) and waits until none is in a launch.
 */
#ifndef GPUVIRT_SHIM_GATE_H
#define GPUVIRT_SHIM_GATE_H

#include <stdint.h>

#include "cuda_api.h"
#include "gpuvirt/control_block_ops.h"

/* What this thread gave to the GPU. Written by its thread, read by others where noted. */
struct gv_thread {
    uint32_t in_launch;  /* read by the control thread after its fence */
    uint32_t mixed;      /* work was given to more than one stream since `synced` */
    uint32_t own_stream; /* it used the per-thread default stream, which nobody else can ask about */
    uint32_t reserved;
    CUstream stream;    /* the last one */
    uint64_t submitted; /* gated calls so far */
    uint64_t
        synced; /* value of `submitted` at the last proof that all was finished; written under the registry's lock */
    struct gv_thread *next;
    struct gv_paced *paced; /* streams whose work in flight is bounded (pacing.h) */
    CUgraphExec graph;      /* of the launch that it is in */
};

struct gv_submission {
    struct gv_thread *thread; /* NULL: let through without a lease (capture, or the context is already lost) */
    CUresult refused;
    uint32_t paced; /* work in flight is bounded: to be counted (pacing.h) */
};

/* Reasons to leave the fast path, all in one word: 0 = none. */
enum {
    GV_ABSENT_MASK = 0x00000000ffffffffull, /* number of extents in use that are not in device memory */
    GV_CAPTURE_ONE = 0x0000000100000000ull, /* number of streams that capture, in bits 32-47 */
    GV_CAPTURE_MASK = 0x0000ffff00000000ull,
};
#define GV_HAS_UNUSED (1ull << 61) /* extents out of use are mapped: unmapped before more work is given (memory.h) */
#define GV_IS_IDLE (1ull << 62)    /* the client page says IDLE: the next submission must change that */
#define GV_UNATTACHED (1ull << 63)

struct gv_gate {
    const struct gv_lease
        *lease;         /* the job's lease page once attached (the same address ever after), else a closed page */
    uint64_t obstacles; /* GV_* above; changed with atomic adds and ors by any thread */
    uint32_t lost;      /* the context has a sticky error: the driver refuses everything, so we let all through */
    uint32_t
        may_wait; /* the program has work that waits for values or calls host functions: drains may need its threads */
    uint32_t full_fence; /* no membarrier on this kernel: seq_cst in the fast path instead */
};
extern struct gv_gate gv_gate;
extern __thread struct gv_thread *gv_this_thread __attribute__((tls_model("initial-exec")));

/* What a call gives to the GPU. */
enum gv_submits { GV_SUBMITS_NOTHING = 0, GV_SUBMITS = 1, GV_SUBMITS_WAITING = 2 };

/* Everything that is not "granted and all resident". `submits`: work, and not only a look at addresses. */
struct gv_submission gv_gate_wait(CUstream stream, int per_thread, enum gv_submits submits);

static inline int gv_may_launch(uint32_t word)
{
    const uint32_t state = gv_lease_state(word);
    return state == GV_LEASE_OPEN || state == GV_LEASE_GRANTED;
}

/* The same, and STEP, in which only streams that have finished are given more: memory stays where it is. */
static inline int gv_holds_lease(uint32_t word) { return gv_may_launch(word) || gv_lease_state(word) == GV_LEASE_STEP; }

static inline void gv_gate_mark(struct gv_thread *thread, CUstream stream)
{
    if (thread->stream != stream) {
        thread->mixed |= thread->submitted != __atomic_load_n(&thread->synced, __ATOMIC_RELAXED);
        thread->stream = stream;
        thread->own_stream |= stream == CU_STREAM_PER_THREAD;
    }
    /* release: who sees the count sees that this thread is in its call, or that it has returned. */
    __atomic_store_n(&thread->submitted, thread->submitted + 1, __ATOMIC_RELEASE);
}

/* Inline even where the compiler would share one copy: a call more is a third of what a launch pays. */
__attribute__((always_inline)) static inline struct gv_submission gv_gate_pass(CUstream stream, int per_thread,
                                                                               enum gv_submits submits)
{
    struct gv_thread *const thread = gv_this_thread;
    if (__builtin_expect(thread == NULL || gv_gate.full_fence, 0))
        return gv_gate_wait(stream, per_thread, submits);
    __atomic_store_n(&thread->in_launch, 1, __ATOMIC_RELAXED);
    /* Compiler only: the control thread's membarrier orders this store before the loads on its behalf. */
    __atomic_signal_fence(__ATOMIC_SEQ_CST);
    const uint32_t word = gv_load32(&gv_gate.lease->word);
    const uint64_t obstacles = __atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE);
    /* The same line of the cache as the word. Not 0 for who is alone, either, when somebody may come who must not wait. */
    const int free =
        gv_may_launch(word) && (!submits || __atomic_load_n(&gv_gate.lease->window_us, __ATOMIC_RELAXED) == 0);
    if (__builtin_expect(free && (submits ? obstacles : obstacles & ~GV_IS_IDLE) == 0, 1)) {
        if (submits)
            gv_gate_mark(thread, stream == NULL && per_thread ? CU_STREAM_PER_THREAD : stream);
        return (struct gv_submission){thread, CUDA_SUCCESS, 0};
    }
    __atomic_store_n(&thread->in_launch, 0, __ATOMIC_RELEASE);
    return gv_gate_wait(stream, per_thread, submits);
}

__attribute__((always_inline)) static inline struct gv_submission gv_gate_enter(CUstream stream, int per_thread)
{
    return gv_gate_pass(stream, per_thread, GV_SUBMITS);
}

/* For work that waits for a value: in each second STEP such work stays out, so that what is open becomes less. */
static inline struct gv_submission gv_gate_enter_waiting(CUstream stream, int per_thread)
{
    __atomic_store_n(&gv_gate.may_wait, 1, __ATOMIC_RELAXED);
    return gv_gate_pass(stream, per_thread, GV_SUBMITS_WAITING);
}

/* For calls that only need the memory in its place and give nothing to the GPU: they say nothing of idleness. */
static inline struct gv_submission gv_gate_enter_unused(void) { return gv_gate_pass(NULL, 0, GV_SUBMITS_NOTHING); }

void gv_pacing_gave(struct gv_thread *thread);

/* Work was given beside a capture: a drain must be able to wait for it (marks.h). */
void gv_gate_leave_beside_capture(const struct gv_thread *thread);

static inline void gv_gate_leave(const struct gv_submission *submission)
{
    if (submission->thread == NULL)
        return;
    if (__builtin_expect(submission->paced, 0))
        gv_pacing_gave(submission->thread);
    /* After the driver's call: a capture that is not seen here begins later, and marks what was given before. */
    if (__builtin_expect(__atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE) & GV_CAPTURE_MASK, 0))
        gv_gate_leave_beside_capture(submission->thread);
    /* release: whatever the driver was given is given before the control thread sees 0. */
    __atomic_store_n(&submission->thread->in_launch, 0, __ATOMIC_RELEASE);
}

/*
 * Before a call that waits for its stream, the default one: does the waiting outside of the gate, so that nobody who wants the
 * lease back waits for a thread that is blocked in the driver. The program sees no difference: the call would wait itself.
 */
void gv_gate_wait_for_stream(int per_thread);

/* Takes note of a failed call: errors that last (an illegal address and its kind) lose the context. */
void gv_gate_failed(CUresult result);

/* The error that the current context has for good, or CUDA_SUCCESS. Costs one load while no call has ever failed so. */
CUresult gv_gate_lost_context(void);

/*
 * As gv_gate_leave, for calls that return only when their stream (the default one) is finished: if they did (`waited`), what
 * was given before the mark is.
 */
struct gv_activity_mark;
void gv_gate_leave_synced(const struct gv_submission *submission, const struct gv_activity_mark *mark, int per_thread,
                          int waited);

/* Before the driver destroys a stream of the program. */
void gv_gate_stream_ends(CUstream stream);

/* After the word was closed: 0: some thread is still in a launch that saw it open. Never waits. */
int gv_gate_fence_now(void);

/* Wakes threads that wait for memory or for the lease. Any thread. */
void gv_gate_notify(void);

/* Has some living thread given work to its per-thread default stream? */
int gv_gate_uses_thread_streams(void);

/* Gated calls of all threads so far, ended ones included. */
uint64_t gv_gate_submitted(void);

/* Sets up thread records and membarrier; 0, or an errno. Once, before the first attach. */
int gv_gate_prepare(void);

/* In the child of a fork: forget everything. */
void gv_gate_forget(void);

#endif
