/* SPDX-License-Identifier: Apache-2.0
 *
 * Adding nodes, reading and changing their parameters: one call for all types, and the older ones, one for each.
 */
#include "graph.h"
#include "launch.h"

#include <string.h>

static CUresult add(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                    const CUgraphEdgeData *data, size_t count, CUgraphNodeParams *params)
{
    GV_READY();
    struct gv_graph *graph = gv_graph_of(hGraph);
    struct gv_content content;
    struct gv_graph_node *node;
    if (phGraphNode == NULL || graph == NULL || params == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        if (dependencies == NULL)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_edge_check(graph, dependencies[i], NULL, data != NULL ? &data[i] : NULL));
    }
    GV_TRY(gv_params_to_content(graph, params, &content));
    const CUresult result = gv_node_add(graph, dependencies, data, count, &content, &node);
    if (result != CUDA_SUCCESS) {
        gv_content_free(&content);
        return result;
    }
    *phGraphNode = (CUgraphNode)node;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphAddNode_v2(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                     CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    if (nodeParams != NULL && (nodeParams->reserved0[0] != 0 || nodeParams->reserved0[1] != 0 ||
                               nodeParams->reserved0[2] != 0 || nodeParams->reserved2 != 0))
        return CUDA_ERROR_INVALID_VALUE;
    return add(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams);
}

GV_EXPORT CUresult cuGraphAddNode_v3(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                     const CUgraphEdgeData *dependencyData, size_t numDependencies,
                                     CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    return cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, dependencyData, numDependencies, nodeParams);
}

GV_EXPORT CUresult cuGraphAddNode(CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies,
                                  size_t numDependencies, CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    return cuGraphAddNode_v2(phGraphNode, hGraph, dependencies, NULL, numDependencies, nodeParams);
}

/* New parameters of a node: work is never changed, since executable graphs may run it, but replaced. */
static CUresult set(CUgraphNode hNode, const CUgraphNodeParams *params)
{
    GV_READY();
    struct gv_graph_node *node = gv_node_of(hNode);
    struct gv_operation *work;
    if (node == NULL || params == NULL || params->type != node->type)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_params_to_work(params, node->type == CU_GRAPH_NODE_TYPE_KERNEL ? node->work : NULL, &work));
    gv_operation_release(node->work);
    node->work = work;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphNodeSetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    return set(hNode, nodeParams);
}

GV_EXPORT CUresult cuGraphNodeSetParams_v2(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    return set(hNode, nodeParams);
}

static CUresult get(CUgraphNode hNode, CUgraphNodeType type, CUgraphNodeParams *params)
{
    GV_READY();
    const struct gv_graph_node *node = gv_node_of(hNode);
    if (node == NULL || node->type != type)
        return CUDA_ERROR_INVALID_VALUE;
    gv_params_of_node(node, params);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphNodeGetParams(CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    const struct gv_graph_node *node = gv_node_of(hNode);
    if (node == NULL || nodeParams == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    gv_params_of_node(node, nodeParams);
    return CUDA_SUCCESS;
}

/* The older calls: `fill` copies what they take into `p`, after a look at the pointer. */
#define DEPENDENCIES CUgraphNode *phGraphNode, CUgraph hGraph, const CUgraphNode *dependencies, size_t numDependencies
#define ADD(type_, fill)                                                                                               \
    CUgraphNodeParams p;                                                                                               \
    memset(&p, 0, sizeof p);                                                                                           \
    p.type = type_;                                                                                                    \
    fill;                                                                                                              \
    return add(phGraphNode, hGraph, dependencies, NULL, numDependencies, &p)
#define SET(type_, fill)                                                                                               \
    CUgraphNodeParams p;                                                                                               \
    memset(&p, 0, sizeof p);                                                                                           \
    p.type = type_;                                                                                                    \
    fill;                                                                                                              \
    return set(hNode, &p)
#define GET(type, read)                                                                                                \
    CUgraphNodeParams p;                                                                                               \
    GV_TRY(get(hNode, type, &p));                                                                                      \
    read;                                                                                                              \
    return CUDA_SUCCESS
#define NEED(pointer)                                                                                                  \
    if ((pointer) == NULL)                                                                                             \
    return CUDA_ERROR_INVALID_VALUE

/* The old structs are the beginning of the new ones. */
#define FROM(member, pointer)                                                                                          \
    NEED(pointer);                                                                                                     \
    memcpy(&p.member, pointer, sizeof *(pointer))
#define INTO(pointer, member) memcpy(pointer, &p.member, sizeof *(pointer))

#define KERNEL_CALLS(suffix, version)                                                                                  \
    GV_EXPORT CUresult cuGraphAddKernelNode##suffix(DEPENDENCIES, const CUDA_KERNEL_NODE_PARAMS_##version *nodeParams) \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        ADD(CU_GRAPH_NODE_TYPE_KERNEL, FROM(kernel, nodeParams));                                                      \
    }                                                                                                                  \
    GV_EXPORT CUresult cuGraphKernelNodeSetParams##suffix(CUgraphNode hNode,                                           \
                                                          const CUDA_KERNEL_NODE_PARAMS_##version *nodeParams)         \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        SET(CU_GRAPH_NODE_TYPE_KERNEL, FROM(kernel, nodeParams));                                                      \
    }                                                                                                                  \
    GV_EXPORT CUresult cuGraphKernelNodeGetParams##suffix(CUgraphNode hNode,                                           \
                                                          CUDA_KERNEL_NODE_PARAMS_##version *nodeParams)               \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        NEED(nodeParams);                                                                                              \
        GET(CU_GRAPH_NODE_TYPE_KERNEL, INTO(nodeParams, kernel));                                                      \
    }
KERNEL_CALLS(, v1)
KERNEL_CALLS(_v2, v2)

GV_EXPORT CUresult cuGraphAddMemcpyNode(DEPENDENCIES, const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_MEMCPY, FROM(memcpy.copyParams, copyParams); p.memcpy.copyCtx = ctx);
}

/* In the context of the node. */
GV_EXPORT CUresult cuGraphMemcpyNodeSetParams(CUgraphNode hNode, const CUDA_MEMCPY3D *nodeParams)
{
    GV_ENTER();
    CUgraphNodeParams old;
    GV_TRY(get(hNode, CU_GRAPH_NODE_TYPE_MEMCPY, &old));
    SET(CU_GRAPH_NODE_TYPE_MEMCPY, FROM(memcpy.copyParams, nodeParams); p.memcpy.copyCtx = old.memcpy.copyCtx);
}

GV_EXPORT CUresult cuGraphMemcpyNodeGetParams(CUgraphNode hNode, CUDA_MEMCPY3D *nodeParams)
{
    GV_ENTER();
    NEED(nodeParams);
    GET(CU_GRAPH_NODE_TYPE_MEMCPY, INTO(nodeParams, memcpy.copyParams));
}

GV_EXPORT CUresult cuGraphAddMemsetNode(DEPENDENCIES, const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_MEMSET, FROM(memset, memsetParams); p.memset.ctx = ctx);
}

GV_EXPORT CUresult cuGraphMemsetNodeSetParams(CUgraphNode hNode, const CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    CUgraphNodeParams old;
    GV_TRY(get(hNode, CU_GRAPH_NODE_TYPE_MEMSET, &old));
    SET(CU_GRAPH_NODE_TYPE_MEMSET, FROM(memset, nodeParams); p.memset.ctx = old.memset.ctx);
}

GV_EXPORT CUresult cuGraphMemsetNodeGetParams(CUgraphNode hNode, CUDA_MEMSET_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    NEED(nodeParams);
    GET(CU_GRAPH_NODE_TYPE_MEMSET, INTO(nodeParams, memset));
}

GV_EXPORT CUresult cuGraphAddHostNode(DEPENDENCIES, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_HOST, FROM(host, nodeParams));
}

GV_EXPORT CUresult cuGraphHostNodeSetParams(CUgraphNode hNode, const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    CUgraphNodeParams old;
    GV_TRY(get(hNode, CU_GRAPH_NODE_TYPE_HOST, &old));
    SET(CU_GRAPH_NODE_TYPE_HOST, FROM(host, nodeParams); p.host.ctx = old.host.ctx);
}

GV_EXPORT CUresult cuGraphHostNodeGetParams(CUgraphNode hNode, CUDA_HOST_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    NEED(nodeParams);
    GET(CU_GRAPH_NODE_TYPE_HOST, INTO(nodeParams, host));
}

GV_EXPORT CUresult cuGraphAddChildGraphNode(DEPENDENCIES, CUgraph childGraph)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_GRAPH, p.graph.graph = childGraph);
}

GV_EXPORT CUresult cuGraphChildGraphNodeGetGraph(CUgraphNode hNode, CUgraph *phGraph)
{
    GV_ENTER();
    NEED(phGraph);
    GET(CU_GRAPH_NODE_TYPE_GRAPH, *phGraph = p.graph.graph);
}

GV_EXPORT CUresult cuGraphAddEmptyNode(DEPENDENCIES)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_EMPTY, (void)0);
}

GV_EXPORT CUresult cuGraphAddEventRecordNode(DEPENDENCIES, CUevent event)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_EVENT_RECORD, p.eventRecord.event = event);
}

GV_EXPORT CUresult cuGraphEventRecordNodeSetEvent(CUgraphNode hNode, CUevent event)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_EVENT_RECORD, p.eventRecord.event = event);
}

GV_EXPORT CUresult cuGraphEventRecordNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
    GV_ENTER();
    NEED(event_out);
    GET(CU_GRAPH_NODE_TYPE_EVENT_RECORD, *event_out = p.eventRecord.event);
}

GV_EXPORT CUresult cuGraphAddEventWaitNode(DEPENDENCIES, CUevent event)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_WAIT_EVENT, p.eventWait.event = event);
}

GV_EXPORT CUresult cuGraphEventWaitNodeSetEvent(CUgraphNode hNode, CUevent event)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_WAIT_EVENT, p.eventWait.event = event);
}

GV_EXPORT CUresult cuGraphEventWaitNodeGetEvent(CUgraphNode hNode, CUevent *event_out)
{
    GV_ENTER();
    NEED(event_out);
    GET(CU_GRAPH_NODE_TYPE_WAIT_EVENT, *event_out = p.eventWait.event);
}

GV_EXPORT CUresult cuGraphAddBatchMemOpNode(DEPENDENCIES, const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, FROM(memOp, nodeParams));
}

GV_EXPORT CUresult cuGraphBatchMemOpNodeSetParams(CUgraphNode hNode, const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, FROM(memOp, nodeParams));
}

GV_EXPORT CUresult cuGraphBatchMemOpNodeGetParams(CUgraphNode hNode, CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams_out)
{
    GV_ENTER();
    NEED(nodeParams_out);
    GET(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, INTO(nodeParams_out, memOp));
}

GV_EXPORT CUresult cuGraphAddMemAllocNode(DEPENDENCIES, CUDA_MEM_ALLOC_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    CUgraphNodeParams p;
    NEED(nodeParams);
    memset(&p, 0, sizeof p);
    p.type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    memcpy(&p.alloc, nodeParams, sizeof *nodeParams);
    GV_TRY(add(phGraphNode, hGraph, dependencies, NULL, numDependencies, &p));
    nodeParams->dptr = p.alloc.dptr;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphMemAllocNodeGetParams(CUgraphNode hNode, CUDA_MEM_ALLOC_NODE_PARAMS *params_out)
{
    GV_ENTER();
    NEED(params_out);
    GET(CU_GRAPH_NODE_TYPE_MEM_ALLOC, INTO(params_out, alloc));
}

GV_EXPORT CUresult cuGraphAddMemFreeNode(DEPENDENCIES, CUdeviceptr dptr)
{
    GV_ENTER();
    ADD(CU_GRAPH_NODE_TYPE_MEM_FREE, p.free.dptr = dptr);
}

GV_EXPORT CUresult cuGraphMemFreeNodeGetParams(CUgraphNode hNode, CUdeviceptr *dptr_out)
{
    GV_ENTER();
    NEED(dptr_out);
    GET(CU_GRAPH_NODE_TYPE_MEM_FREE, *dptr_out = p.free.dptr);
}

/* ---- attributes of kernel nodes ---- */
static struct gv_graph_node *kernel_node(CUgraphNode handle)
{
    struct gv_graph_node *node = gv_node_of(handle);
    return node != NULL && node->type == CU_GRAPH_NODE_TYPE_KERNEL ? node : NULL;
}

static CUresult replace_attributes(struct gv_graph_node *node, const struct gv_launch_attributes *attributes)
{
    struct gv_operation *changed;
    GV_TRY(gv_launch_with(node->work, attributes, &changed));
    gv_operation_release(node->work);
    node->work = changed;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphKernelNodeGetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
                                                 CUkernelNodeAttrValue *value_out)
{
    GV_ENTER();
    const struct gv_graph_node *node = kernel_node(hNode);
    if (node == NULL || value_out == NULL || !gv_attribute_of_node(attr))
        return CUDA_ERROR_INVALID_VALUE;
    return gv_attribute_get(gv_launch_attributes_of(node->work), attr, value_out);
}

GV_EXPORT CUresult cuGraphKernelNodeSetAttribute(CUgraphNode hNode, CUkernelNodeAttrID attr,
                                                 const CUkernelNodeAttrValue *value)
{
    GV_ENTER();
    struct gv_graph_node *node = kernel_node(hNode);
    if (node == NULL || value == NULL || !gv_attribute_of_node(attr))
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_launch_attributes attributes = *gv_launch_attributes_of(node->work);
    GV_TRY(gv_attribute_set(&attributes, attr, value));
    return replace_attributes(node, &attributes);
}

GV_EXPORT CUresult cuGraphKernelNodeCopyAttributes(CUgraphNode dst, CUgraphNode src)
{
    GV_ENTER();
    struct gv_graph_node *to = kernel_node(dst), *from = kernel_node(src);
    if (to == NULL || from == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    return replace_attributes(to, gv_launch_attributes_of(from->work));
}
