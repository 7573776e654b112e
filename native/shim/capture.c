/* SPDX-License-Identifier: Apache-2.0 */
#include "capture.h"

#include "gate.h"
#include "real_driver.h"

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

/* Counted before the driver knows, so that no launch of the capture meets the gate; taken back if the driver refuses. */
static CUresult counted(CUresult (*begin)(void *arguments), void *arguments)
{
    __atomic_fetch_add(&gv_gate.obstacles, GV_CAPTURE_ONE, __ATOMIC_ACQ_REL);
    const CUresult result = begin(arguments);
    if (result != CUDA_SUCCESS)
        __atomic_fetch_sub(&gv_gate.obstacles, GV_CAPTURE_ONE, __ATOMIC_ACQ_REL);
    return result;
}

static CUresult ended(CUresult result)
{
    /* What ends one: success, an invalidated one, one with an unjoined fork. All else leaves it as it is: not capturing, the
     * wrong stream of the capture, the wrong thread, a bad argument. */
    const int over = result == CUDA_SUCCESS || result == CUDA_ERROR_STREAM_CAPTURE_INVALIDATED ||
                     result == CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    if (over && gv_anything_captures())
        __atomic_fetch_sub(&gv_gate.obstacles, GV_CAPTURE_ONE, __ATOMIC_ACQ_REL);
    return result;
}

struct begin_arguments {
    CUstream stream;
    CUgraph graph;
    const CUgraphNode *dependencies;
    const CUgraphEdgeData *edges;
    size_t count;
    CUstreamCaptureMode mode;
};

#define BEGIN(symbol)                                                                                                  \
    static CUresult begin_##symbol(void *p)                                                                            \
    {                                                                                                                  \
        const struct begin_arguments *a = p;                                                                           \
        return REAL(symbol)(a->stream, a->mode);                                                                       \
    }                                                                                                                  \
    GV_EXPORT CUresult symbol(CUstream hStream, CUstreamCaptureMode mode)                                              \
    {                                                                                                                  \
        return counted(begin_##symbol, &(struct begin_arguments){.stream = hStream, .mode = mode});                    \
    }
BEGIN(cuStreamBeginCapture_v2)
BEGIN(cuStreamBeginCapture_v2_ptsz)

static CUresult begin_first(void *p) { return REAL(cuStreamBeginCapture)(((struct begin_arguments *)p)->stream); }
GV_EXPORT CUresult cuStreamBeginCapture(CUstream hStream)
{
    return counted(begin_first, &(struct begin_arguments){.stream = hStream});
}
static CUresult begin_first_ptsz(void *p)
{
    return REAL(cuStreamBeginCapture_ptsz)(((struct begin_arguments *)p)->stream);
}
GV_EXPORT CUresult cuStreamBeginCapture_ptsz(CUstream hStream)
{
    return counted(begin_first_ptsz, &(struct begin_arguments){.stream = hStream});
}

#define BEGIN_TO_GRAPH(symbol)                                                                                         \
    static CUresult begin_##symbol(void *p)                                                                            \
    {                                                                                                                  \
        const struct begin_arguments *a = p;                                                                           \
        return REAL(symbol)(a->stream, a->graph, a->dependencies, a->edges, a->count, a->mode);                        \
    }                                                                                                                  \
    GV_EXPORT CUresult symbol(CUstream hStream, CUgraph hGraph, const CUgraphNode *dependencies,                       \
                              const CUgraphEdgeData *dependencyData, size_t numDependencies, CUstreamCaptureMode mode) \
    {                                                                                                                  \
        return counted(begin_##symbol, &(struct begin_arguments){hStream, hGraph, dependencies, dependencyData,        \
                                                                 numDependencies, mode});                              \
    }
BEGIN_TO_GRAPH(cuStreamBeginCaptureToGraph)
BEGIN_TO_GRAPH(cuStreamBeginCaptureToGraph_ptsz)

GV_EXPORT CUresult cuStreamEndCapture(CUstream hStream, CUgraph *phGraph)
{
    return ended(REAL(cuStreamEndCapture)(hStream, phGraph));
}
GV_EXPORT CUresult cuStreamEndCapture_ptsz(CUstream hStream, CUgraph *phGraph)
{
    return ended(REAL(cuStreamEndCapture_ptsz)(hStream, phGraph));
}
