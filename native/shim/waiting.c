/* SPDX-License-Identifier: Apache-2.0
 *
 * The list of ranges that were freed in the order of a stream and wait for it.
 */
#include "waiting.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "memory.h"
#include "pool.h"
#include "real_driver.h"
#include "settled.h"
#include "streams.h"

enum { REUSE_DEPTH = 16, RECLAIM_DEPTH = 8, FOLLOW_DEPTH = 2 * REUSE_DEPTH };

/* A range that was freed on a stream and waits for it. */
struct waiting {
    struct gv_range *range;
    struct gv_order order; /* its context is the one that the event lives in */
    CUevent event;         /* NULL: waits until nothing captures, then for the context */
    struct gv_follow follow;
    int patient; /* not given back just because it is asked and has passed */
    struct waiting *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t put_down = PTHREAD_COND_INITIALIZER;
static struct waiting *oldest, **newest = &oldest; /* under lock */
static uint64_t records;                           /* of events, that were noted; under lock */
static uint32_t follows_none;                      /* events may be recorded where we do not see it */
static struct waiting *in_hand;                    /* taken out by threads that look at them now; under lock */

static struct gv_order order_of(CUstream stream, CUcontext context)
{
    return (struct gv_order){stream == CU_STREAM_LEGACY ? NULL : stream, context,
                             stream == CU_STREAM_PER_THREAD ? gv_streams_thread_number() : 0};
}

void gv_waiting_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&put_down, NULL);
    in_hand = NULL;
    oldest = NULL;
    newest = &oldest;
}

int gv_pool_anything_waits(void) { return __atomic_load_n(&oldest, __ATOMIC_RELAXED) != NULL; }
void gv_pool_follows_no_event(void) { __atomic_store_n(&follows_none, 1, __ATOMIC_RELEASE); }

static void append(struct waiting *entry)
{
    pthread_mutex_lock(&lock);
    *newest = entry;
    newest = &entry->next;
    pthread_mutex_unlock(&lock);
}

CUresult gv_pool_free_later(struct gv_range *range, CUstream stream, CUcontext context, int patient)
{
    struct waiting *entry = calloc(1, sizeof *entry);
    const CUstreamCaptureMode mode = gv_capture_relax();
    CUresult result =
        entry == NULL ? CUDA_ERROR_OUT_OF_MEMORY : REAL(cuEventCreate)(&entry->event, CU_EVENT_DISABLE_TIMING);
    if (result == CUDA_SUCCESS)
        result = REAL(cuEventRecord)(entry->event, stream);
    if (result != CUDA_SUCCESS && entry != NULL && entry->event != NULL)
        REAL(cuEventDestroy_v2)(entry->event);
    gv_capture_restore(mode);
    if (result != CUDA_SUCCESS) {
        free(entry);
        return result;
    }
    entry->range = range;
    entry->order = order_of(stream, context);
    entry->patient = patient;
    append(entry);
    return CUDA_SUCCESS;
}

int gv_pool_free_after_captures(struct gv_range *range)
{
    struct waiting *entry = calloc(1, sizeof *entry);
    if (entry == NULL)
        return -1;
    gv_pool_given(range); /* now: once it is in the list another thread may end it */
    entry->range = range;
    entry->order = (struct gv_order){GV_NO_STREAM, range->context, 0}; /* never reused without waiting */
    append(entry);
    return 0;
}

/* Has what the entry waits for passed? With `wait`, waits for it; a capture that is under way is never waited for. */
static int passed(const struct waiting *entry, int wait)
{
    if (entry->event == NULL)
        return gv_contexts_finish(entry->order.context) != CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    /* Any other answer than "not yet" ends the wait: a lost context never finishes, a dead stream has finished. */
    if (wait)
        REAL(cuEventSynchronize)(entry->event);
    return wait || REAL(cuEventQuery)(entry->event) != CUDA_ERROR_NOT_READY;
}

/* Under the lock: takes an entry out of the list. */
static struct waiting *unlink_entry(struct waiting **link)
{
    struct waiting *const entry = *link;
    *link = entry->next;
    if (newest == &entry->next)
        newest = link;
    return entry;
}

/* The oldest entry that may be asked, out of the list. With `wait`, when there is none, those in the hands of other threads count as given. */
static struct waiting *take_up(int wait, int *given)
{
    pthread_mutex_lock(&lock);
    while (wait && oldest == NULL && in_hand != NULL) {
        gv_wait_settled(&put_down, &lock, NULL);
        ++*given;
    }
    struct waiting **link = &oldest;
    while (*link != NULL && (*link)->patient && !wait)
        link = &(*link)->next;
    struct waiting *const entry = *link == NULL ? NULL : unlink_entry(link);
    if (entry != NULL) {
        entry->next = in_hand;
        in_hand = entry;
    }
    pthread_mutex_unlock(&lock);
    return entry;
}

/* Into the list again, when it must go on waiting. */
static void put_back(struct waiting *entry, int go_on)
{
    pthread_mutex_lock(&lock);
    struct waiting **link = &in_hand;
    while (*link != entry)
        link = &(*link)->next;
    *link = entry->next;
    if (go_on) {
        entry->next = oldest;
        if (oldest == NULL)
            newest = &entry->next;
        oldest = entry;
    }
    pthread_cond_broadcast(&put_down);
    pthread_mutex_unlock(&lock);
}

static int reclaim(int wait)
{
    int given = 0;
    for (int tries = 0; wait || tries < RECLAIM_DEPTH; tries++) {
        struct waiting *const entry = take_up(wait, &given);
        if (entry == NULL)
            break;
        const int done = passed(entry, wait);
        if (done) {
            if (entry->event != NULL)
                REAL(cuEventDestroy_v2)(entry->event);
            gv_memory_give(entry->range);
        }
        put_back(entry, !done);
        if (!done)
            break;
        free(entry);
        given++;
    }
    return given;
}

int gv_pool_reclaim(int wait)
{
    if (__atomic_load_n(&oldest, __ATOMIC_RELAXED) == NULL && !wait)
        return 0;
    /* Asking an event is forbidden to a program that captures, and would spoil its capture; not to us. */
    const CUstreamCaptureMode mode = gv_capture_relax();
    const int given = reclaim(wait);
    gv_capture_restore(mode);
    return given;
}

void gv_pool_program_waited(void)
{
    if (__atomic_load_n(&oldest, __ATOMIC_RELAXED) == NULL)
        return;
    pthread_mutex_lock(&lock);
    for (struct waiting *entry = oldest; entry != NULL; entry = entry->next)
        entry->patient = 0;
    pthread_mutex_unlock(&lock);
}

void gv_pool_stream_ends(CUstream stream)
{
    pthread_mutex_lock(&lock);
    struct waiting *const lists[] = {oldest, in_hand};
    for (int i = 0; i < 2; i++)
        for (struct waiting *entry = lists[i]; entry != NULL; entry = entry->next) {
            if (entry->order.stream == stream)
                entry->order.stream = GV_NO_STREAM;
            gv_follow_drop_stream(&entry->follow, stream);
        }
    pthread_mutex_unlock(&lock);
}

struct waiting *gv_pool_context_ends(CUcontext context)
{
    struct waiting *its = NULL;
    pthread_mutex_lock(&lock);
    while (in_hand != NULL) /* somebody may be asking an event of it */
        gv_wait_settled(&put_down, &lock, NULL);
    for (struct waiting **link = &oldest; *link != NULL;) {
        if ((*link)->order.context == context) {
            struct waiting *const entry = unlink_entry(link);
            entry->next = its;
            its = entry;
        } else {
            link = &(*link)->next;
        }
    }
    pthread_mutex_unlock(&lock);
    return its;
}

void gv_pool_context_ended(struct waiting *its, int gone)
{
    while (its != NULL) {
        struct waiting *const entry = its;
        its = entry->next;
        entry->next = NULL;
        if (gone) { /* the event went with it, and so did all work */
            gv_memory_give(entry->range);
            free(entry);
        } else {
            entry->follow = (struct gv_follow){.stream_count = 0}; /* it may be too far back to be looked at */
            append(entry);
        }
    }
}

struct gv_range *gv_pool_reuse_later(uint64_t bytes, CUstream stream)
{
    struct waiting *found = NULL;
    pthread_mutex_lock(&lock);
    for (struct waiting **link = &oldest; *link != NULL && found == NULL; link = &(*link)->next) {
        const struct waiting *const entry = *link;
        if (entry->event != NULL && entry->range->bytes >= bytes && entry->range->bytes / 2 <= bytes) {
            found = unlink_entry(link);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    if (found == NULL)
        return NULL;
    const CUstreamCaptureMode mode = gv_capture_relax();
    const CUresult result = REAL(cuStreamWaitEvent)(stream, found->event, 0);
    if (result == CUDA_SUCCESS)
        REAL(cuEventDestroy_v2)(found->event);
    gv_capture_restore(mode);
    if (result != CUDA_SUCCESS) {
        found->next = NULL;
        append(found);
        return NULL;
    }
    struct gv_range *const range = found->range;
    range->asked_bytes = bytes;
    free(found);
    return range;
}

struct gv_range *gv_pool_reuse(uint64_t bytes, CUstream stream, CUcontext context, int follow)
{
    const struct gv_order order = order_of(stream, context);
    struct waiting *found = NULL;
    pthread_mutex_lock(&lock);
    int depth = 0;
    for (struct waiting **link = &oldest; *link != NULL && depth < REUSE_DEPTH; link = &(*link)->next, depth++) {
        if ((*link)->range->asked_bytes == bytes && (*link)->event != NULL &&
            (gv_same_order((*link)->order, order) || (follow && gv_follow_has_stream(&(*link)->follow, order)))) {
            found = unlink_entry(link);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
    if (found == NULL)
        return NULL;
    struct gv_range *const range = found->range;
    const CUstreamCaptureMode mode = gv_capture_relax();
    REAL(cuEventDestroy_v2)(found->event);
    gv_capture_restore(mode);
    free(found);
    return range;
}

/* --- events behind frees (follow.h) --------------------------------------------------------------------------------------- */

void gv_pool_event_ends(CUevent event)
{
    if (!gv_pool_anything_waits() && __atomic_load_n(&in_hand, __ATOMIC_RELAXED) == NULL)
        return;
    pthread_mutex_lock(&lock);
    struct waiting *const lists[] = {oldest, in_hand};
    for (int i = 0; i < 2; i++) {
        int depth = 0;
        for (struct waiting *entry = lists[i]; entry != NULL && depth < FOLLOW_DEPTH; entry = entry->next, depth++) {
            if (event != NULL)
                gv_follow_drop_event(&entry->follow, event);
            else
                entry->follow.event_count = 0;
        }
    }
    pthread_mutex_unlock(&lock);
}

void gv_pool_event_recorded(CUevent event, CUstream stream)
{
    CUcontext context = NULL;
    if (__atomic_load_n(&follows_none, __ATOMIC_ACQUIRE) || gv_stream_captures(stream) ||
        REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS)
        return;
    const struct gv_order order = order_of(stream, context);
    int depth = 0;
    pthread_mutex_lock(&lock);
    records++;
    for (struct waiting *entry = oldest; entry != NULL && depth < REUSE_DEPTH; entry = entry->next, depth++)
        if (gv_same_order(entry->order, order) || gv_follow_has_stream(&entry->follow, order))
            gv_follow_add_event(&entry->follow, event, records);
    pthread_mutex_unlock(&lock);
}

uint64_t gv_pool_ticket(void)
{
    if (!gv_pool_anything_waits())
        return 0;
    pthread_mutex_lock(&lock);
    const uint64_t ticket = records;
    pthread_mutex_unlock(&lock);
    return ticket;
}

void gv_pool_event_waited(CUevent event, CUstream stream, uint64_t ticket)
{
    CUcontext context = NULL;
    if (gv_stream_captures(stream) || REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS)
        return;
    const struct gv_order order = order_of(stream, context);
    int depth = 0;
    pthread_mutex_lock(&lock);
    for (struct waiting *entry = oldest; entry != NULL && depth < REUSE_DEPTH; entry = entry->next, depth++)
        if (gv_follow_has_event(&entry->follow, event, ticket))
            gv_follow_add_stream(&entry->follow, order);
    pthread_mutex_unlock(&lock);
}
