/* SPDX-License-Identifier: Apache-2.0
 *
 * cuStream*: handles, queries, call-backs.
 */
#include "capture.h"
#include "event.h"
#include "stream.h"

#include <pthread.h>
#include <stdlib.h>

/* The default streams of this thread, one per context that it used. */
struct thread_stream {
    struct gv_context *context;
    struct gv_stream *stream;
    uint64_t context_id; /* a reset context is another one */
    struct thread_stream *next;
};
GV_THREAD_LOCAL struct thread_stream *own_streams;
static pthread_key_t thread_end;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;

void gv_stream_destroy(struct gv_stream *stream);

static void destroy_thread_streams(void *first)
{
    own_streams = NULL;
    for (struct thread_stream *entry = first, *next; entry != NULL; entry = next) {
        next = entry->next;
        if (atomic_load(&gv_driver.ready) && atomic_load(&entry->context->alive) &&
            entry->context->id == entry->context_id)
            gv_stream_destroy(entry->stream);
        free(entry);
    }
}

static void make_key(void) { pthread_key_create(&thread_end, destroy_thread_streams); }

static CUresult thread_stream(struct gv_context *context, struct gv_stream **stream)
{
    struct thread_stream *entry = own_streams;
    while (entry != NULL && !(entry->context == context && entry->context_id == context->id))
        entry = entry->next;
    if (entry == NULL) {
        pthread_once(&thread_end_once, make_key);
        entry = malloc(sizeof *entry);
        if (entry == NULL)
            return CUDA_ERROR_OUT_OF_MEMORY;
        entry->stream = gv_stream_create(context, GV_STREAM_OF_THREAD, 0);
        if (entry->stream == NULL) {
            free(entry);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        entry->context = context;
        entry->context_id = context->id;
        entry->next = own_streams;
        own_streams = entry;
        pthread_setspecific(thread_end, entry);
    }
    *stream = entry->stream;
    return CUDA_SUCCESS;
}

CUresult gv_stream_of(CUstream handle, struct gv_stream **stream)
{
    GV_READY();
    if (handle == NULL || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD) {
        GV_NEED_CONTEXT(context);
        if (handle == CU_STREAM_PER_THREAD || (handle == NULL && gv_per_thread_default()))
            return thread_stream(context, stream);
        *stream = context->legacy;
        return CUDA_SUCCESS;
    }
    if (!gv_is(handle, GV_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    *stream = (struct gv_stream *)handle;
    return gv_context_state((*stream)->context);
}

GV_EXPORT CUresult cuStreamCreateWithPriority(CUstream *phStream, unsigned int flags, int priority)
{
    GV_ENTER_CONTEXT(context);
    if (phStream == NULL || flags & ~(unsigned)CU_STREAM_NON_BLOCKING)
        return CUDA_ERROR_INVALID_VALUE;
    if (priority > 0) /* out of range: clamped, as documented */
        priority = 0;
    if (priority < -5)
        priority = -5;
    struct gv_stream *stream = gv_stream_create(context, flags, priority);
    if (stream == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    *phStream = (CUstream)stream;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamCreate(CUstream *phStream, unsigned int Flags)
{
    return cuStreamCreateWithPriority(phStream, Flags, 0);
}

GV_EXPORT CUresult cuStreamDestroy_v2(CUstream hStream)
{
    GV_ENTER();
    if (hStream == NULL || hStream == CU_STREAM_LEGACY || hStream == CU_STREAM_PER_THREAD || !gv_is(hStream, GV_STREAM))
        return CUDA_ERROR_INVALID_HANDLE;
    gv_stream_destroy((struct gv_stream *)hStream);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamDestroy(CUstream hStream) { return cuStreamDestroy_v2(hStream); }

GV_EXPORT CUresult cuStreamSynchronize(CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    GV_TRY(gv_capture_check_stream(stream));
    gv_stream_wait(stream);
    gv_after_wait();
    return gv_context_state(stream->context);
}

GV_EXPORT CUresult cuStreamQuery(CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    GV_TRY(gv_capture_check_stream(stream));
    if (!gv_stream_idle(stream))
        return CUDA_ERROR_NOT_READY;
    gv_stream_wait(stream); /* ended already: notes that the program knows */
    return gv_context_state(stream->context);
}

GV_EXPORT CUresult cuStreamGetFlags(CUstream hStream, unsigned int *flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = stream->flags & CU_STREAM_NON_BLOCKING;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamGetPriority(CUstream hStream, int *priority)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (priority == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *priority = stream->priority;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamGetId(CUstream hStream, unsigned long long *streamId)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (streamId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *streamId = stream->id;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamGetCtx(CUstream hStream, CUcontext *pctx)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (pctx == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *pctx = gv_context_handle(stream->context);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamGetCtx_v2(CUstream hStream, CUcontext *pCtx, CUgreenCtx *pGreenCtx)
{
    GV_ENTER();
    GV_TRY(cuStreamGetCtx(hStream, pCtx));
    if (pGreenCtx != NULL)
        *pGreenCtx = NULL;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamGetDevice(CUstream hStream, CUdevice *device)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (device == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *device = stream->context->device;
    return CUDA_SUCCESS;
}

struct host_operation {
    struct gv_operation operation;
    CUhostFn function;
    CUstreamCallback callback;
    CUstream handle;
    void *data;
};

static CUresult run_host(struct gv_operation *operation, struct gv_stream *stream)
{
    struct host_operation *host = (struct host_operation *)operation;
    gv_call_forbid(true);
    if (host->callback != NULL)
        host->callback(host->handle, gv_context_state(stream->context), host->data);
    else
        host->function(host->data);
    gv_call_forbid(false);
    return CUDA_SUCCESS;
}

static void describe_host(struct gv_operation *operation, CUgraphNodeParams *params)
{
    const struct host_operation *host = (struct host_operation *)operation;
    params->host.fn = host->function;
    params->host.userData = host->data;
    params->host.ctx = gv_context_handle(operation->context);
}

/* A call-back is told of the error and cannot be captured, a host function does not run. */
static const struct gv_operation_kind callback_kind = {.node = GV_NO_NODE, .always = true, .run = run_host};
static const struct gv_operation_kind host_kind = {
    .node = CU_GRAPH_NODE_TYPE_HOST, .run = run_host, .describe = describe_host};

static struct host_operation *new_host(const struct gv_operation_kind *kind, void *data)
{
    struct host_operation *host = calloc(1, sizeof *host);
    if (host != NULL) {
        host->operation.kind = kind;
        host->data = data;
    }
    return host;
}

CUresult gv_host_make(CUhostFn function, void *data, struct gv_operation **operation)
{
    if (function == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct host_operation *host = new_host(&host_kind, data);
    if (host == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    host->function = function;
    *operation = &host->operation;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuLaunchHostFunc(CUstream hStream, CUhostFn fn, void *userData)
{
    GV_ENTER();
    struct gv_stream *stream;
    struct gv_operation *operation;
    GV_TRY(gv_stream_of(hStream, &stream));
    GV_TRY(gv_host_make(fn, userData, &operation));
    return gv_stream_submit(stream, operation);
}

GV_EXPORT CUresult cuLaunchHostFunc_v2(CUstream hStream, CUhostFn fn, void *userData, unsigned int syncMode)
{
    GV_ENTER();
    (void)syncMode; /* how the device waits for the host: ours has one way */
    return cuLaunchHostFunc(hStream, fn, userData);
}

GV_EXPORT CUresult cuStreamAddCallback(CUstream hStream, CUstreamCallback callback, void *userData, unsigned int flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags != 0 || callback == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct host_operation *host = new_host(&callback_kind, userData);
    if (host == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    host->callback = callback;
    host->handle = hStream;
    return gv_stream_submit(stream, &host->operation);
}
