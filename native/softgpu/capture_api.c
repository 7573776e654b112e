/* SPDX-License-Identifier: Apache-2.0
 *
 * cuStreamBeginCapture and its family. Capture into an existing graph is the same thing with a graph that is not our own.
 */
#include "capture.h"

#include <stdlib.h>

static CUresult begin(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies, const CUgraphEdgeData *data,
                      size_t count, CUstreamCaptureMode mode, bool own)
{
    static const CUgraphEdgeData none;
    struct gv_stream *stream;
    struct gv_member *member;
    GV_TRY(gv_stream_of(hStream, &stream));
    if ((unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED || (dependencies == NULL && count > 0))
        return CUDA_ERROR_INVALID_VALUE;
    if (stream->flags & GV_STREAM_LEGACY)
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    struct gv_graph *graph = own ? gv_graph_new() : gv_graph_of(hGraph);
    if (graph == NULL)
        return own ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++)
        GV_TRY(gv_edge_check(graph, dependencies[i], NULL, data != NULL ? &data[i] : NULL));
    pthread_mutex_lock(&gv_capture_lock);
    CUresult result =
        stream->capture != NULL ? CUDA_ERROR_ILLEGAL_STATE : gv_capture_begin(stream, mode, graph, own, &member);
    const bool began = result == CUDA_SUCCESS;
    for (size_t i = 0; i < count && result == CUDA_SUCCESS; i++)
        if (!gv_tail_add(&member->tail, dependencies[i], data != NULL ? data[i] : none))
            result = CUDA_ERROR_OUT_OF_MEMORY;
    pthread_mutex_unlock(&gv_capture_lock);
    if (result != CUDA_SUCCESS && began)
        gv_capture_forget_stream(stream);
    else if (result != CUDA_SUCCESS && own)
        gv_graph_free(graph);
    return result;
}

GV_EXPORT CUresult cuStreamBeginCapture_v2(CUstream hStream, CUstreamCaptureMode mode)
{
    GV_ENTER();
    return begin(hStream, NULL, NULL, NULL, 0, mode, true);
}

GV_EXPORT CUresult cuStreamBeginCapture(CUstream hStream)
{
    GV_ENTER();
    return cuStreamBeginCapture_v2(hStream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

GV_EXPORT CUresult cuStreamBeginCaptureToGraph(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,
                                               const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                               CUstreamCaptureMode mode)
{
    GV_ENTER();
    return begin(hStream, hGraph, dependencies, dependencyData, numDependencies, mode, false);
}

GV_EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    GV_ENTER();
    struct gv_stream *stream;
    struct gv_capture *ended;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (phGraph == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_capture_lock);
    const CUresult result = gv_capture_end(stream, &ended);
    pthread_mutex_unlock(&gv_capture_lock);
    *phGraph = result == CUDA_SUCCESS ? (CUgraph)ended->graph : NULL;
    if (result != CUDA_SUCCESS && ended != NULL && ended->owns_graph)
        gv_graph_free(ended->graph); /* after the lock: calls destructors of the program */
    free(ended);
    return result;
}

/* Is the legacy stream asked about, beside a capture that it would depend on? The capture stays valid. */
static CUresult check_asked(const struct gv_stream *stream)
{
    return stream->flags & GV_STREAM_LEGACY ? gv_capture_legacy_blocked(stream->context) : CUDA_SUCCESS;
}

static CUresult info(CUstream hStream, CUstreamCaptureStatus *status, cuuint64_t *id, CUgraph *graph,
                     const CUgraphNode **nodes, const CUgraphEdgeData **data, size_t *count, bool knows_data)
{
    static const CUgraphEdgeData none;
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (status == NULL || (data != NULL && nodes == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check_asked(stream));
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&gv_capture_lock);
    const struct gv_member *member = stream->capture;
    *status = member == NULL              ? CU_STREAM_CAPTURE_STATUS_NONE
              : member->sequence->invalid ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                          : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    if (*status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        const struct gv_tail *tail = &member->tail;
        for (size_t i = 0; nodes != NULL && (!knows_data || data == NULL) && i < tail->count; i++)
            if (tail->data[i].from_port != none.from_port || tail->data[i].type != none.type)
                result = CUDA_ERROR_LOSSY_QUERY;
        if (id != NULL)
            *id = member->sequence->id;
        if (graph != NULL)
            *graph = (CUgraph)member->sequence->graph;
        if (nodes != NULL)
            *nodes = tail->nodes;
        if (data != NULL)
            *data = tail->data;
        if (count != NULL)
            *count = tail->count;
    }
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

GV_EXPORT CUresult cuStreamIsCapturing(CUstream hStream, CUstreamCaptureStatus *captureStatus)
{
    GV_ENTER();
    return info(hStream, captureStatus, NULL, NULL, NULL, NULL, NULL, true);
}

GV_EXPORT CUresult cuStreamGetCaptureInfo(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                          cuuint64_t *id_out)
{
    GV_ENTER();
    return info(hStream, captureStatus_out, id_out, NULL, NULL, NULL, NULL, false);
}

GV_EXPORT CUresult cuStreamGetCaptureInfo_v2(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out, size_t *numDependencies_out)
{
    GV_ENTER();
    return info(hStream, captureStatus_out, id_out, graph_out, dependencies_out, NULL, numDependencies_out, false);
}

GV_EXPORT CUresult cuStreamGetCaptureInfo_v3(CUstream hStream, CUstreamCaptureStatus *captureStatus_out,
                                             cuuint64_t *id_out, CUgraph *graph_out,
                                             const CUgraphNode **dependencies_out, const CUgraphEdgeData **edgeData_out,
                                             size_t *numDependencies_out)
{
    GV_ENTER();
    return info(hStream, captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out, numDependencies_out,
                true);
}

/* Under the lock. */
static CUresult update_tail(struct gv_member *member, const CUgraphNode *dependencies, const CUgraphEdgeData *data,
                            size_t count, unsigned flags)
{
    static const CUgraphEdgeData none;
    if (member == NULL)
        return CUDA_ERROR_ILLEGAL_STATE;
    if (member->sequence->invalid)
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    for (size_t i = 0; i < count; i++)
        GV_TRY(gv_edge_check(member->sequence->graph, dependencies[i], NULL, data != NULL ? &data[i] : NULL));
    if (flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES && dependencies != member->tail.nodes)
        member->tail.count = 0;
    for (size_t i = 0; i < count; i++)
        if (!gv_tail_add(&member->tail, dependencies[i], data != NULL ? data[i] : none))
            return CUDA_ERROR_OUT_OF_MEMORY;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuStreamUpdateCaptureDependencies_v2(CUstream hStream, CUgraphNode *dependencies,
                                                        const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                                        unsigned int flags)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    if (flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES || (dependencies == NULL && numDependencies > 0))
        return CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_lock(&gv_capture_lock);
    const CUresult result = update_tail(stream->capture, dependencies, dependencyData, numDependencies, flags);
    pthread_mutex_unlock(&gv_capture_lock);
    return result;
}

GV_EXPORT CUresult cuStreamUpdateCaptureDependencies(CUstream hStream, CUgraphNode *dependencies,
                                                     size_t numDependencies, unsigned int flags)
{
    GV_ENTER();
    return cuStreamUpdateCaptureDependencies_v2(hStream, dependencies, NULL, numDependencies, flags);
}

GV_EXPORT CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    GV_ENTER();
    if (mode == NULL || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_ERROR_INVALID_VALUE;
    *mode = gv_capture_exchange_mode(*mode);
    return CUDA_SUCCESS;
}
