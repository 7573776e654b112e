/* SPDX-License-Identifier: Apache-2.0 */
#include "gate.h"

#include <errno.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdlib.h>

#include "activity.h"
#include "capture.h"
#include "contexts.h"
#include "drain.h"
#include "log.h"
#include "marks.h"
#include "memory.h"
#include "pacing.h"
#include "real_driver.h"
#include "session.h"
#include "streams.h"

enum {
    WAIT_STEP_NS = 100 * 1000 * 1000, /* longest sleep before everything is looked at again */
    STEP_LOOK_NS = 500 * 1000,        /* the same for a stream that must finish first */
};

static const struct gv_lease closed; /* until attached: word 0 = CLOSED */
struct gv_gate gv_gate __attribute__((aligned(64))) = {.lease = &closed, .obstacles = GV_UNATTACHED};
__thread struct gv_thread *gv_this_thread __attribute__((tls_model("initial-exec")));

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct gv_thread *registry;  /* all threads that ever submitted and live; under registry_lock */
static uint64_t submitted_by_ended; /* under registry_lock */
static uint64_t ended_at_work;      /* threads that ended with work that was not proven finished; under registry_lock */
static uint64_t ended_proven;       /* how many of them since are; the same */
static uint32_t ended_own_stream;   /* one of the others used its per-thread default stream; the same */
static pthread_key_t exit_key;
static uint32_t changes; /* futex of threads that wait for memory: counts gv_gate_notify */

static void forget_thread(void *record)
{
    pthread_mutex_lock(&registry_lock);
    for (struct gv_thread **link = &registry; *link != NULL; link = &(*link)->next) {
        if (*link == record) {
            *link = ((struct gv_thread *)record)->next;
            submitted_by_ended += ((struct gv_thread *)record)->submitted;
            if (((struct gv_thread *)record)->submitted != ((struct gv_thread *)record)->synced) {
                ended_at_work++;
                ended_own_stream |= ((struct gv_thread *)record)->own_stream;
            }
            break;
        }
    }
    pthread_mutex_unlock(&registry_lock);
    gv_pacing_thread_ends(record);
    gv_this_thread = NULL;
    free(record);
}

static struct gv_thread *register_thread(void)
{
    struct gv_thread *thread = calloc(1, sizeof *thread);
    if (thread == NULL)
        return NULL;
    pthread_mutex_lock(&registry_lock);
    thread->next = registry;
    registry = thread;
    pthread_mutex_unlock(&registry_lock);
    pthread_setspecific(exit_key, thread);
    gv_this_thread = thread;
    return thread;
}

int gv_gate_prepare(void)
{
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0)
        gv_gate.full_fence = 1;
    return pthread_key_create(&exit_key, forget_thread);
}

void gv_gate_forget(void)
{
    gv_gate.lease = &closed;
    gv_gate.obstacles = GV_UNATTACHED;
    gv_gate.lost = 0;
    gv_this_thread = NULL;
    ended_at_work = ended_proven = 0;
    ended_own_stream = 0;
    registry = NULL; /* the parent's records leak: freeing them is not safe here */
    pthread_mutex_init(&registry_lock, NULL);
}

int gv_gate_uses_thread_streams(void)
{
    pthread_mutex_lock(&registry_lock);
    uint32_t used = ended_own_stream;
    for (struct gv_thread *thread = registry; thread != NULL; thread = thread->next)
        used |= __atomic_load_n(&thread->own_stream, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&registry_lock);
    return used != 0;
}

uint64_t gv_gate_submitted(void)
{
    pthread_mutex_lock(&registry_lock);
    uint64_t count = submitted_by_ended;
    for (struct gv_thread *thread = registry; thread != NULL; thread = thread->next)
        count += __atomic_load_n(&thread->submitted, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&registry_lock);
    return count;
}

void gv_gate_notify(void)
{
    __atomic_add_fetch(&changes, 1, __ATOMIC_RELEASE);
    syscall(SYS_futex, &changes, FUTEX_WAKE_PRIVATE, 0x7fffffff, NULL, NULL, 0);
}

static void wait_for_change(uint32_t seen)
{
    const struct timespec limit = {0, WAIT_STEP_NS};
    syscall(SYS_futex, &changes, FUTEX_WAIT_PRIVATE, seen, &limit, NULL, 0);
}

void gv_gate_wait_for_stream(int per_thread)
{
    /* Alone nobody wants the lease back; beside a capture the call itself is refused, and waiting could spoil the capture. */
    if (gv_lease_state(gv_load32(&gv_gate.lease->word)) == GV_LEASE_OPEN ||
        (__atomic_load_n(&gv_gate.obstacles, __ATOMIC_RELAXED) & GV_UNATTACHED) || !gv_capture_hold_off())
        return;
    if (per_thread)
        REAL(cuStreamSynchronize_ptsz)(NULL);
    else
        REAL(cuStreamSynchronize)(NULL); /* an error is the call's own to tell */
    gv_capture_let_begin();
}

/*
 * STEP: something on the GPU waits for what only the job's own threads can give it. A stream that has nothing to do may get it;
 * one that is at work gets no more, so that the work in sum comes to an end. A program that always has its next wait queued
 * would queue another one: those only get in at every second STEP, of an even epoch. (While anything captures, no stream is
 * asked.)
 */
static int may_step(CUstream stream, enum gv_submits submits, uint32_t epoch)
{
    if (submits == GV_SUBMITS_WAITING && (epoch & 1) != 0)
        return 0;
    if (!gv_capture_hold_off())
        return 1;
    const CUresult result = REAL(cuStreamQuery)(stream);
    gv_capture_let_begin();
    return result != CUDA_ERROR_NOT_READY;
}

static void still_idle(void);

/*
 * The calling thread's way in when the fast path did not do. Each turn looks at everything anew; it holds no lock, and between
 * turns it is not "in launch".
 */
struct gv_submission gv_gate_wait(CUstream stream, int per_thread, enum gv_submits submits)
{
    const CUstream used = stream == NULL && per_thread ? CU_STREAM_PER_THREAD : stream;
    uint64_t waiting_since = 0;
    for (;;) {
        if (gv_gate.obstacles & GV_UNATTACHED) {
            const CUresult refused = gv_session_attach_current();
            if (refused != CUDA_SUCCESS)
                return (struct gv_submission){NULL, refused, 0};
        }
        struct gv_thread *const thread = gv_this_thread != NULL ? gv_this_thread : register_thread();
        if (thread == NULL)
            return (struct gv_submission){NULL, CUDA_ERROR_OUT_OF_MEMORY, 0};
        /* A lost context refuses everything: let the call through to its error. Nothing of it reaches the GPU. */
        if (gv_gate_lost_context() != CUDA_SUCCESS || gv_stream_captures(used))
            return (struct gv_submission){NULL, CUDA_SUCCESS, 0};

        if (gv_gate.obstacles & GV_HAS_UNUSED)
            gv_extents_release_all_unused();

        const uint32_t seen = __atomic_load_n(&changes, __ATOMIC_ACQUIRE);
        __atomic_store_n(&thread->in_launch, 1, __ATOMIC_SEQ_CST);
        const uint32_t word = gv_load32(&gv_gate.lease->word);
        const uint64_t obstacles = __atomic_load_n(&gv_gate.obstacles, __ATOMIC_SEQ_CST);
        const int step = gv_lease_state(word) == GV_LEASE_STEP;
        const int granted =
            gv_may_launch(word) || (step && (!submits || may_step(used, submits, gv_lease_epoch(word))));
        if (granted && (obstacles & GV_ABSENT_MASK) == 0) {
            const uint32_t window_us = submits && (obstacles & GV_CAPTURE_MASK) == 0 ? gv_pacing_window(word) : 0;
            if (window_us != 0 && gv_pacing_full(thread, used)) {
                __atomic_store_n(&thread->in_launch, 0, __ATOMIC_RELEASE);
                gv_pacing_wait(thread, window_us);
                continue;
            }
            if ((submits && (obstacles & GV_IS_IDLE)) || waiting_since != 0)
                gv_activity_running(waiting_since);
            if (submits)
                gv_gate_mark(thread, used);
            else if (waiting_since != 0)
                still_idle();
            return (struct gv_submission){thread, CUDA_SUCCESS, window_us != 0};
        }
        __atomic_store_n(&thread->in_launch, 0, __ATOMIC_RELEASE);
        if (waiting_since == 0) {
            waiting_since = gv_now_ns();
            gv_activity_waiting(waiting_since);
        }
        const int saved = errno;
        if (gv_lease_state(word) == GV_LEASE_DRAIN)
            gv_drain_by_program();
        gv_session_poke(GV_POKE_WANT);
        if (granted)
            wait_for_change(seen); /* for memory: the control thread notifies */
        else
            gv_futex_wait(&gv_gate.lease->word, word, step ? STEP_LOOK_NS : WAIT_STEP_NS); /* the daemon wakes */
        errno = saved;
    }
}

void gv_gate_failed(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_INVALID_ADDRESS_SPACE:
    case CUDA_ERROR_INVALID_PC:
    case CUDA_ERROR_LAUNCH_FAILED:
        __atomic_store_n(&gv_gate.lost, 1, __ATOMIC_RELEASE);
        break;
    default:
        break;
    }
}

CUresult gv_gate_lost_context(void)
{
    if (!__atomic_load_n(&gv_gate.lost, __ATOMIC_RELAXED))
        return CUDA_SUCCESS;
    CUstreamCaptureStatus status;
    if (gv_anything_captures() && REAL(cuStreamIsCapturing)(CU_STREAM_LEGACY, &status) != CUDA_SUCCESS)
        return CUDA_SUCCESS; /* to ask it beside a blocking capture would spoil that; a call to come says what lasts */
    const CUresult result = REAL(cuStreamQuery)(CU_STREAM_LEGACY); /* never waits, and reports what lasts */
    return result == CUDA_ERROR_NOT_READY || result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT ? CUDA_SUCCESS : result;
}

void gv_gate_leave_beside_capture(const struct gv_thread *thread)
{
    if (thread->stream == CU_STREAM_PER_THREAD) /* nobody else can name it, and its context may not be synchronised */
        gv_marks_put(CU_STREAM_PER_THREAD);
}

int gv_gate_fence_now(void)
{
    if (gv_gate.full_fence)
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    else /* every running thread passes a full barrier: its in_launch is visible, or its next load sees the closed word */
        syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0);
    int inside = 0;
    pthread_mutex_lock(&registry_lock);
    for (struct gv_thread *thread = registry; thread != NULL; thread = thread->next)
        inside |= __atomic_load_n(&thread->in_launch, __ATOMIC_ACQUIRE) != 0;
    pthread_mutex_unlock(&registry_lock);
    return !inside;
}

/* --- proof of idleness -------------------------------------------------------------------------------------------------- */

void gv_activity_sync_begin(struct gv_activity_mark *mark)
{
    mark->count = 0;
    pthread_mutex_lock(&registry_lock);
    mark->ended = ended_at_work;
    for (struct gv_thread *thread = registry; thread != NULL && mark->count < GV_ACTIVITY_THREADS;
         thread = thread->next) {
        mark->threads[mark->count] = thread;
        const uint64_t submitted = __atomic_load_n(&thread->submitted, __ATOMIC_ACQUIRE);
        /* Counted before the driver has it: of a thread that is in its call nothing can be said. */
        const int inside = thread != gv_this_thread && __atomic_load_n(&thread->in_launch, __ATOMIC_ACQUIRE) != 0;
        mark->submitted[mark->count++] = submitted - (uint64_t)inside;
    }
    pthread_mutex_unlock(&registry_lock);
}

void gv_gate_stream_ends(CUstream stream)
{
    pthread_mutex_lock(&registry_lock);
    for (struct gv_thread *thread = registry; thread != NULL; thread = thread->next)
        if (thread->stream == stream && thread->submitted != thread->synced)
            thread->mixed = 1; /* the handle may come again, and says nothing then of what was given before */
    pthread_mutex_unlock(&registry_lock);
}

#define NO_STREAM ((CUstream) - 1) /* proves only what was proven before */

enum verdict {
    ALL_FINISHED, /* nothing that was given to the GPU is outstanding */
    UNPROVEN,     /* nothing was submitted meanwhile, but other streams may be at work */
    SUBMITTED,    /* somebody submitted meanwhile */
};

/* Does the stream that finished hold all that this thread gave since the last proof? */
static int is_its_stream(const struct gv_thread *thread, CUstream stream)
{
    if (thread->stream != stream)
        return 0;
    /* Handles that name different streams in different threads. */
    return stream != CU_STREAM_PER_THREAD || thread == gv_this_thread;
}

/* What follows when everything (`whole`), or all of one stream, had finished after the mark was taken. */
static enum verdict settle(const struct gv_activity_mark *mark, CUstream stream, int whole)
{
    enum verdict verdict = ALL_FINISHED;
    int index = 0;
    pthread_mutex_lock(&registry_lock);
    for (struct gv_thread *thread = registry; thread != NULL; thread = thread->next) {
        while (index < mark->count && mark->threads[index] != thread)
            index++; /* threads only leave the list or are put in front of it: the order is the same */
        const uint64_t now = __atomic_load_n(&thread->submitted, __ATOMIC_ACQUIRE);
        if (index == mark->count || now != mark->submitted[index]) {
            verdict = SUBMITTED;
            index = index == mark->count ? 0 : index;
        } else if (now != thread->synced && !whole && (thread->mixed || !is_its_stream(thread, stream))) {
            verdict = verdict == SUBMITTED ? SUBMITTED : UNPROVEN;
        } else {
            __atomic_store_n(&thread->synced, now, __ATOMIC_RELAXED);
            thread->mixed = 0; /* its thread may be setting it: then `submitted` has changed before the next look */
        }
    }
    if (mark->ended != ended_at_work) {
        verdict = SUBMITTED;
    } else if (whole) {
        ended_proven = ended_at_work;
        ended_own_stream = 0;
    } else if (ended_proven != ended_at_work && verdict == ALL_FINISHED) {
        verdict = UNPROVEN;
    }
    pthread_mutex_unlock(&registry_lock);
    return verdict;
}

void gv_activity_sync_end(const struct gv_activity_mark *mark, CUstream stream, int whole)
{
    if (gv_contexts_count() >
        1) { /* only one of them was looked at, and the default streams of all have the same names */
        whole = 0;
        stream = stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD ? NO_STREAM : stream;
    }
    enum verdict verdict = settle(mark, stream, whole);
    /* Asking every stream costs calls, so only while somebody waits for the GPU. */
    if (verdict == UNPROVEN && gv_lease_state(gv_load32(&gv_gate.lease->word)) == GV_LEASE_GRANTED &&
        gv_streams_finished())
        verdict = settle(mark, NULL, 1);
    if (verdict == ALL_FINISHED)
        gv_activity_idle();
}

/* A thread waited, but gave nothing to the GPU: as idle as before. */
static void still_idle(void)
{
    struct gv_activity_mark mark;
    gv_activity_sync_begin(&mark);
    if (settle(&mark, NO_STREAM, 0) == ALL_FINISHED)
        gv_activity_idle();
}

void gv_activity_drained(const struct gv_activity_mark *mark)
{
    if (settle(mark, NULL, 1) == ALL_FINISHED)
        gv_activity_quiet();
}

void gv_activity_look(void)
{
    struct gv_activity_mark mark;
    gv_activity_sync_begin(&mark);
    enum verdict verdict = settle(&mark, NO_STREAM, 0);
    if (verdict == UNPROVEN && gv_contexts_enter() == CUDA_SUCCESS && gv_streams_finished())
        verdict = settle(&mark, NULL, 1);
    if (verdict == ALL_FINISHED)
        gv_activity_idle();
}

void gv_gate_leave_synced(const struct gv_submission *submission, const struct gv_activity_mark *mark, int per_thread,
                          int waited)
{
    gv_gate_leave(submission);
    if (submission->thread != NULL && waited)
        gv_activity_sync_end(mark, per_thread ? CU_STREAM_PER_THREAD : NULL, 0);
}
