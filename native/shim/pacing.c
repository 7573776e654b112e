/* SPDX-License-Identifier: Apache-2.0 */
#include "pacing.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "log.h"
#include "real_driver.h"

enum {
    STREAMS_MAX = 16,   /* of one thread: the one that was not used for longest goes */
    FIRST_LAUNCHES = 8, /* make up W/2 until something is known */
    MOST_LAUNCHES = 64, /* between marks: the work may become longer */
    STALLED_LOOK = 16,  /* launches between looks at a mark that was waited for in vain */
    LOOKS = 8,          /* at a mark, in W/2 */
    LOOK_MIN_NS = 30 * 1000,
    LOOK_MAX_NS = 2 * 1000 * 1000,
    PATIENCE_MS = 1000,    /* kernels may be long */
    PATIENCE_SOON_MS = 20, /* the same when the program has work wait for its threads (drain.c) */
    GRAPHS = 256,
};

/* What is between two marks. */
struct stretch {
    uint64_t expected_ns; /* of GPU time */
    uint32_t launches;
    CUgraphExec graph; /* the first one, or NULL */
};

/* A stream as one thread uses it. */
struct gv_paced {
    CUstream stream;
    CUcontext context; /* of the stream; NULL once that has ended; atomic */
    CUevent events[2];
    struct stretch stretches[2]; /* before the marks */
    uint32_t oldest, outstanding;
    struct stretch now; /* since the youngest mark */
    uint64_t launch_ns; /* GPU time of one launch, as far as is known */
    uint32_t epoch;     /* the turn in which it was used last: what was given in another one has ended */
    uint64_t
        passed_at;    /* in this turn: the last mark that was waited for passed then, or the turn began; 0: not known */
    uint32_t stalled; /* the oldest mark was waited for in vain */
    struct gv_paced *next; /* of the thread, the last used first; or of nobody */
    struct gv_paced *next_of_all;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct gv_paced *all;  /* never freed; under lock */
static struct gv_paced *idle; /* of threads that ended; under lock */

/* Expected GPU time of executable graphs. Entries of different graphs may meet: these are estimates. Any thread. */
static struct {
    CUgraphExec graph;
    uint64_t cost_ns;
} graphs[GRAPHS];

static uint64_t *cost_of(CUgraphExec graph, uint64_t first_guess)
{
    const uint64_t hash = (uint64_t)(uintptr_t)graph * 0x9e3779b97f4a7c15ull;
    const unsigned place = (unsigned)(hash >> 56) % GRAPHS;
    if (__atomic_load_n(&graphs[place].graph, __ATOMIC_RELAXED) != graph) {
        __atomic_store_n(&graphs[place].graph, graph, __ATOMIC_RELAXED);
        __atomic_store_n(&graphs[place].cost_ns, first_guess, __ATOMIC_RELAXED);
    }
    return &graphs[place].cost_ns;
}

static uint64_t half_ns(uint32_t window_us) { return (uint64_t)window_us * 500; }

/* --- what the marks say --------------------------------------------------------------------------------------------------- */

/* More is believed at once, less by and by: too much in flight is what others suffer from. */
static uint64_t learned(uint64_t known, uint64_t seen) { return seen > known ? seen : known - (known - seen) / 4; }

/* The launches before the mark took so long. */
static void learn(struct gv_paced *paced, const struct stretch *before, uint64_t took)
{
    const double error = (double)took / (double)before->expected_ns; /* it always holds something */
    if (before->launches != 0)
        paced->launch_ns = learned(paced->launch_ns, (uint64_t)((double)paced->launch_ns * error));
    if (before->graph != NULL) {
        uint64_t *const cost = cost_of(before->graph, took);
        const uint64_t known = __atomic_load_n(cost, __ATOMIC_RELAXED);
        __atomic_store_n(cost, learned(known, (uint64_t)((double)known * error)), __ATOMIC_RELAXED);
    }
}

static void passed(struct gv_paced *paced)
{
    paced->oldest ^= 1;
    paced->outstanding--;
    paced->stalled = 0;
}

/* It had passed before anybody looked: the GPU takes less than what is expected, or the program is slower than that. */
static void passed_unseen(struct gv_paced *paced)
{
    const struct stretch *const before = &paced->stretches[paced->oldest];
    learn(paced, before, before->expected_ns / 4);
    paced->passed_at = 0;
    passed(paced);
}

/* Between two turns all work ended, without having been looked at: that says nothing about how long it takes. */
static void begin_turn(struct gv_paced *paced, uint32_t epoch)
{
    paced->epoch = epoch;
    paced->oldest = paced->outstanding = paced->stalled = 0;
    paced->now = (struct stretch){0};
    paced->passed_at = gv_now_ns();
}

static uint32_t this_epoch(void) { return gv_lease_epoch(gv_load32(&gv_gate.lease->word)); }

/* --- streams of a thread -------------------------------------------------------------------------------------------------- */

static int is_default(CUstream stream)
{
    return stream == NULL || stream == CU_STREAM_LEGACY || stream == CU_STREAM_PER_THREAD;
}

/* The context that the work of a stream goes to. */
static CUcontext context_of(CUstream stream)
{
    CUcontext context = NULL;
    if (is_default(stream) ? REAL(cuCtxGetCurrent)(&context) : REAL(cuStreamGetCtx)(stream, &context))
        return NULL;
    return context;
}

/* The thread's record of the stream, put in front; NULL if there is none. */
static struct gv_paced *find(struct gv_thread *thread, CUstream stream)
{
    /* The default streams of all contexts have the same names. */
    const CUcontext current = is_default(stream) && gv_contexts_count() > 1 ? context_of(stream) : NULL;
    for (struct gv_paced **link = &thread->paced; *link != NULL; link = &(*link)->next) {
        struct gv_paced *const paced = *link;
        const CUcontext context = __atomic_load_n(&paced->context, __ATOMIC_ACQUIRE);
        if (paced->stream != stream || context == NULL || (current != NULL && context != current))
            continue;
        *link = paced->next;
        paced->next = thread->paced;
        thread->paced = paced;
        return paced;
    }
    return NULL;
}

/* Takes the last of a list if it has the context, or one that has ended. */
static struct gv_paced *take(struct gv_paced **list, CUcontext context)
{
    for (; *list != NULL; list = &(*list)->next) {
        struct gv_paced *const paced = *list;
        const CUcontext its = __atomic_load_n(&paced->context, __ATOMIC_ACQUIRE);
        if (its == NULL || its == context) {
            *list = paced->next;
            return paced;
        }
    }
    return NULL;
}

static int create_events(struct gv_paced *paced)
{
    const unsigned flags = CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC;
    if (REAL(cuEventCreate)(&paced->events[0], flags) != CUDA_SUCCESS)
        return 0;
    if (REAL(cuEventCreate)(&paced->events[1], flags) == CUDA_SUCCESS)
        return 1;
    REAL(cuEventDestroy_v2)(paced->events[0]);
    return 0;
}

/* A record for the stream, with events; NULL: it has no marks then. */
static struct gv_paced *add(struct gv_thread *thread, CUstream stream, uint32_t window_us)
{
    CUcontext current = NULL;
    const CUcontext context = context_of(stream);
    if (context == NULL || REAL(cuCtxGetCurrent)(&current) != CUDA_SUCCESS || current != context)
        return NULL; /* of a green context, or the program's own context is elsewhere now */
    int count = 0;
    struct gv_paced **last = &thread->paced;
    for (struct gv_paced **link = last; *link != NULL; link = &(*link)->next, count++)
        last = link;
    struct gv_paced *paced = NULL;
    if (count >= STREAMS_MAX) { /* the one that was not used for longest */
        paced = *last;
        *last = NULL;
    } else {
        pthread_mutex_lock(&lock);
        paced = take(&idle, context);
        if (paced == NULL && (paced = calloc(1, sizeof *paced)) != NULL) {
            paced->next_of_all = all;
            all = paced;
        }
        pthread_mutex_unlock(&lock);
    }
    if (paced == NULL)
        return NULL;
    const CUcontext had = __atomic_load_n(&paced->context, __ATOMIC_ACQUIRE);
    int there = had == context;
    if (had != NULL && had != context) { /* an event may be destroyed from any context */
        REAL(cuEventDestroy_v2)(paced->events[0]);
        REAL(cuEventDestroy_v2)(paced->events[1]);
    }
    there = there || create_events(paced);
    paced->stream = stream;
    paced->launch_ns = half_ns(window_us) / FIRST_LAUNCHES;
    begin_turn(paced, this_epoch());
    paced->next = thread->paced;
    thread->paced = paced;
    __atomic_store_n(&paced->context, there ? context : NULL, __ATOMIC_RELEASE);
    return there ? paced : NULL;
}

/* --- the launching thread ------------------------------------------------------------------------------------------------- */

/* Whatever the driver says but NOT_READY: an error is not ours to wait for. */
static int has_passed(const struct gv_paced *paced)
{
    return REAL(cuEventQuery)(paced->events[paced->oldest]) != CUDA_ERROR_NOT_READY;
}

int gv_pacing_full(struct gv_thread *thread, CUstream stream)
{
    struct gv_paced *const paced = find(thread, stream);
    if (paced == NULL || paced->outstanding < 2)
        return 0;
    if (paced->epoch != this_epoch()) {
        begin_turn(paced, this_epoch());
        return 0;
    }
    if (paced->stalled && paced->now.launches % STALLED_LOOK != 0)
        return 0;
    const CUstreamCaptureMode mode = gv_capture_relax();
    const int free = has_passed(paced);
    gv_capture_restore(mode);
    if (free)
        passed_unseen(paced);
    return !free && !paced->stalled;
}

void gv_pacing_wait(struct gv_thread *thread, uint32_t window_us)
{
    struct gv_paced *const paced = thread->paced; /* the one that was found full */
    const int soon = __atomic_load_n(&gv_gate.may_wait, __ATOMIC_RELAXED) != 0;
    const uint64_t began = gv_now_ns(), limit = began + (soon ? PATIENCE_SOON_MS : PATIENCE_MS) * 1000000ull;
    uint64_t look_ns = half_ns(window_us) / LOOKS;
    look_ns = look_ns < LOOK_MIN_NS ? LOOK_MIN_NS : look_ns > LOOK_MAX_NS ? LOOK_MAX_NS : look_ns;
    const int saved = errno;
    const CUstreamCaptureMode mode = gv_capture_relax();
    /*
     * Not a look before half of what it should take is over: a thread that wakes is noise on the program's processors. Not
     * later: what is expected is rather too much (learned), and a GPU that runs out of work is worse.
     */
    const uint64_t due = paced->passed_at + paced->stretches[paced->oldest].expected_ns / 2;
    uint64_t now = 0, pause_ns = paced->passed_at != 0 && due > began + look_ns ? due - began : look_ns;
    pause_ns = pause_ns > half_ns(window_us) ? half_ns(window_us) : pause_ns;
    int free = 0;
    do {
        nanosleep(&(struct timespec){(time_t)(pause_ns / 1000000000u), (long)(pause_ns % 1000000000u)}, NULL);
        free = has_passed(paced);
        now = gv_now_ns();
        pause_ns = look_ns;
    } while (!free && now < limit);
    gv_capture_restore(mode);
    errno = saved;
    if (!free) {
        paced->stalled = 1;
        paced->passed_at = 0;
        gv_debug("a mark does not pass: what is before it may wait for this thread, which goes on");
        return;
    }
    if (paced->epoch != this_epoch())
        return; /* the turn ended meanwhile */
    /* Between two marks that were both waited for the GPU was at work all the time. */
    if (paced->passed_at != 0)
        learn(paced, &paced->stretches[paced->oldest], now - paced->passed_at);
    paced->passed_at = now;
    passed(paced);
}

static void count(struct gv_paced *paced, CUgraphExec graph, uint64_t half)
{
    struct stretch *const now = &paced->now;
    if (graph == NULL) {
        const uint64_t least = half / MOST_LAUNCHES;
        if (paced->launch_ns < least)
            paced->launch_ns = least;
        now->launches++;
        now->expected_ns += paced->launch_ns;
        return;
    }
    uint64_t *const place = cost_of(graph, half);
    uint64_t cost = __atomic_load_n(place, __ATOMIC_RELAXED);
    if (cost < half / MOST_LAUNCHES)
        __atomic_store_n(place, cost = half / MOST_LAUNCHES, __ATOMIC_RELAXED);
    now->expected_ns += cost;
    if (now->graph == NULL) /* of several the first one learns for all: another stretch begins with another one */
        now->graph = graph;
}

void gv_pacing_gave(struct gv_thread *thread)
{
    const uint32_t window_us = __atomic_load_n(&gv_gate.lease->window_us, __ATOMIC_RELAXED);
    const CUgraphExec graph = thread->graph;
    thread->graph = NULL;
    if (window_us == 0)
        return; /* the others have gone */
    struct gv_paced *paced = find(thread, thread->stream);
    CUstreamCaptureMode mode;
    if (paced == NULL) {
        mode = gv_capture_relax();
        paced = add(thread, thread->stream, window_us);
        gv_capture_restore(mode);
    }
    if (paced == NULL)
        return;
    if (paced->epoch != this_epoch())
        begin_turn(paced, this_epoch());
    count(paced, graph, half_ns(window_us));
    if (paced->now.expected_ns < half_ns(window_us) || paced->outstanding == 2)
        return;
    const uint32_t place = (paced->oldest + paced->outstanding) & 1;
    mode = gv_capture_relax();
    const CUresult result = REAL(cuEventRecord)(paced->events[place], paced->stream);
    gv_capture_restore(mode);
    if (result == CUDA_SUCCESS) {
        paced->stretches[place] = paced->now;
        paced->outstanding++;
    }
    paced->now = (struct stretch){0};
}

/* --- ends ----------------------------------------------------------------------------------------------------------------- */

void gv_pacing_thread_ends(struct gv_thread *thread)
{
    struct gv_paced **link = &thread->paced;
    while (*link != NULL)
        link = &(*link)->next;
    pthread_mutex_lock(&lock);
    *link = idle;
    idle = thread->paced;
    pthread_mutex_unlock(&lock);
    thread->paced = NULL;
}

void gv_pacing_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (struct gv_paced *paced = all; paced != NULL; paced = paced->next_of_all)
        if (__atomic_load_n(&paced->context, __ATOMIC_ACQUIRE) == context)
            __atomic_store_n(&paced->context, NULL, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}

void gv_pacing_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    all = idle = NULL; /* the parent's leak, as its threads' records do */
}
