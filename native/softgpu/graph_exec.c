/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGraphInstantiate*, cuGraphLaunch, cuGraphUpload, cuGraphExecDestroy.
 */
#include "graph_exec.h"
#include "capture.h"

#include <stdlib.h>

static _Atomic uint32_t last_number;
static pthread_mutex_t launching = PTHREAD_MUTEX_INITIALIZER; /* exec->last */

static bool add_users(struct gv_user_references *users, const struct gv_graph *graph)
{
    if (!gv_user_references_add(users, &graph->users))
        return false;
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next) {
        if (node->child != NULL && !add_users(users, node->child))
            return false;
        for (uint32_t i = 0; node->branches != NULL && i < node->branches->count; i++)
            if (!add_users(users, node->branches->graphs[i]))
                return false;
    }
    return true;
}

struct gv_owners *gv_owners_new(const struct gv_graph *graph)
{
    struct gv_owners *owners = calloc(1, sizeof *owners);
    if (owners == NULL)
        return NULL;
    atomic_store(&owners->references, 1);
    if (!add_users(&owners->users, graph)) {
        gv_owners_release(owners);
        return NULL;
    }
    return owners;
}

void gv_owners_release(struct gv_owners *owners)
{
    if (atomic_fetch_sub(&owners->references, 1) != 1)
        return;
    gv_user_references_release(&owners->users);
    free(owners);
}

/* For launches from the device, which kernels here cannot make: only what every such graph must be is checked. */
struct device_launch {
    const struct gv_plan_node *bad;
    CUgraphInstantiateResult reason;
    const struct gv_context *context;
    bool has_work;
};

static bool fits_device_launch(const struct gv_plan_node *node, void *data)
{
    struct device_launch *check = data;
    const bool work = node->type == CU_GRAPH_NODE_TYPE_KERNEL || node->type == CU_GRAPH_NODE_TYPE_MEMCPY ||
                      node->type == CU_GRAPH_NODE_TYPE_MEMSET;
    if (!work && node->type != CU_GRAPH_NODE_TYPE_GRAPH) {
        check->reason = CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED;
    } else if (work && check->context != NULL && node->work->context != check->context) {
        check->reason = CUDA_GRAPH_INSTANTIATE_MULTIPLE_CTXS_NOT_SUPPORTED;
    } else {
        check->has_work |= work;
        if (work)
            check->context = node->work->context;
        return true;
    }
    check->bad = node;
    return false;
}

static CUresult check_graph(const struct gv_graph *graph, uint64_t flags)
{
    const uint64_t known = CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                           CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY;
    const uint64_t excluded =
        CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH | CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH;
    if (flags & ~known || (flags & excluded) == excluded || graph->captures > 0 || graph->owner != NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (atomic_load(&graph->instances->alive) > 0 && (gv_graph_has_memory(graph) || gv_graph_has_conditionals(graph)))
        return CUDA_ERROR_INVALID_VALUE;
    return CUDA_SUCCESS;
}

static CUresult check_conditions(const struct gv_graph *graph, CUgraphInstantiateResult *reason)
{
    for (const struct gv_condition *condition = graph->conditions; condition != NULL; condition = condition->next)
        if (!condition->used) {
            *reason = CUDA_GRAPH_INSTANTIATE_CONDITIONAL_HANDLE_UNUSED;
            return CUDA_ERROR_INVALID_VALUE;
        }
    return CUDA_SUCCESS;
}

static CUresult instantiate(CUgraphExec *made, CUgraph hGraph, uint64_t flags, CUgraphNode *bad_node,
                            CUgraphInstantiateResult *reason)
{
    struct gv_graph *graph = gv_graph_of(hGraph);
    const struct gv_graph_node *bad;
    struct gv_plan *plan;
    *bad_node = NULL;
    *reason = CUDA_GRAPH_INSTANTIATE_ERROR;
    GV_READY();
    if (made == NULL || graph == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(check_graph(graph, flags));
    GV_TRY(check_conditions(graph, reason));
    const CUresult result = gv_plan_make(graph, &plan, &bad, reason);
    *bad_node = (CUgraphNode)bad;
    if (result != CUDA_SUCCESS)
        return result;
    struct device_launch check = {0};
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH &&
        (!gv_plan_each(plan, fits_device_launch, &check) || !check.has_work)) {
        *bad_node = check.bad != NULL ? (CUgraphNode)check.bad->node : NULL;
        *reason = check.bad != NULL ? check.reason : CUDA_GRAPH_INSTANTIATE_ERROR;
        gv_plan_release(plan);
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    struct gv_owners *owners = gv_owners_new(graph);
    struct gv_exec *exec = owners != NULL ? gv_object_new(GV_GRAPH_EXEC, sizeof *exec) : NULL;
    if (exec == NULL) {
        if (owners != NULL)
            gv_owners_release(owners);
        gv_plan_release(plan);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    exec->flags = flags & ~(uint64_t)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    exec->number = atomic_fetch_add(&last_number, 1) + 1;
    exec->last = (struct gv_dependency){NULL, 0};
    exec->plan = plan;
    exec->owners = owners;
    exec->instances = graph->instances;
    exec->has_memory = gv_graph_has_memory(graph);
    exec->has_conditions = gv_graph_has_conditionals(graph);
    atomic_fetch_add(&graph->instances->references, 1);
    atomic_fetch_add(&graph->instances->alive, 1);
    *made = (CUgraphExec)exec;
    *reason = CUDA_GRAPH_INSTANTIATE_SUCCESS;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec *phGraphExec, CUgraph hGraph, unsigned long long flags)
{
    GV_ENTER();
    CUgraphNode bad;
    CUgraphInstantiateResult reason;
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD) /* needs a stream */
        return CUDA_ERROR_INVALID_VALUE;
    return instantiate(phGraphExec, hGraph, flags, &bad, &reason);
}

GV_EXPORT CUresult cuGraphInstantiateWithParams(CUgraphExec *phGraphExec, CUgraph hGraph,
                                                CUDA_GRAPH_INSTANTIATE_PARAMS *params)
{
    GV_ENTER();
    if (params == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(instantiate(phGraphExec, hGraph, params->flags, &params->hErrNode_out, &params->result_out));
    if (!(params->flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD))
        return CUDA_SUCCESS;
    const CUresult result = cuGraphUpload(*phGraphExec, params->hUploadStream);
    if (result != CUDA_SUCCESS) {
        cuGraphExecDestroy(*phGraphExec);
        params->result_out = CUDA_GRAPH_INSTANTIATE_ERROR;
    }
    return result;
}

GV_EXPORT CUresult cuGraphInstantiate_v2(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                         char *logBuffer, size_t bufferSize)
{
    GV_ENTER();
    CUgraphNode bad;
    CUgraphInstantiateResult reason;
    const CUresult result = instantiate(phGraphExec, hGraph, 0, &bad, &reason);
    if (phErrorNode != NULL)
        *phErrorNode = bad;
    if (logBuffer != NULL && bufferSize > 0)
        logBuffer[0] = '\0';
    return result;
}

GV_EXPORT CUresult cuGraphInstantiate(CUgraphExec *phGraphExec, CUgraph hGraph, CUgraphNode *phErrorNode,
                                      char *logBuffer, size_t bufferSize)
{
    GV_ENTER();
    return cuGraphInstantiate_v2(phGraphExec, hGraph, phErrorNode, logBuffer, bufferSize);
}

GV_EXPORT CUresult cuGraphExecGetFlags(CUgraphExec hGraphExec, cuuint64_t *flags)
{
    GV_ENTER();
    const struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (exec == NULL || flags == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *flags = exec->flags;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphExecGetId(CUgraphExec hGraphExec, unsigned int *graphId)
{
    GV_ENTER();
    const struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (exec == NULL || graphId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *graphId = exec->number;
    return CUDA_SUCCESS;
}

struct graph_operation {
    struct gv_operation operation;
    struct gv_exec *exec; /* until it is armed: it may be destroyed then */
    struct gv_stream *stream;
    struct gv_dependency previous; /* launch */
    bool conditions;
    struct gv_plan *plan;
    struct gv_owners *owners;
    struct gv_operation *armed[];
};

static bool assign_condition(const struct gv_plan_node *node, void *data)
{
    (void)data;
    if (node->condition != NULL && node->condition->assign)
        atomic_store(&node->condition->value, node->condition->initial);
    return true;
}

static CUresult run_graph(struct gv_operation *operation, struct gv_stream *stream)
{
    struct graph_operation *launch = (struct graph_operation *)operation;
    if (launch->previous.gauge != NULL)
        gv_gauge_wait(launch->previous.gauge, launch->previous.value);
    if (launch->conditions)
        gv_plan_each(launch->plan, assign_condition, NULL);
    gv_plan_run(launch->plan, stream, launch->armed);
    return CUDA_SUCCESS;
}

static void arm_graph(struct gv_operation *operation)
{
    struct graph_operation *launch = (struct graph_operation *)operation;
    struct gv_stream *stream = launch->stream; /* whose lock is held: the next number is ours */
    pthread_mutex_lock(&launching);
    launch->previous = launch->exec->last;
    launch->exec->last = (struct gv_dependency){&stream->completed, atomic_load(&stream->submitted.value) + 1};
    pthread_mutex_unlock(&launching);
    gv_plan_arm(launch->plan, launch->armed);
}

static void drop_graph(struct gv_operation *operation)
{
    struct graph_operation *launch = (struct graph_operation *)operation;
    for (uint32_t i = 0; i < launch->plan->armed; i++)
        if (launch->armed[i] != NULL)
            gv_operation_release(launch->armed[i]);
    gv_plan_release(launch->plan);
    gv_owners_release(launch->owners);
}

/* Runs although its context may have failed: events must be recorded and later launches let go. Nodes look for themselves. */
static const struct gv_operation_kind graph_kind = {
    .node = GV_NO_NODE, .always = true, .work = true, .run = run_graph, .arm = arm_graph, .drop = drop_graph};

GV_EXPORT CUresult cuGraphLaunch(CUgraphExec hGraphExec, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (exec == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(stream->flags & GV_STREAM_LEGACY || gv_stream_captures(stream) ? gv_capture_check_stream(stream)
                                                                          : CUDA_SUCCESS);
    struct gv_plan *plan = exec->plan;
    GV_TRY(gv_plan_state(plan));
    struct graph_operation *launch = calloc(1, sizeof *launch + plan->armed * sizeof(struct gv_operation *));
    if (launch == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    launch->operation.kind = &graph_kind;
    gv_operation_made(&launch->operation, stream->context);
    launch->exec = exec;
    launch->stream = stream;
    launch->conditions = exec->has_conditions;
    launch->plan = plan;
    launch->owners = exec->owners;
    gv_plan_retain(plan);
    atomic_fetch_add(&launch->owners->references, 1);
    CUresult result = gv_plan_copy_armed(plan, launch->armed) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    if (result == CUDA_SUCCESS && exec->has_memory)
        result = gv_graph_memory_prepare(plan, true, exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
    if (result != CUDA_SUCCESS) {
        gv_operation_release(&launch->operation);
        return result;
    }
    GV_TRY(gv_stream_submit(stream, &launch->operation));
    if (exec->has_memory)
        gv_graph_memory_busy(plan, &stream->completed, atomic_load(&stream->submitted.value));
    return CUDA_SUCCESS;
}

/* What it does ahead of the first launch is to find memory. */
GV_EXPORT CUresult cuGraphUpload(CUgraphExec hGraphExec, CUstream hStream)
{
    GV_ENTER();
    struct gv_stream *stream;
    GV_TRY(gv_stream_of(hStream, &stream));
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (exec == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    GV_TRY(gv_capture_check_stream(stream));
    return exec->has_memory ? gv_graph_memory_prepare(exec->plan, false, false) : CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphExecDestroy(CUgraphExec hGraphExec)
{
    GV_ENTER();
    struct gv_exec *exec = gv_exec_of(hGraphExec);
    if (exec == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    atomic_fetch_sub(&exec->instances->alive, 1);
    gv_instances_of_graph_release(exec->instances);
    struct gv_plan *plan = exec->plan;
    struct gv_owners *owners = exec->owners;
    gv_object_free(exec, GV_GRAPH_EXEC);
    gv_plan_release(plan);
    gv_owners_release(owners);
    return CUDA_SUCCESS;
}
