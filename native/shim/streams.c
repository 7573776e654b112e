/* SPDX-License-Identifier: Apache-2.0 */
#include "streams.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "capture.h"
#include "contexts.h"
#include "gate.h"
#include "marks.h"
#include "pacing.h"
#include "pool.h"
#include "real_driver.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
struct stream {
    CUstream handle;
    CUcontext context;
};
static struct stream *streams; /* under lock */
static size_t count, room;

static CUresult created(CUresult result, const CUstream *stream)
{
    if (result != CUDA_SUCCESS)
        return result;
    CUcontext context = NULL;
    REAL(cuCtxGetCurrent)(&context);
    pthread_mutex_lock(&lock);
    if (count == room) {
        const size_t larger = room == 0 ? 64 : room * 2;
        struct stream *grown = realloc(streams, larger * sizeof *streams);
        if (grown != NULL) {
            streams = grown;
            room = larger;
        }
    }
    if (count < room)
        streams[count++] = (struct stream){*stream, context};
    pthread_mutex_unlock(&lock);
    return result;
}

/* Before the driver does: the handle may come again for another stream. */
static void ends(CUstream stream)
{
    gv_pool_stream_ends(stream);
    gv_marks_stream_ends(stream);
    gv_gate_stream_ends(stream);
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++) {
        if (streams[i].handle == stream) {
            streams[i] = streams[--count];
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

GV_EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return created(REAL(cuStreamCreate)(phStream, Flags), phStream);
}

GV_EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    return created(REAL(cuStreamCreateWithPriority)(phStream, flags, priority), phStream);
}

GV_EXPORT CUresult cuGreenCtxStreamCreate(CUstream *phStream, CUgreenCtx greenCtx, unsigned int flags, int priority)
{
    return created(REAL(cuGreenCtxStreamCreate)(phStream, greenCtx, flags, priority), phStream);
}

static CUresult destroyed(CUresult (*destroy)(CUstream), CUstream stream)
{
    ends(stream);
    const CUresult result = destroy(stream);
    if (result == CUDA_SUCCESS)
        gv_capture_stream_ended(stream);
    return result;
}

GV_EXPORT CUresult cuStreamDestroy(CUstream hStream) { return destroyed(REAL(cuStreamDestroy), hStream); }
GV_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream) { return destroyed(REAL(cuStreamDestroy_v2), hStream); }

void gv_streams_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (streams[i].context != context)
            streams[kept++] = streams[i];
    count = kept;
    pthread_mutex_unlock(&lock);
    gv_pacing_context_ended(context);
}

/* The streams of now, to be freed by the caller; NULL when there is no memory. */
static struct stream *copy_streams(size_t *copied)
{
    pthread_mutex_lock(&lock);
    *copied = count;
    struct stream *copy = malloc((count + 1) * sizeof *copy);
    if (copy != NULL && count != 0)
        memcpy(copy, streams, count * sizeof *copy);
    pthread_mutex_unlock(&lock);
    return copy;
}

CUcontext gv_streams_context_of(CUstream stream)
{
    CUcontext context = NULL;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < count; i++)
        if (streams[i].handle == stream)
            context = streams[i].context;
    pthread_mutex_unlock(&lock);
    return context;
}

uint64_t gv_streams_thread_number(void)
{
    static uint64_t threads;
    static __thread uint64_t own_number __attribute__((tls_model("initial-exec")));
    if (own_number == 0)
        own_number = __atomic_add_fetch(&threads, 1, __ATOMIC_RELAXED);
    return own_number;
}

CUresult gv_streams_drain(CUcontext context)
{
    size_t copied;
    struct stream *const copy = copy_streams(&copied);
    CUresult worst = CUDA_SUCCESS;
    if (copy == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    /* Those that capture have their mark; so has the legacy stream if one of them blocks it, else it comes after all threads'. */
    gv_capture_take_turn();
    worst = gv_marks_put_if_free(CU_STREAM_LEGACY);
    size_t foreign = 0;
    for (size_t i = 0; i < copied; i++)
        if (copy[i].context == context && gv_marks_put_if_free(copy[i].handle) == CUDA_ERROR_INVALID_HANDLE)
            copy[foreign++] = copy[i];
    gv_capture_give_turn();
    /* Destroyed meanwhile, or of a green context, whose streams do not take our events. */
    for (size_t i = 0; i < foreign; i++)
        if (!gv_stream_captures(copy[i].handle))
            REAL(cuStreamSynchronize)(copy[i].handle);
    free(copy);
    const CUresult result = gv_marks_wait(context);
    return result != CUDA_SUCCESS ? result : worst;
}

int gv_streams_finished(void)
{
    size_t copied;
    if (gv_contexts_count() != 1 || gv_gate_uses_thread_streams() || !gv_capture_hold_off())
        return 0;
    struct stream *const copy = copy_streams(&copied);
    int finished = copy != NULL && REAL(cuStreamQuery)(CU_STREAM_LEGACY) == CUDA_SUCCESS;
    for (size_t i = 0; finished && i < copied; i++) {
        const CUresult result = REAL(cuStreamQuery)(copy[i].handle);
        finished = result == CUDA_SUCCESS || result == CUDA_ERROR_INVALID_HANDLE; /* the latter: destroyed meanwhile */
    }
    finished = finished && gv_marks_passed(); /* streams that are destroyed had work as well */
    gv_capture_let_begin();
    free(copy);
    return finished;
}

void gv_streams_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    count = 0;
}
