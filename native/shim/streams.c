/* SPDX-License-Identifier: Apache-2.0 */
#include "streams.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "contexts.h"
#include "gate.h"
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

static void destroyed(CUstream stream)
{
    gv_pool_stream_ends(stream);
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

GV_EXPORT CUresult cuStreamDestroy(CUstream hStream)
{
    destroyed(hStream);
    return REAL(cuStreamDestroy)(hStream);
}

GV_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
    destroyed(hStream);
    return REAL(cuStreamDestroy_v2)(hStream);
}

void gv_streams_context_ended(CUcontext context)
{
    pthread_mutex_lock(&lock);
    size_t kept = 0;
    for (size_t i = 0; i < count; i++)
        if (streams[i].context != context)
            streams[kept++] = streams[i];
    count = kept;
    pthread_mutex_unlock(&lock);
}

/* The streams of now, to be freed by the caller; NULL when there is no memory. */
static CUstream *copy_streams(size_t *copied)
{
    pthread_mutex_lock(&lock);
    *copied = count;
    CUstream *copy = malloc((count + 1) * sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++)
        copy[i] = streams[i].handle;
    pthread_mutex_unlock(&lock);
    return copy;
}

static CUresult drain(CUstream stream)
{
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    /* A stream destroyed meanwhile, and the legacy stream beside a capture, answer with an error: nothing to wait for. */
    if (REAL(cuStreamIsCapturing)(stream, &status) != CUDA_SUCCESS || status != CU_STREAM_CAPTURE_STATUS_NONE)
        return CUDA_SUCCESS;
    return REAL(cuStreamSynchronize)(stream);
}

CUresult gv_streams_drain(void)
{
    size_t copied;
    CUstream *const copy = copy_streams(&copied);
    if (copy == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    CUresult worst = drain(NULL);
    for (size_t i = 0; i < copied; i++) {
        const CUresult result = drain(copy[i]);
        if (result != CUDA_SUCCESS && result != CUDA_ERROR_INVALID_HANDLE && result != CUDA_ERROR_CONTEXT_IS_DESTROYED)
            worst = result;
    }
    free(copy);
    return worst;
}

int gv_streams_finished(void)
{
    size_t copied;
    if (gv_anything_captures() || gv_contexts_count() != 1 || gv_gate_uses_thread_streams())
        return 0;
    CUstream *const copy = copy_streams(&copied);
    int finished = copy != NULL && REAL(cuStreamQuery)(CU_STREAM_LEGACY) == CUDA_SUCCESS;
    for (size_t i = 0; finished && i < copied; i++) {
        const CUresult result = REAL(cuStreamQuery)(copy[i]);
        finished = result == CUDA_SUCCESS || result == CUDA_ERROR_INVALID_HANDLE; /* the latter: destroyed meanwhile */
    }
    free(copy);
    return finished;
}

void gv_streams_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    count = 0;
}
