/* SPDX-License-Identifier: Apache-2.0 */
#include "capture.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "gate.h"
#include "marks.h"
#include "settled.h"
#include "streams.h"
#include "waiting.h"

enum { BEGIN_WAITS_NS = 100 * 1000 * 1000 };

/* One capture, by the stream it began on. */
struct capture {
    CUstream stream;
    CUcontext context;
    uint64_t thread; /* of the per-thread default stream, else 0 */
    int active;      /* the driver has begun it; before that it belongs to the beginning thread */
    int over;        /* ended by another thread before `active` */
    struct capture *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed; /* of a monotonic clock: prepare() */
static pthread_once_t prepared = PTHREAD_ONCE_INIT;
static struct capture *captures; /* under lock */
static int held_off;             /* calls under way that a capture must not begin beside; under lock */
static int beginning;            /* a thread is between its marks and the driver's begin; under lock */

static void prepare(void)
{
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

int gv_anything_captures(void)
{
    return (__atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE) & GV_CAPTURE_MASK) != 0;
}

int gv_stream_captures(CUstream stream)
{
    if (!gv_anything_captures())
        return 0;
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    const CUresult result = REAL(cuStreamIsCapturing)(stream, &status);
    if (result == CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
        return 0; /* the legacy stream while another one captures: not captured itself */
    return result == CUDA_SUCCESS && status != CU_STREAM_CAPTURE_STATUS_NONE;
}

int gv_capture_hold_off(void)
{
    pthread_mutex_lock(&lock);
    const int free = !gv_anything_captures();
    held_off += free;
    pthread_mutex_unlock(&lock);
    return free;
}

void gv_capture_let_begin(void)
{
    pthread_once(&prepared, prepare);
    pthread_mutex_lock(&lock);
    if (--held_off == 0)
        pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

CUresult gv_capture_permits_unsafe(void)
{
    if (!gv_anything_captures())
        return CUDA_SUCCESS;
    const CUevent event = gv_marks_probe();
    return event == NULL ? CUDA_SUCCESS : REAL(cuEventQuery)(event); /* never recorded: done, if one may ask */
}

/* Under the lock. */
static void drop(struct capture **link)
{
    struct capture *const old = *link;
    *link = old->next;
    free(old);
    __atomic_fetch_sub(&gv_gate.obstacles, GV_CAPTURE_ONE, __ATOMIC_ACQ_REL);
}

static void drop_entry(const struct capture *entry)
{
    for (struct capture **link = &captures; *link != NULL; link = &(*link)->next) {
        if (*link == entry) {
            drop(link);
            return;
        }
    }
}

/* Under the lock. Once something captures, whoever holds off had looked before that, and waits in the driver for long. */
static int must_wait(void)
{
    if (beginning || held_off == 0)
        return beginning;
    const struct capture *capture = captures;
    while (capture != NULL && !capture->active)
        capture = capture->next;
    return capture == NULL;
}

/* One thread at a time goes from its marks to the driver's begin, and none beside a call that holds off. */
void gv_capture_take_turn(void)
{
    struct timespec limit;
    pthread_once(&prepared, prepare);
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_nsec += BEGIN_WAITS_NS;
    limit.tv_sec += limit.tv_nsec / 1000000000;
    limit.tv_nsec %= 1000000000;
    pthread_mutex_lock(&lock);
    while (must_wait() && gv_wait_settled(&changed, &lock, &limit) == 0)
        ;
    beginning++;
    pthread_mutex_unlock(&lock);
}

void gv_capture_give_turn(void)
{
    pthread_mutex_lock(&lock);
    beginning--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

struct begin_arguments {
    CUstream stream;
    CUgraph graph;
    const CUgraphNode *dependencies;
    const CUgraphEdgeData *edges;
    size_t count;
    CUstreamCaptureMode mode;
};

/* Counted before the driver knows, so that no launch of the capture meets the gate; taken back if the driver refuses. */
static CUresult counted(CUresult (*begin)(const struct begin_arguments *), CUstream default_stream,
                        const struct begin_arguments *arguments)
{
    const CUstream stream = arguments->stream == NULL ? default_stream : arguments->stream;
    struct capture *const entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    entry->stream = stream;
    entry->thread = stream == CU_STREAM_PER_THREAD ? gv_streams_thread_number() : 0;
    REAL(cuCtxGetCurrent)(&entry->context);
    pthread_mutex_lock(&lock);
    entry->next = captures;
    captures = entry;
    __atomic_fetch_add(&gv_gate.obstacles, GV_CAPTURE_ONE, __ATOMIC_ACQ_REL);
    pthread_mutex_unlock(&lock);
    gv_capture_take_turn();
    gv_marks_before_capture(stream);
    const CUresult result = begin(arguments);
    gv_capture_give_turn();
    pthread_mutex_lock(&lock);
    entry->active = 1;
    if (result != CUDA_SUCCESS || entry->over)
        drop_entry(entry);
    pthread_mutex_unlock(&lock);
    return result;
}

/* The capture on this stream is over when the driver says so: success, or not capturing any more after an error. */
static CUresult ended(CUresult result, CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    if (!gv_anything_captures())
        return result;
    if (result != CUDA_SUCCESS &&
        (REAL(cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE))
        return result;
    const uint64_t thread = stream == CU_STREAM_PER_THREAD ? gv_streams_thread_number() : 0;
    pthread_mutex_lock(&lock);
    for (struct capture **link = &captures; *link != NULL; link = &(*link)->next) {
        struct capture *const entry = *link;
        if (entry->stream != stream || entry->thread != thread || entry->over)
            continue;
        if (entry->active)
            drop(link);
        else if (result == CUDA_SUCCESS)
            entry->over = 1;
        else
            continue; /* one that is about to begin */
        break;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

void gv_capture_stream_ended(CUstream stream)
{
    if (!gv_anything_captures())
        return;
    pthread_mutex_lock(&lock);
    for (struct capture **link = &captures; *link != NULL;) {
        if ((*link)->stream == stream && (*link)->active)
            drop(link);
        else
            link = &(*link)->next;
    }
    pthread_mutex_unlock(&lock);
}

void gv_capture_context_ended(CUcontext context)
{
    if (!gv_anything_captures())
        return;
    pthread_mutex_lock(&lock);
    for (struct capture **link = &captures; *link != NULL;) {
        if ((*link)->context == context && (*link)->active)
            drop(link);
        else
            link = &(*link)->next;
    }
    pthread_mutex_unlock(&lock);
}

void gv_capture_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    prepare();
    captures = NULL; /* the gate's count goes with the gate */
    held_off = beginning = 0;
}

#define BEGIN(symbol, default_stream, parameters, call, ...)                                                           \
    static CUresult begin_##symbol(const struct begin_arguments *a) { return REAL(symbol) call; }                      \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        return counted(begin_##symbol, default_stream, &(struct begin_arguments){__VA_ARGS__});                        \
    }

#define BEGIN_BOTH(suffix, default_stream)                                                                             \
    BEGIN(cuStreamBeginCapture##suffix, default_stream, (CUstream hStream), (a->stream), .stream = hStream)            \
    BEGIN(cuStreamBeginCapture_v2##suffix, default_stream, (CUstream hStream, CUstreamCaptureMode mode),               \
          (a->stream, a->mode), .stream = hStream, .mode = mode)                                                       \
    BEGIN(cuStreamBeginCaptureToGraph##suffix, default_stream,                                                         \
          (CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies, const CUgraphEdgeData *dependencyData,   \
           size_t numDependencies, CUstreamCaptureMode mode),                                                          \
          (a->stream, a->graph, a->dependencies, a->edges, a->count, a->mode), hStream, hGraph, dependencies,          \
          dependencyData, numDependencies, mode)                                                                       \
    GV_EXPORT CUresult cuStreamEndCapture##suffix(CUstream hStream, CUgraph *phGraph)                                  \
    {                                                                                                                  \
        return ended(REAL(cuStreamEndCapture##suffix)(hStream, phGraph), hStream == NULL ? default_stream : hStream);  \
    }                                                                                                                  \
    /* The only way into a capture that another stream began. */                                                       \
    GV_EXPORT CUresult cuStreamWaitEvent##suffix(CUstream hStream, CUevent hEvent, unsigned int Flags)                 \
    {                                                                                                                  \
        const CUstream stream = hStream == NULL ? default_stream : hStream;                                            \
        const uint64_t ticket = gv_pool_ticket();                                                                      \
        const int may_join = gv_anything_captures() && !gv_stream_captures(stream);                                    \
        if (may_join) {                                                                                                \
            gv_capture_take_turn();                                                                                    \
            gv_marks_before_capture(stream);                                                                           \
        }                                                                                                              \
        const CUresult result = REAL(cuStreamWaitEvent##suffix)(hStream, hEvent, Flags);                               \
        if (may_join)                                                                                                  \
            gv_capture_give_turn();                                                                                    \
        if (ticket != 0 && result == CUDA_SUCCESS)                                                                     \
            gv_pool_event_waited(hEvent, stream, ticket);                                                              \
        return result;                                                                                                 \
    }

BEGIN_BOTH(, NULL)
BEGIN_BOTH(_ptsz, CU_STREAM_PER_THREAD)
