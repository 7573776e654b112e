/* SPDX-License-Identifier: Apache-2.0
 *
 * Changes of executable graphs: one node at a time, or all from another graph of the same shape. A refused change leaves
 * everything as it was.
 */
#include "conditional.h"
#include "graph_exec.h"
#include "launch.h"
#include "memory.h"

#include <stdlib.h>
#include <string.h>

struct failure {
    CUgraphExecUpdateResult reason;
    const struct gv_graph_node *node, *from;
};

static CUresult refuse(struct failure *failure, CUgraphExecUpdateResult reason, const struct gv_graph_node *node)
{
    failure->reason = reason;
    failure->node = node;
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
}

/* Which side of a copy is what: neither the type of memory nor the device may change. */
static bool same_operand(CUmemorytype old_type, CUdeviceptr old, CUmemorytype new_type, CUdeviceptr new)
{
    if (old_type != new_type)
        return false;
    if (old_type == CU_MEMORYTYPE_HOST || old_type == CU_MEMORYTYPE_ARRAY)
        return true;
    return gv_same_memory(old, new);
}

static bool copy_may_change(const CUDA_MEMCPY3D *old, const CUDA_MEMCPY3D *new)
{
    const bool flat = old->Height <= 1 && old->Depth <= 1, stays_flat = new->Height <= 1 && new->Depth <= 1;
    return flat == stays_flat && same_operand(old->srcMemoryType, old->srcDevice, new->srcMemoryType, new->srcDevice) &&
           same_operand(old->dstMemoryType, old->dstDevice, new->dstMemoryType, new->dstDevice);
}

static bool fill_may_change(const CUDA_MEMSET_NODE_PARAMS_v2 *old, const CUDA_MEMSET_NODE_PARAMS_v2 *new)
{
    const bool flat = old->height <= 1, stays_flat = new->height <= 1;
    if (flat != stays_flat || !gv_same_memory(old->dst, new->dst))
        return false;
    return flat || (old->width == new->width && old->height == new->height && old->pitch == new->pitch &&
                    old->elementSize == new->elementSize);
}

static bool operations_may_change(const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2 *old,
                                  const CUDA_BATCH_MEM_OP_NODE_PARAMS_v2 *new)
{
    bool same = old->count == new->count;
    for (unsigned i = 0; same && i < old->count; i++)
        same = old->paramArray[i].operation == new->paramArray[i].operation;
    return same;
}

/* May this work take the place of that, in an executable graph? SUCCESS or why not. */
static CUgraphExecUpdateResult compare(struct gv_operation *old, struct gv_operation *new, bool whole_graph,
                                       uint64_t flags)
{
    CUgraphNodeParams before, after;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    old->kind->describe(old, &before);
    new->kind->describe(new, &after);
    if (old->kind->node == CU_GRAPH_NODE_TYPE_KERNEL) {
        const struct gv_launch_attributes *a = gv_launch_attributes_of(old), *b = gv_launch_attributes_of(new);
        if (old->context != new->context)
            return CU_GRAPH_EXEC_UPDATE_ERROR_UNSUPPORTED_FUNCTION_CHANGE;
        if (whole_graph && (a->cooperative != b->cooperative ||
                            (flags & CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY && a->priority != b->priority)))
            return CU_GRAPH_EXEC_UPDATE_ERROR_ATTRIBUTES_CHANGED;
        return CU_GRAPH_EXEC_UPDATE_SUCCESS;
    }
    bool fine = true;
    if (old->kind->node != CU_GRAPH_NODE_TYPE_WAIT_EVENT)
        fine = old->context == new->context;
    if (old->kind->node == CU_GRAPH_NODE_TYPE_MEMCPY)
        fine = fine && copy_may_change(&before.memcpy.copyParams, &after.memcpy.copyParams);
    if (old->kind->node == CU_GRAPH_NODE_TYPE_MEMSET)
        fine = fine && fill_may_change(&before.memset, &after.memset);
    if (old->kind->node == CU_GRAPH_NODE_TYPE_BATCH_MEM_OP)
        fine = fine && operations_may_change(&before.memOp, &after.memOp);
    if (old->kind->node == CU_GRAPH_NODE_TYPE_MEM_ALLOC || old->kind->node == CU_GRAPH_NODE_TYPE_MEM_FREE)
        fine = old == new; /* addresses are fixed: only the very same graph fits */
    return fine ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED;
}

/* ---- the whole graph ---- */
struct pairing {
    const struct gv_plan *old, *new;
    uint32_t *of_old, *of_new; /* number + 1; 0: not yet paired */
    uint32_t *stack, depth;
};

static CUresult pair(struct pairing *pairing, uint32_t old, uint32_t new, const struct gv_plan_node *parent,
                     struct failure *failure)
{
    const struct gv_plan_node *a = &pairing->old->nodes[old], *b = &pairing->new->nodes[new];
    if (pairing->of_old[old] == new + 1 && pairing->of_new[new] == old + 1)
        return CUDA_SUCCESS;
    if (pairing->of_old[old] != 0 || pairing->of_new[new] != 0) {
        failure->from = b->node;
        return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, parent != NULL ? parent->node : b->node);
    }
    if (a->before_count != b->before_count)
        return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, b->node);
    if (a->type != b->type)
        return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED, b->node);
    pairing->of_old[old] = new + 1;
    pairing->of_new[new] = old + 1;
    pairing->stack[pairing->depth++] = old;
    return CUDA_SUCCESS;
}

/* As documented: ends with ends in order, then backwards along the edges in order. */
static CUresult pair_all(struct pairing *pairing, struct failure *failure)
{
    const struct gv_plan *old = pairing->old, *new = pairing->new;
    if (old->count != new->count)
        return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, NULL);
    for (uint32_t i = 0, j = 0;; i++, j++) {
        while (i < old->count && old->nodes[i].after_count > 0)
            i++;
        while (j < new->count && new->nodes[j].after_count > 0)
            j++;
        if (i == old->count && j == new->count)
            break;
        if (i == old->count || j == new->count)
            return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED,
                          j < new->count ? new->nodes[j].node : NULL);
        GV_TRY(pair(pairing, i, j, NULL, failure));
    }
    while (pairing->depth > 0) {
        const uint32_t number = pairing->stack[--pairing->depth];
        const struct gv_plan_node *a = &old->nodes[number], *b = &new->nodes[pairing->of_old[number] - 1];
        for (uint32_t i = 0; i < a->before_count; i++)
            GV_TRY(pair(pairing, a->before[i], b->before[i], b, failure));
    }
    return CUDA_SUCCESS;
}

static CUresult update_plan(struct gv_plan **plan, const struct gv_plan *new, uint64_t flags, struct failure *failure);

static CUresult update_node(struct gv_plan_node *to, const struct gv_plan_node *from, uint64_t flags,
                            struct failure *failure)
{
    if (to->child != NULL)
        return update_plan(&to->child, from->child, flags, failure);
    if (to->condition != NULL) {
        if (to->condition_type != from->condition_type || to->branch_count != from->branch_count)
            return refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_PARAMETERS_CHANGED, from->node);
        for (uint32_t i = 0; i < to->branch_count; i++)
            GV_TRY(update_plan(&to->branches[i], from->branches[i], flags, failure));
        /* The kernels that were taken over set the new handle. */
        gv_condition_retain(from->condition);
        gv_condition_release(to->condition);
        to->condition = from->condition;
        return CUDA_SUCCESS;
    }
    if (to->work == NULL)
        return CUDA_SUCCESS;
    const CUgraphExecUpdateResult reason = compare(to->work, from->work, true, flags);
    if (reason != CU_GRAPH_EXEC_UPDATE_SUCCESS)
        return refuse(failure, reason, from->node);
    gv_operation_retain(from->work);
    gv_plan_set_work(to, from->work);
    return CUDA_SUCCESS;
}

static CUresult update_plan(struct gv_plan **plan, const struct gv_plan *new, uint64_t flags, struct failure *failure)
{
    if (!gv_plan_own(plan))
        return CUDA_ERROR_OUT_OF_MEMORY;
    const uint32_t count = (*plan)->count > new->count ? (*plan)->count : new->count;
    struct pairing pairing = {.old = *plan, .new = new, .of_old = calloc(count * 3 + 1, sizeof(uint32_t))};
    if (pairing.of_old == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    pairing.of_new = pairing.of_old + count;
    pairing.stack = pairing.of_new + count;
    CUresult result = pair_all(&pairing, failure);
    for (uint32_t i = 0; i < (*plan)->count && result == CUDA_SUCCESS; i++)
        if (pairing.of_old[i] == 0)
            result = refuse(failure, CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, NULL);
        else
            result = update_node(&(*plan)->nodes[i], &new->nodes[pairing.of_old[i] - 1], flags, failure);
    free(pairing.of_old);
    return result;
}

/* On a copy, which takes the plan's place when all went well. */
static CUresult update_exec(struct gv_exec *exec, const struct gv_graph *graph, struct failure *failure)
{
    const struct gv_graph_node *bad;
    CUgraphInstantiateResult reason;
    struct gv_plan *new, *changed = exec->plan;
    GV_TRY(gv_plan_make(graph, &new, &bad, &reason));
    struct gv_owners *owners = gv_owners_new(graph);
    gv_plan_retain(changed);
    CUresult result = owners != NULL ? update_plan(&changed, new, exec->flags, failure) : CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS) {
        struct gv_plan *old = exec->plan;
        exec->plan = changed;
        changed = old;
        struct gv_owners *old_owners = exec->owners;
        exec->owners = owners;
        owners = old_owners;
    }
    gv_plan_release(changed);
    gv_plan_release(new);
    if (owners != NULL)
        gv_owners_release(owners);
    return result;
}

GV_EXPORT CUresult cuGraphExecUpdate_v2(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphExecUpdateResultInfo *resultInfo)
{
    GV_ENTER();
    struct failure failure = {.reason = CU_GRAPH_EXEC_UPDATE_ERROR};
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (resultInfo == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    CUresult result = CUDA_ERROR_INVALID_VALUE;
    if (exec != NULL && graph != NULL && graph->captures == 0 && graph->owner == NULL)
        result = update_exec(exec, graph, &failure);
    resultInfo->result = result == CUDA_SUCCESS ? CU_GRAPH_EXEC_UPDATE_SUCCESS : failure.reason;
    resultInfo->errorNode = (CUgraphNode)failure.node;
    resultInfo->errorFromNode = (CUgraphNode)failure.from;
    return result;
}

GV_EXPORT CUresult cuGraphExecUpdate(CUgraphExec hGraphExec, CUgraph hGraph, CUgraphNode *hErrorNode_out,
                                     CUgraphExecUpdateResult *updateResult_out)
{
    GV_ENTER();
    CUgraphExecUpdateResultInfo info;
    if (updateResult_out == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    const CUresult result = cuGraphExecUpdate_v2(hGraphExec, hGraph, &info);
    if (hErrorNode_out != NULL)
        *hErrorNode_out = info.errorNode;
    *updateResult_out = info.result;
    return result;
}

/* ---- one node ---- */
static CUresult set_child(struct gv_exec *exec, CUgraphNode hNode, CUgraph hChild)
{
    GV_READY();
    const struct gv_graph_node *node = gv_node_of(hNode), *bad;
    const struct gv_graph *child = gv_graph_of(hChild);
    CUgraphInstantiateResult reason;
    struct failure failure = {0};
    if (exec == NULL || node == NULL || child == NULL || node->type != CU_GRAPH_NODE_TYPE_GRAPH ||
        gv_plan_find(exec->plan, node) == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_plan *new, *changed = exec->plan;
    GV_TRY(gv_plan_make(child, &new, &bad, &reason));
    gv_plan_retain(changed); /* so that the change is made to a copy */
    struct gv_plan_node *place = gv_plan_change(&changed, node);
    CUresult result = place == NULL ? CUDA_ERROR_OUT_OF_MEMORY : update_plan(&place->child, new, exec->flags, &failure);
    if (result == CUDA_SUCCESS) {
        struct gv_plan *old = exec->plan;
        exec->plan = changed;
        changed = old;
    }
    gv_plan_release(changed);
    gv_plan_release(new);
    return result == CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE ? CUDA_ERROR_INVALID_VALUE : result;
}

static CUresult set_params(struct gv_exec *exec, const struct gv_graph_node *node, const CUgraphNodeParams *params)
{
    struct gv_operation *work;
    const struct gv_plan_node *found = exec != NULL && node != NULL ? gv_plan_find(exec->plan, node) : NULL;
    if (found == NULL || params->type != found->type)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_params_to_work(params, found->type == CU_GRAPH_NODE_TYPE_KERNEL ? found->work : NULL, &work));
    if (compare(found->work, work, false, exec->flags) != CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        gv_operation_release(work);
        return CUDA_ERROR_INVALID_VALUE;
    }
    struct gv_plan_node *place = gv_plan_change(&exec->plan, node);
    if (place == NULL) {
        gv_operation_release(work);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    gv_plan_set_work(place, work);
    return CUDA_SUCCESS;
}

CUresult gv_exec_set_params(CUgraphExec hGraphExec, CUgraphNode hNode, const CUgraphNodeParams *params)
{
    GV_READY();
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (params->type == CU_GRAPH_NODE_TYPE_GRAPH)
        return set_child(exec, hNode, params->graph.graph);
    return set_params(exec, gv_node_of(hNode), params);
}

/* For types that documentation names; others are not to be switched off. */
static bool can_switch(CUgraphNodeType type)
{
    return type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_MEMSET || type == CU_GRAPH_NODE_TYPE_MEMCPY;
}

GV_EXPORT CUresult cuGraphNodeSetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int isEnabled)
{
    GV_ENTER();
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    const struct gv_graph_node *node = gv_node_of(hNode);
    if (exec == NULL || node == NULL || !can_switch(node->type) || gv_plan_find(exec->plan, node) == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_plan_node *place = gv_plan_change(&exec->plan, node);
    if (place == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    place->enabled = isEnabled != 0;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphNodeGetEnabled(CUgraphExec hGraphExec, CUgraphNode hNode, unsigned int *isEnabled)
{
    GV_ENTER();
    const struct gv_exec *exec = gv_exec_of(hGraphExec);
    const struct gv_graph_node *node = gv_node_of(hNode);
    if (exec == NULL || node == NULL || isEnabled == NULL || !can_switch(node->type))
        return CUDA_ERROR_INVALID_VALUE;
    const struct gv_plan_node *found = gv_plan_find(exec->plan, node);
    if (found == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *isEnabled = found->enabled;
    return CUDA_SUCCESS;
}
