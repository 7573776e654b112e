/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGraphExec*NodeSetParams: the call for all types of node, and the older ones, one for each.
 */
#include "graph_exec.h"

#include <string.h>

GV_EXPORT CUresult cuGraphExecNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraphNodeParams *nodeParams)
{
    GV_ENTER();
    return nodeParams == NULL ? CUDA_ERROR_INVALID_VALUE : gv_exec_set_params(hGraphExec, hNode, nodeParams);
}

/* `fill` copies what the call takes into `p`; the old structs are the beginning of the new ones. */
#define SET(type_, fill)                                                                                               \
    CUgraphNodeParams p;                                                                                               \
    memset(&p, 0, sizeof p);                                                                                           \
    p.type = type_;                                                                                                    \
    fill;                                                                                                              \
    return gv_exec_set_params(hGraphExec, hNode, &p)
#define FROM(member, pointer)                                                                                          \
    if ((pointer) == NULL)                                                                                             \
        return CUDA_ERROR_INVALID_VALUE;                                                                               \
    memcpy(&p.member, pointer, sizeof *(pointer))

GV_EXPORT CUresult cuGraphExecKernelNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_KERNEL_NODE_PARAMS_v1 *nodeParams)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_KERNEL, FROM(kernel, nodeParams));
}

GV_EXPORT CUresult cuGraphExecKernelNodeSetParams_v2(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                     const CUDA_KERNEL_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_KERNEL, FROM(kernel, nodeParams));
}

GV_EXPORT CUresult cuGraphExecMemcpyNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMCPY3D *copyParams, CUcontext ctx)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_MEMCPY, FROM(memcpy.copyParams, copyParams); p.memcpy.copyCtx = ctx);
}

GV_EXPORT CUresult cuGraphExecMemsetNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                  const CUDA_MEMSET_NODE_PARAMS *memsetParams, CUcontext ctx)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_MEMSET, FROM(memset, memsetParams); p.memset.ctx = ctx);
}

GV_EXPORT CUresult cuGraphExecHostNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                const CUDA_HOST_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_HOST, FROM(host, nodeParams));
}

GV_EXPORT CUresult cuGraphExecChildGraphNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode, CUgraph childGraph)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_GRAPH, p.graph.graph = childGraph);
}

GV_EXPORT CUresult cuGraphExecEventRecordNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_EVENT_RECORD, p.eventRecord.event = event);
}

GV_EXPORT CUresult cuGraphExecEventWaitNodeSetEvent(CUgraphExec hGraphExec, CUgraphNode hNode, CUevent event)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_WAIT_EVENT, p.eventWait.event = event);
}

GV_EXPORT CUresult cuGraphExecBatchMemOpNodeSetParams(CUgraphExec hGraphExec, CUgraphNode hNode,
                                                      const CUDA_BATCH_MEM_OP_NODE_PARAMS *nodeParams)
{
    GV_ENTER();
    SET(CU_GRAPH_NODE_TYPE_BATCH_MEM_OP, FROM(memOp, nodeParams));
}
