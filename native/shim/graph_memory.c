/* SPDX-License-Identifier: Apache-2.0 */
#include "graph_memory.h"

#include <pthread.h>
#include <stdlib.h>

#include "capture.h"
#include "driver_heap.h"
#include "gate.h"
#include "memory.h"
#include "pacing.h"
#include "room.h"
#include "waiting.h"

enum { BUCKETS = 256 };

/* An executable graph with memory nodes. */
struct graph {
    CUgraphExec executable;
    uint64_t bytes;    /* of all its allocations: the driver may use memory twice within a graph, and need less */
    uint64_t launched; /* in this generation: its memory is there */
    struct graph *next;
};

static CUresult reserved(const struct gv_driver_heap *heap, cuuint64_t *bytes)
{
    (void)heap;
    return REAL(cuDeviceGetGraphMemAttribute)(gv_memory.device, CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT, bytes);
}

static struct gv_driver_heap heap = {.kind = GV_FIXED_GRAPH, .reserved = reserved};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct graph *buckets[BUCKETS]; /* under lock */
static uint64_t graph_count;           /* the same; read without it */
static uint64_t generation = 1;        /* of trims; under lock */

void gv_graph_memory_forget(void)
{
    pthread_mutex_init(&lock, NULL);
    for (int i = 0; i < BUCKETS; i++)
        buckets[i] = NULL; /* they leak: freeing them is not safe here */
    graph_count = 0;
    heap.charged = 0;
}

static struct graph **bucket_of(CUgraphExec executable) { return &buckets[((uintptr_t)executable >> 4) % BUCKETS]; }

/* Bytes that a launch may need more than there are; 0 for a graph without memory nodes, or whose memory is there. */
static uint64_t needed(CUgraphExec executable, int again)
{
    uint64_t bytes = 0;
    pthread_mutex_lock(&lock);
    for (const struct graph *graph = *bucket_of(executable); graph != NULL; graph = graph->next)
        if (graph->executable == executable && (again || graph->launched != generation))
            bytes = graph->bytes;
    pthread_mutex_unlock(&lock);
    return bytes;
}

static void mark_launched(CUgraphExec executable)
{
    pthread_mutex_lock(&lock);
    for (struct graph *graph = *bucket_of(executable); graph != NULL; graph = graph->next)
        if (graph->executable == executable)
            graph->launched = generation;
    pthread_mutex_unlock(&lock);
}

static CUresult trim(CUdevice device)
{
    const CUresult result = REAL(cuDeviceGraphMemTrim)(device);
    pthread_mutex_lock(&lock);
    generation++;
    pthread_mutex_unlock(&lock);
    gv_driver_heap_settle(&heap, 0);
    return result;
}

void gv_graph_memory_look(void) { gv_driver_heap_look(&heap); }

void gv_graph_memory_trim(void)
{
    if (__atomic_load_n(&heap.charged, __ATOMIC_RELAXED) != 0)
        trim(gv_memory.device);
}

/* --- what a graph needs ------------------------------------------------------------------------------------------------- */

static uint64_t footprint(CUgraph graph);

static void add_node(CUgraphNode node, uint64_t *small, uint64_t *large)
{
    CUgraphNodeType type;
    CUDA_MEM_ALLOC_NODE_PARAMS params;
    CUgraph child = NULL;
    if (REAL(cuGraphNodeGetType)(node, &type) != CUDA_SUCCESS)
        return;
    if (type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && REAL(cuGraphMemAllocNodeGetParams)(node, &params) == CUDA_SUCCESS) {
        if (params.poolProps.location.type != CU_MEM_LOCATION_TYPE_DEVICE)
            return;
        if (params.bytesize < GV_DRIVER_CHUNK / 2)
            *small += params.bytesize + 512;
        else
            *large += gv_driver_chunks(params.bytesize);
    } else if (type == CU_GRAPH_NODE_TYPE_GRAPH && REAL(cuGraphChildGraphNodeGetGraph)(node, &child) == CUDA_SUCCESS) {
        *large += footprint(child);
    }
}

/* Of all allocations in the graph and its children. The bodies of conditional nodes have none (documented). */
static uint64_t footprint(CUgraph graph)
{
    size_t count = 0;
    uint64_t small = 0, large = 0;
    if (REAL(cuGraphGetNodes)(graph, NULL, &count) != CUDA_SUCCESS || count == 0)
        return 0;
    CUgraphNode *const nodes = malloc(count * sizeof *nodes);
    if (nodes != NULL && REAL(cuGraphGetNodes)(graph, nodes, &count) == CUDA_SUCCESS)
        for (size_t i = 0; i < count; i++)
            add_node(nodes[i], &small, &large);
    free(nodes);
    return large + gv_driver_chunks(small);
}

static CUresult note(CUresult result, const CUgraphExec *executable, CUgraph source)
{
    const uint64_t bytes = result == CUDA_SUCCESS ? footprint(source) : 0;
    if (bytes == 0)
        return result;
    struct graph *const graph = calloc(1, sizeof *graph);
    if (graph == NULL) { /* one that is not known would not be charged */
        REAL(cuGraphExecDestroy)(*executable);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *graph = (struct graph){.executable = *executable, .bytes = bytes};
    pthread_mutex_lock(&lock);
    graph->next = *bucket_of(*executable);
    *bucket_of(*executable) = graph;
    __atomic_store_n(&graph_count, graph_count + 1, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
    return result;
}

/* --- entry points ------------------------------------------------------------------------------------------------------- */

/* The driver looks at the addresses of nodes while it instantiates: as the generated wrappers of class needs-memory. */
#define INSTANTIATE(symbol, parameters, arguments)                                                                     \
    GV_EXPORT CUresult symbol parameters                                                                               \
    {                                                                                                                  \
        const struct gv_submission submission = gv_gate_enter_unused();                                                \
        if (submission.refused != CUDA_SUCCESS)                                                                        \
            return submission.refused;                                                                                 \
        const CUresult result = note(REAL(symbol) arguments, phGraphExec, hGraph);                                     \
        gv_gate_leave(&submission);                                                                                    \
        if (__builtin_expect(result != CUDA_SUCCESS, 0))                                                               \
            gv_gate_failed(result);                                                                                    \
        return result;                                                                                                 \
    }
INSTANTIATE(cuGraphInstantiate,
            (CUgraphExec * phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize),
            (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize))
INSTANTIATE(cuGraphInstantiate_v2,
            (CUgraphExec * phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode, char *logBuffer, size_t bufferSize),
            (phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize))
INSTANTIATE(cuGraphInstantiateWithFlags, (CUgraphExec * phGraphExec, CUgraph hGraph, unsigned long long flags),
            (phGraphExec, hGraph, flags))

/* With an upload, if the program wants one. */
static CUresult with_params(CUresult (*instantiate)(CUgraphExec *, CUgraph, CUDA_GRAPH_INSTANTIATE_PARAMS *),
                            CUgraphExec *executable, CUgraph source, CUDA_GRAPH_INSTANTIATE_PARAMS *params,
                            int per_thread)
{
    const int uploads = params != NULL && params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    const uint64_t taken = uploads ? footprint(source) : 0;
    CUresult result = taken != 0 ? gv_fixed_charge(GV_FIXED_GRAPH, taken) : CUDA_SUCCESS;
    if (result != CUDA_SUCCESS)
        return result;
    const struct gv_submission submission =
        uploads ? gv_gate_enter(params->hUploadStream, per_thread) : gv_gate_enter_unused();
    result = submission.refused;
    if (result == CUDA_SUCCESS) {
        result = note(instantiate(executable, source, params), executable, source);
        gv_gate_leave(&submission);
        if (result != CUDA_SUCCESS)
            gv_gate_failed(result);
    }
    if (taken != 0)
        gv_driver_heap_settle(&heap, taken);
    return result;
}

GV_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
                                                CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    return with_params(REAL(cuGraphInstantiateWithParams), phGraphExec, hGraph, instantiateParams, 0);
}

GV_EXPORT CUresult cuGraphInstantiateWithParams_ptsz(CUgraphExec *phGraphExec, CUgraph hGraph,
                                                     CUDA_GRAPH_INSTANTIATE_PARAMS *instantiateParams)
{
    return with_params(REAL(cuGraphInstantiateWithParams_ptsz), phGraphExec, hGraph, instantiateParams, 1);
}

/* What a launch may need more, charged; beyond the quota after a trim of what no graph uses now. */
static CUresult take(uint64_t bytes)
{
    CUresult result = gv_fixed_charge(GV_FIXED_GRAPH, bytes);
    if (result == CUDA_ERROR_OUT_OF_MEMORY && __atomic_load_n(&heap.charged, __ATOMIC_RELAXED) != 0) {
        trim(gv_memory.device);
        result = gv_fixed_charge(GV_FIXED_GRAPH, bytes);
    }
    return result;
}

static CUresult submit(CUresult (*call)(CUgraphExec, CUstream), CUgraphExec executable, CUstream stream, int per_thread)
{
    const struct gv_submission submission = gv_gate_enter(stream, per_thread);
    if (submission.refused != CUDA_SUCCESS)
        return submission.refused;
    if (gv_pool_anything_waits())
        gv_pool_event_ends(NULL); /* the graph may record any */
    const CUresult result = call(executable, stream);
    gv_pacing_graph(&submission, executable);
    gv_gate_leave(&submission);
    if (__builtin_expect(result != CUDA_SUCCESS, 0))
        gv_gate_failed(result);
    return result;
}

static CUresult submit_with_memory(CUresult (*call)(CUgraphExec, CUstream), CUgraphExec executable, CUstream stream,
                                   int per_thread)
{
    uint64_t taken = needed(executable, 0);
    CUresult result = taken != 0 ? take(taken) : CUDA_SUCCESS;
    if (result != CUDA_SUCCESS)
        return result;
    for (int tries = 0;;) {
        result = submit(call, executable, stream, per_thread);
        if (result != CUDA_ERROR_OUT_OF_MEMORY)
            break;
        if (taken == 0) { /* its memory went to another graph */
            const uint64_t more = needed(executable, 1);
            if (more == 0 || take(more) != CUDA_SUCCESS)
                break;
            taken = more;
        } else if (!gv_room_again(taken, &tries)) { /* the device is full */
            break;
        }
    }
    if (result == CUDA_SUCCESS)
        mark_launched(executable);
    if (taken != 0)
        gv_driver_heap_settle(&heap, taken);
    return result;
}

#define LAUNCH(symbol, per_thread)                                                                                     \
    GV_EXPORT CUresult symbol(CUgraphExec hGraphExec, CUstream hStream)                                                \
    {                                                                                                                  \
        if (__atomic_load_n(&graph_count, __ATOMIC_RELAXED) == 0)                                                      \
            return submit(REAL(symbol), hGraphExec, hStream, per_thread);                                              \
        return submit_with_memory(REAL(symbol), hGraphExec, hStream, per_thread);                                      \
    }
LAUNCH(cuGraphLaunch, 0)
LAUNCH(cuGraphLaunch_ptsz, 1)
LAUNCH(cuGraphUpload, 0)
LAUNCH(cuGraphUpload_ptsz, 1)

GV_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    if (__atomic_load_n(&graph_count, __ATOMIC_RELAXED) != 0) {
        pthread_mutex_lock(&lock); /* first: the handle may come again */
        for (struct graph **link = bucket_of(hGraphExec); *link != NULL; link = &(*link)->next) {
            if ((*link)->executable == hGraphExec) {
                struct graph *const old = *link;
                *link = old->next;
                free(old);
                __atomic_store_n(&graph_count, graph_count - 1, __ATOMIC_RELEASE);
                break;
            }
        }
        pthread_mutex_unlock(&lock);
    }
    const CUresult result = REAL(cuGraphExecDestroy)(hGraphExec);
    gv_graph_memory_look();
    return result;
}

GV_EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
    const CUresult result = REAL(cuGraphDestroy)(hGraph);
    gv_graph_memory_look();
    return result;
}

GV_EXPORT CUresult cuDeviceGraphMemTrim(CUdevice device)
{
    return device == gv_memory.device && gv_memory.bytes != 0 ? trim(device) : REAL(cuDeviceGraphMemTrim)(device);
}
