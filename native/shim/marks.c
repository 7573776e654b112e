/* SPDX-License-Identifier: Apache-2.0 */
#include "marks.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "streams.h"

#define NO_STREAM ((CUstream) - 1) /* its stream is destroyed: to be used again once it has passed */
#define PROBE ((CUstream) - 2)     /* never recorded */

struct mark {
    CUstream stream;
    uint64_t thread; /* of the per-thread default stream, else 0 */
    CUcontext context;
    CUevent event;
    int claimed; /* a thread that looks for one to use again asks it now */
    struct mark *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mark *marks; /* under lock */

static uint64_t thread_of(CUstream stream) { return stream == CU_STREAM_PER_THREAD ? gv_streams_thread_number() : 0; }

/* Under the lock. */
static struct mark *find(CUstream stream, uint64_t thread, CUcontext context)
{
    struct mark *mark = marks;
    while (mark != NULL && !(mark->stream == stream && mark->thread == thread && mark->context == context))
        mark = mark->next;
    return mark;
}

static struct mark *new_mark(CUstream stream, uint64_t thread, CUcontext context)
{
    CUevent event = NULL;
    if (REAL(cuEventCreate)(&event, CU_EVENT_DISABLE_TIMING | CU_EVENT_BLOCKING_SYNC) != CUDA_SUCCESS)
        return NULL;
    pthread_mutex_lock(&lock);
    struct mark *mark = find(NULL, 0, NULL); /* of a context that is gone */
    if (mark == NULL && (mark = calloc(1, sizeof *mark)) != NULL) {
        mark->next = marks;
        marks = mark;
    }
    if (mark != NULL) {
        mark->stream = stream;
        mark->thread = thread;
        mark->context = context;
        mark->event = event;
    }
    pthread_mutex_unlock(&lock);
    if (mark == NULL)
        REAL(cuEventDestroy_v2)(event);
    return mark;
}

/* One of a destroyed stream whose work has finished, now for another stream. */
static struct mark *used_again(CUstream stream, uint64_t thread, CUcontext context)
{
    pthread_mutex_lock(&lock);
    struct mark *const mark = find(NO_STREAM, 0, context);
    const int mine = mark != NULL && !mark->claimed;
    if (mine)
        mark->claimed = 1;
    pthread_mutex_unlock(&lock);
    if (!mine)
        return NULL;
    const int passed = REAL(cuEventQuery)(mark->event) == CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    mark->claimed = 0;
    if (passed) {
        mark->stream = stream;
        mark->thread = thread;
    }
    pthread_mutex_unlock(&lock);
    return passed ? mark : NULL;
}

static struct mark *mark_of(CUstream stream)
{
    CUcontext context = NULL;
    const uint64_t thread = thread_of(stream);
    if (REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS || context == NULL)
        return NULL;
    pthread_mutex_lock(&lock);
    struct mark *mark = find(stream, thread, context);
    pthread_mutex_unlock(&lock);
    if (mark == NULL && stream != PROBE)
        mark = used_again(stream, thread, context);
    return mark != NULL ? mark : new_mark(stream, thread, context);
}

CUresult gv_marks_put(CUstream stream)
{
    const CUstreamCaptureMode mode = gv_capture_relax();
    const struct mark *const mark = mark_of(stream);
    const CUresult result = mark == NULL ? CUDA_ERROR_OUT_OF_MEMORY : REAL(cuEventRecord)(mark->event, stream);
    gv_capture_restore(mode);
    return result;
}

CUevent gv_marks_probe(void)
{
    const struct mark *const mark = mark_of(PROBE);
    return mark != NULL ? mark->event : NULL;
}

static int may_use(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    return REAL(cuStreamIsCapturing)(stream, &status) == CUDA_SUCCESS && status == CU_STREAM_CAPTURE_STATUS_NONE;
}

CUresult gv_marks_put_if_free(CUstream stream) { return may_use(stream) ? gv_marks_put(stream) : CUDA_SUCCESS; }

void gv_marks_before_capture(CUstream stream)
{
    unsigned int flags = 0;
    if (stream == NULL || stream == CU_STREAM_LEGACY || !may_use(stream))
        return; /* cannot capture, or does already */
    gv_marks_put(stream);
    /* The legacy stream comes after all blocking ones, those of other threads included. */
    if (REAL(cuStreamGetFlags)(stream, &flags) == CUDA_SUCCESS && !(flags & CU_STREAM_NON_BLOCKING))
        gv_marks_put_if_free(CU_STREAM_LEGACY);
}

void gv_marks_stream_ends(CUstream stream)
{
    CUcontext context = gv_streams_context_of(stream), current = NULL;
    if (context == NULL)
        return; /* the driver says what is wrong with it */
    REAL(cuCtxGetCurrent)(&current);
    if (current != context && REAL(cuCtxPushCurrent_v2)(context) != CUDA_SUCCESS)
        return;
    if (may_use(stream)) {
        const CUstreamCaptureMode mode = gv_capture_relax();
        const int busy = REAL(cuStreamQuery)(stream) == CUDA_ERROR_NOT_READY;
        gv_capture_restore(mode);
        if (busy)
            gv_marks_put(stream);
    }
    if (current != context)
        REAL(cuCtxPopCurrent_v2)(&current);
    pthread_mutex_lock(&lock);
    struct mark *const mark = find(stream, 0, context);
    if (mark != NULL)
        mark->stream = NO_STREAM;
    pthread_mutex_unlock(&lock);
}

CUresult gv_marks_wait(CUcontext context)
{
    CUresult worst = CUDA_SUCCESS;
    pthread_mutex_lock(&lock);
    struct mark *mark = marks;
    pthread_mutex_unlock(&lock);
    /* Without the lock: new ones are put in front, and the context is held, so that none of it is freed. */
    for (; mark != NULL; mark = mark->next) {
        const CUresult result = mark->context == context ? REAL(cuEventSynchronize)(mark->event) : CUDA_SUCCESS;
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_INVALID_HANDLE)
            worst = result;
    }
    return worst;
}

int gv_marks_passed(void)
{
    CUcontext context = NULL;
    if (REAL(cuCtxGetCurrent)(&context) != CUDA_SUCCESS || context == NULL)
        return 0;
    pthread_mutex_lock(&lock);
    struct mark *mark = marks;
    pthread_mutex_unlock(&lock);
    while (mark != NULL && (mark->context != context || REAL(cuEventQuery)(mark->event) != CUDA_ERROR_NOT_READY))
        mark = mark->next;
    return mark == NULL;
}

void gv_marks_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    for (struct mark *mark = marks; mark != NULL; mark = mark->next)
        if (mark->context == context) { /* stays in the list: somebody may be walking it */
            mark->stream = NULL;
            mark->thread = 0;
            mark->context = NULL;
        }
    pthread_mutex_unlock(&lock);
}

void gv_marks_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    marks = NULL;
}
