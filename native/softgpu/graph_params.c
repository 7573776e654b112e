/* SPDX-License-Identifier: Apache-2.0
 *
 * Parameters of nodes and the work that they describe, in both directions. All calls that take parameters, for one type of
 * node or for any, old or new, end here.
 */
#include "conditional.h"
#include "copy.h"
#include "event.h"
#include "graph.h"
#include "launch.h"
#include "module.h"
#include "stream_values.h"

#include <stdlib.h>
#include <string.h>

/* NULL: that of the calling thread. */
static CUresult context_for(CUcontext handle, struct gv_context **context)
{
    if (handle == NULL)
        return gv_current_context(context);
    *context = gv_context_of(handle);
    return *context == NULL ? CUDA_ERROR_INVALID_CONTEXT : gv_context_state(*context);
}

static CUresult kernel_work(const CUDA_KERNEL_NODE_PARAMS_v3 *p, const struct gv_operation *old,
                            struct gv_context **context, struct gv_operation **work)
{
    struct gv_function *function = gv_function_of(p->func != NULL ? p->func : (CUfunction)p->kern);
    if (function == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (function->instance != NULL) {
        *context = function->instance->context;
        if (p->ctx != NULL && gv_context_of(p->ctx) != *context)
            return CUDA_ERROR_INVALID_CONTEXT;
    } else {
        GV_TRY(context_for(p->ctx, context));
    }
    const struct gv_launch launch = {
        .function = function,
        .grid = {p->gridDimX, p->gridDimY, p->gridDimZ},
        .block = {p->blockDimX, p->blockDimY, p->blockDimZ},
        .shared = p->sharedMemBytes,
        .params = p->kernelParams,
        .extra = p->extra,
        .attributes = old != NULL ? gv_launch_attributes_of(old) : NULL,
    };
    return gv_launch_make(&launch, *context, work);
}

static CUresult copy_work(const CUDA_MEMCPY_NODE_PARAMS *p, struct gv_context **context, struct gv_operation **work)
{
    struct gv_copy copy;
    if (p->flags != 0 || p->reserved != 0)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(context_for(p->copyCtx, context));
    GV_TRY(gv_copy_of_3d(&copy, &p->copyParams));
    if (copy.width == 0 || copy.height == 0 || copy.depth == 0)
        return CUDA_ERROR_INVALID_VALUE;
    return gv_copy_make(&copy, work);
}

static CUresult fill_work(const CUDA_MEMSET_NODE_PARAMS_v2 *p, struct gv_context **context, struct gv_operation **work)
{
    GV_TRY(context_for(p->ctx, context));
    if (p->width == 0 || p->height == 0)
        return CUDA_ERROR_INVALID_VALUE;
    return gv_fill_make(p, work);
}

/* The event's own context when there is no other: a wait may be for an event of anywhere. */
static CUresult event_work(CUevent event, CUcontext handle, bool record, struct gv_context **context,
                           struct gv_operation **work)
{
    if (!gv_is(event, GV_EVENT))
        return CUDA_ERROR_INVALID_VALUE;
    *context = ((const struct gv_event *)event)->context;
    if (handle != NULL)
        GV_TRY(context_for(handle, context));
    return record ? gv_event_make_record(event, work) : gv_event_make_wait(event, work);
}

CUresult gv_params_to_work(const CUgraphNodeParams *p, const struct gv_operation *old, struct gv_operation **work)
{
    struct gv_context *context = NULL;
    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        GV_TRY(kernel_work(&p->kernel, old, &context, work));
        break;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        GV_TRY(copy_work(&p->memcpy, &context, work));
        break;
    case CU_GRAPH_NODE_TYPE_MEMSET:
        GV_TRY(fill_work(&p->memset, &context, work));
        break;
    case CU_GRAPH_NODE_TYPE_HOST:
        GV_TRY(context_for(p->host.ctx, &context));
        GV_TRY(gv_host_make(p->host.fn, p->host.userData, work));
        break;
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        GV_TRY(event_work(p->eventRecord.event, p->eventRecord.ctx, true, &context, work));
        break;
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        GV_TRY(event_work(p->eventWait.event, NULL, false, &context, work));
        break;
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        if (p->memOp.flags != 0)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(context_for(p->memOp.ctx, &context));
        GV_TRY(gv_values_make(p->memOp.paramArray, p->memOp.count, false, work));
        break;
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_SIGNAL:
    case CU_GRAPH_NODE_TYPE_EXT_SEMAS_WAIT:
    case CU_GRAPH_NODE_TYPE_MEMCPY_BATCH:
    case CU_GRAPH_NODE_TYPE_EXTERNAL_ENGINE:
    case CU_GRAPH_NODE_TYPE_FABRIC_CPY_BATCH:
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
    case CU_GRAPH_NODE_TYPE_GRAPH:
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        return CUDA_ERROR_NOT_SUPPORTED;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    gv_operation_made(*work, context);
    return CUDA_SUCCESS;
}

/* Is `graph` this one or around it? */
static bool is_within(const struct gv_graph *inner, const struct gv_graph *graph)
{
    while (inner != graph && inner->owner != NULL)
        inner = inner->owner->graph;
    return inner == graph;
}

static CUresult child_content(struct gv_graph *graph, const CUDA_CHILD_GRAPH_NODE_PARAMS *p, struct gv_content *content)
{
    struct gv_graph *child = gv_graph_of(p->graph);
    if (child == NULL || child->captures > 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (p->ownership == CU_GRAPH_CHILD_GRAPH_OWNERSHIP_MOVE) {
        if (child->owner != NULL || atomic_load(&child->instances->alive) > 0 || is_within(graph, child))
            return CUDA_ERROR_INVALID_VALUE;
        if (gv_graph_has_conditionals(child))
            return CUDA_ERROR_NOT_SUPPORTED;
        content->child = child;
        content->moved = true;
        return CUDA_SUCCESS;
    }
    if (p->ownership != CU_GRAPH_CHILD_GRAPH_OWNERSHIP_CLONE)
        return CUDA_ERROR_INVALID_VALUE;
    if (gv_graph_has_memory(child) || gv_graph_has_conditionals(child))
        return CUDA_ERROR_NOT_SUPPORTED;
    return gv_graph_clone(child, &content->child);
}

CUresult gv_params_to_content(struct gv_graph *graph, CUgraphNodeParams *p, struct gv_content *content)
{
    *content = (struct gv_content){.type = p->type};
    switch (p->type) {
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return CUDA_SUCCESS;
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return child_content(graph, &p->graph, content);
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        return gv_conditional_content(graph, &p->conditional, content);
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return gv_graph_allocate(graph, (CUDA_MEM_ALLOC_NODE_PARAMS *)&p->alloc, &content->work);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return gv_graph_deallocate(graph, p->free.dptr, &content->work);
    default:
        return gv_params_to_work(p, NULL, &content->work);
    }
}

void gv_params_of_node(const struct gv_graph_node *node, CUgraphNodeParams *params)
{
    memset(params, 0, sizeof *params);
    params->type = node->type;
    if (node->work != NULL) {
        node->work->kind->describe(node->work, params);
    } else if (node->child != NULL) {
        params->graph.graph = (CUgraph)node->child;
        params->graph.ownership = CU_GRAPH_CHILD_GRAPH_OWNERSHIP_INVALID;
    } else if (node->branches != NULL) {
        params->conditional.handle = (CUgraphConditionalHandle)(uintptr_t)node->branches->condition;
        params->conditional.type = node->branches->type;
        params->conditional.size = node->branches->count;
        params->conditional.phGraph_out = (CUgraph *)node->branches->graphs;
    }
}
