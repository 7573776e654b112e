/* SPDX-License-Identifier: Apache-2.0 */
#include "contexts.h"

#include <pthread.h>
#include <string.h>

#include "capture.h"
#include "fixed.h"
#include "gate.h"
#include "graph_memory.h"
#include "host_memory.h"
#include "ipc.h"
#include "log.h"
#include "marks.h"
#include "memory.h"
#include "page_hash.h"
#include "pool.h"
#include "pool_native.h"
#include "real_driver.h"
#include "session.h"
#include "settled.h"
#include "streams.h"

struct known {
    CUcontext context;
    CUstream stream; /* of ours in it, or NULL; control thread */
    int uses;        /* cuCtxAttach adds one, cuCtxDetach takes one: the last ends it */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct known known[CONTEXTS_MAX]; /* under lock */
static int known_count;                  /* under lock */
static int ending;                       /* contexts that the driver is destroying or releasing now; under lock */
static CUcontext held[2]; /* the control thread uses it, and the one that drains: nobody may destroy it; under lock */
static __thread int seat;
static int lodging; /* the primary context is there for our sake alone; set under lock */

static struct known *find(CUcontext context)
{
    for (int i = 0; i < known_count; i++)
        if (known[i].context == context)
            return &known[i];
    return NULL;
}

int gv_contexts_add(CUcontext context)
{
    pthread_mutex_lock(&lock);
    const int fits = find(context) != NULL || known_count < CONTEXTS_MAX;
    if (fits && find(context) == NULL)
        known[known_count++] = (struct known){context, NULL, 1};
    pthread_mutex_unlock(&lock);
    return fits ? 0 : -1;
}

void gv_contexts_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&changed, NULL);
    known_count = 0;
    ending = 0;
    lodging = 0;
    held[0] = held[1] = NULL;
}

int gv_contexts_count(void) { return __atomic_load_n(&known_count, __ATOMIC_RELAXED); }

int gv_contexts_only_current(void)
{
    CUcontext current = NULL;
    if (REAL(cuCtxGetCurrent)(&current) != CUDA_SUCCESS || current == NULL)
        return 0;
    pthread_mutex_lock(&lock);
    const int only = known_count == 1 && ending == 0 && known[0].context == current;
    pthread_mutex_unlock(&lock);
    return only;
}

CUresult gv_contexts_check(CUcontext context)
{
    pthread_mutex_lock(&lock);
    const int lives = find(context) != NULL;
    pthread_mutex_unlock(&lock);
    /* A green context's is not among ours; a destroyed one that is still current has its error from the driver. */
    CUstreamCaptureStatus status; /* asking for it disturbs no capture */
    return !lives && REAL(cuStreamIsCapturing)(CU_STREAM_LEGACY, &status) == CUDA_ERROR_CONTEXT_IS_DESTROYED
               ? CUDA_ERROR_CONTEXT_IS_DESTROYED
               : CUDA_SUCCESS;
}

/* The contexts of now. One that is ending may turn out to live on (others have retained it), so that is waited for. */
static int copy_known(CUcontext contexts[CONTEXTS_MAX])
{
    pthread_mutex_lock(&lock);
    while (ending != 0)
        gv_wait_settled(&changed, &lock, NULL);
    for (int i = 0; i < known_count; i++)
        contexts[i] = known[i].context;
    const int count = known_count;
    pthread_mutex_unlock(&lock);
    return count;
}

void gv_contexts_second_seat(void) { seat = 1; }

void gv_contexts_leave(void)
{
    pthread_mutex_lock(&lock);
    held[seat] = NULL;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

/* Control thread, or the one that drains: current and held, unless it is gone. */
static int hold(CUcontext context)
{
    pthread_mutex_lock(&lock);
    held[seat] = NULL;
    pthread_cond_broadcast(&changed);
    while (ending != 0)
        gv_wait_settled(&changed, &lock, NULL);
    const int there = find(context) != NULL;
    held[seat] = there ? context : NULL;
    pthread_mutex_unlock(&lock);
    if (!there || REAL(cuCtxSetCurrent)(context) != CUDA_SUCCESS)
        return 0;
    gv_capture_relax(); /* for good: our calls must be legal while some stream of the program captures */
    return 1;
}

CUresult gv_contexts_enter(void)
{
    CUcontext contexts[CONTEXTS_MAX];
    gv_contexts_leave(); /* who destroys what we hold is waited for below */
    const int count = copy_known(contexts);
    /* One that works, if there is one: in a context with a sticky error no copy is possible. */
    for (int any = 0; any < 2; any++) {
        for (int i = 0; i < count; i++) {
            if (!hold(contexts[i]) || (!any && gv_gate_lost_context() != CUDA_SUCCESS))
                continue;
            return CUDA_SUCCESS;
        }
    }
    gv_contexts_leave();
    return CUDA_ERROR_INVALID_CONTEXT;
}

/* Memory outlives contexts (cuMemCreate, pools): a program that has ended its last one must still make room for others. */
static void lodge(void)
{
    CUcontext context = NULL;
    if (REAL(cuDevicePrimaryCtxRetain)(&context, gv_session.device) != CUDA_SUCCESS)
        return;
    pthread_mutex_lock(&lock);
    const int needed = known_count == 0;
    if (needed) {
        known[known_count++] = (struct known){context, NULL, 1};
        __atomic_store_n(&lodging, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
    if (!needed) /* the program has been quicker */
        REAL(cuDevicePrimaryCtxRelease_v2)(gv_session.device);
}

CUresult gv_contexts_enter_any(void)
{
    const CUresult result = gv_contexts_enter();
    if (result == CUDA_SUCCESS || gv_contexts_count() != 0)
        return result;
    lodge();
    return gv_contexts_enter();
}

CUstream gv_contexts_stream(void)
{
    CUstream stream = NULL;
    pthread_mutex_lock(&lock);
    struct known *place = find(held[seat]);
    if (place != NULL)
        stream = place->stream;
    pthread_mutex_unlock(&lock);
    /* Never the legacy stream nor one that synchronises with it: a copy of ours must not wait for the program's work. */
    if (stream != NULL || REAL(cuStreamCreate)(&stream, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS)
        return stream;
    pthread_mutex_lock(&lock);
    if ((place = find(held[seat])) != NULL)
        place->stream = stream;
    pthread_mutex_unlock(&lock);
    return stream;
}

CUresult gv_contexts_drain(void)
{
    CUcontext contexts[CONTEXTS_MAX];
    gv_contexts_leave();
    const int count = copy_known(contexts);
    CUresult worst = CUDA_SUCCESS;
    for (int i = 0; i < count; i++) {
        if (!hold(contexts[i]))
            continue;
        const int alone = gv_capture_hold_off();
        CUresult result = alone ? REAL(cuCtxSynchronize)() : gv_streams_drain(contexts[i]);
        if (alone)
            gv_capture_let_begin();
        if (alone && result == CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED) /* one that we did not see begin */
            result = gv_streams_drain(contexts[i]);
        if (result != CUDA_SUCCESS)
            worst = result;
    }
    gv_contexts_leave();
    return worst;
}

CUresult gv_contexts_finish(CUcontext owner)
{
    CUcontext current = NULL;
    CUresult result = REAL(cuCtxGetCurrent)(&current);
    if (result != CUDA_SUCCESS || current == NULL)
        return result != CUDA_SUCCESS ? result : CUDA_ERROR_INVALID_CONTEXT;
    if (!gv_capture_hold_off())
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    const int other = current != owner && owner != NULL && REAL(cuCtxPushCurrent_v2)(owner) == CUDA_SUCCESS;
    result = REAL(cuCtxSynchronize)();
    gv_capture_let_begin();
    if (other)
        REAL(cuCtxPopCurrent_v2)(&owner);
    return result;
}

struct waiting *gv_contexts_begin_end(CUcontext context)
{
    pthread_mutex_lock(&lock);
    ending++;
    while (context != NULL && (held[0] == context || held[1] == context)) /* nothing is held by nobody */
        gv_wait_settled(&changed, &lock, NULL);
    pthread_mutex_unlock(&lock);
    return gv_pool_context_ends(context);
}

void gv_contexts_end_end(CUcontext context, struct waiting *waiting, int gone, int lives)
{
    gv_pool_context_ended(waiting, gone);
    if (gone) {
        gv_streams_context_ended(context);
        gv_marks_context_ended(context);
        gv_page_hash_context_ended(context);
        gv_capture_context_ended(context);
        gv_memory_give_context(context);
        gv_imports_context_ended(context);
        gv_fixed_context_ended(context);
        gv_graph_memory_look();
        gv_pool_natives_context_ended();
        gv_host_memory_context_ended(context);
        __atomic_store_n(&gv_gate.lost, 0, __ATOMIC_RELAXED);
    }
    pthread_mutex_lock(&lock);
    struct known *const place = find(context);
    if (place != NULL && gone)
        place->stream = NULL; /* it went along */
    if (place != NULL && !lives)
        *place = known[--known_count];
    ending--;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void gv_contexts_attached(CUcontext context)
{
    pthread_mutex_lock(&lock);
    struct known *const place = find(context);
    if (place != NULL)
        place->uses++;
    pthread_mutex_unlock(&lock);
}

int gv_contexts_detached(CUcontext context)
{
    pthread_mutex_lock(&lock);
    struct known *const place = find(context);
    const int last = place != NULL && --place->uses == 0;
    pthread_mutex_unlock(&lock);
    return last;
}

int gv_contexts_move_out(void)
{
    return __atomic_load_n(&lodging, __ATOMIC_ACQUIRE) && __atomic_exchange_n(&lodging, 0, __ATOMIC_ACQ_REL);
}
