/* SPDX-License-Identifier: Apache-2.0
 *
 * Conditional nodes. The handle of a condition is the address of its value: cudaGraphSetConditional in a kernel is a store.
 */
#include "conditional.h"

#include <stdlib.h>

void gv_condition_retain(struct gv_condition *condition)
{
    __atomic_fetch_add(&condition->references, 1, __ATOMIC_RELAXED);
}

void gv_condition_release(struct gv_condition *condition)
{
    if (__atomic_sub_fetch(&condition->references, 1, __ATOMIC_ACQ_REL) == 0)
        free(condition);
}

GV_EXPORT CUresult cuGraphConditionalHandleCreate(CUgraphConditionalHandle *pHandle_out, CUgraph hGraph, CUcontext ctx,
                                                  unsigned int defaultLaunchValue, unsigned int flags)
{
    GV_ENTER();
    struct gv_graph *graph = gv_graph_of(hGraph);
    if (pHandle_out == NULL || graph == NULL || flags & ~(unsigned)CU_GRAPH_COND_ASSIGN_DEFAULT)
        return CUDA_ERROR_INVALID_VALUE;
    if (ctx == NULL)
        GV_TRY(cuCtxGetCurrent(&ctx));
    if (gv_context_of(ctx) == NULL)
        return CUDA_ERROR_INVALID_CONTEXT;
    struct gv_condition *condition = calloc(1, sizeof *condition);
    if (condition == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    condition->references = 1;
    condition->initial = defaultLaunchValue;
    condition->assign = flags != 0;
    condition->graph_id = graph->id;
    condition->next = graph->conditions;
    graph->conditions = condition;
    *pHandle_out = (CUgraphConditionalHandle)(uintptr_t)condition;
    return CUDA_SUCCESS;
}

/* Made for this graph or one around it. */
static struct gv_condition *find_condition(const struct gv_graph *graph, CUgraphConditionalHandle handle)
{
    for (; graph != NULL; graph = graph->owner != NULL ? graph->owner->graph : NULL)
        for (struct gv_condition *condition = graph->conditions; condition != NULL; condition = condition->next)
            if ((uintptr_t)condition == handle)
                return condition;
    return NULL;
}

CUresult gv_conditional_content(struct gv_graph *graph, CUDA_CONDITIONAL_NODE_PARAMS *params,
                                struct gv_content *content)
{
    struct gv_condition *condition = find_condition(graph, params->handle);
    if (condition == NULL || condition->used || (unsigned)params->type > CU_GRAPH_COND_TYPE_SWITCH || params->size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if ((params->type == CU_GRAPH_COND_TYPE_WHILE && params->size != 1) ||
        (params->type == CU_GRAPH_COND_TYPE_IF && params->size > 2) || params->size > UINT16_MAX)
        return CUDA_ERROR_INVALID_VALUE;
    struct gv_branches *branches = calloc(1, sizeof *branches + params->size * sizeof(struct gv_graph *));
    if (branches == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    branches->condition = condition;
    branches->type = params->type;
    gv_condition_retain(condition);
    content->branches = branches;
    for (; branches->count < params->size; branches->count++) {
        branches->graphs[branches->count] = gv_graph_new();
        if (branches->graphs[branches->count] == NULL) {
            gv_content_free(content);
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    condition->used = true;
    params->phGraph_out = (CUgraph *)branches->graphs;
    return CUDA_SUCCESS;
}
