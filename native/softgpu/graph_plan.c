/* SPDX-License-Identifier: Apache-2.0
 *
 * Making plans of graphs, and changing them. See graph_plan.h.
 */
#include "graph_plan.h"

#include <stdlib.h>
#include <string.h>

void gv_plan_retain(struct gv_plan *plan) { atomic_fetch_add_explicit(&plan->references, 1, memory_order_relaxed); }

void gv_plan_release(struct gv_plan *plan)
{
    if (atomic_fetch_sub_explicit(&plan->references, 1, memory_order_acq_rel) != 1)
        return;
    for (uint32_t i = 0; i < plan->count; i++) {
        struct gv_plan_node *node = &plan->nodes[i];
        if (node->work != NULL)
            gv_operation_release(node->work);
        if (node->child != NULL)
            gv_plan_release(node->child);
        for (uint32_t j = 0; j < node->branch_count; j++)
            if (node->branches[j] != NULL)
                gv_plan_release(node->branches[j]);
        free(node->branches);
        if (node->condition != NULL)
            gv_condition_release(node->condition);
    }
    free(plan->order);
    free(plan->links);
    free(plan);
}

static struct gv_plan *new_plan(uint32_t count, uint32_t links)
{
    struct gv_plan *plan = calloc(1, sizeof *plan + count * sizeof(struct gv_plan_node));
    if (plan == NULL)
        return NULL;
    atomic_store(&plan->references, 1);
    plan->link_count = links;
    plan->order = calloc(count + 1, sizeof *plan->order);
    plan->links = calloc(links + 1, sizeof *plan->links);
    if (plan->order != NULL && plan->links != NULL) {
        plan->count = count;
        return plan;
    }
    gv_plan_release(plan);
    return NULL;
}

/* What cannot be in the branch of a condition. */
static bool is_allowed_in_branch(CUgraphNodeType type)
{
    return type == CU_GRAPH_NODE_TYPE_KERNEL || type == CU_GRAPH_NODE_TYPE_EMPTY || type == CU_GRAPH_NODE_TYPE_GRAPH ||
           type == CU_GRAPH_NODE_TYPE_MEMSET || type == CU_GRAPH_NODE_TYPE_MEMCPY ||
           type == CU_GRAPH_NODE_TYPE_CONDITIONAL;
}

static CUresult make(const struct gv_graph *graph, bool in_branch, struct gv_plan **made,
                     const struct gv_graph_node **bad, CUgraphInstantiateResult *reason);

static CUresult make_branches(struct gv_plan_node *to, const struct gv_branches *from, const struct gv_graph_node **bad,
                              CUgraphInstantiateResult *reason)
{
    to->condition = from->condition;
    gv_condition_retain(to->condition);
    to->condition_type = from->type;
    to->branches = calloc(from->count, sizeof(struct gv_plan *));
    if (to->branches == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (; to->branch_count < from->count; to->branch_count++)
        GV_TRY(make(from->graphs[to->branch_count], true, &to->branches[to->branch_count], bad, reason));
    return CUDA_SUCCESS;
}

static CUresult make_node(struct gv_plan *plan, struct gv_plan_node *to, const struct gv_graph_node *from,
                          bool in_branch, const struct gv_graph_node **bad, CUgraphInstantiateResult *reason)
{
    to->node = from;
    to->id = from->id;
    to->type = from->type;
    to->enabled = true;
    to->armed = GV_NOT_ARMED;
    if (in_branch && !is_allowed_in_branch(from->type)) {
        *bad = from;
        *reason = CUDA_GRAPH_INSTANTIATE_NODE_OPERATION_NOT_SUPPORTED;
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (from->work != NULL) {
        to->work = from->work;
        gv_operation_retain(to->work);
        if (to->work->kind->arm != NULL)
            to->armed = plan->armed++;
    }
    if (from->child != NULL) {
        GV_TRY(make(from->child, in_branch, &to->child, bad, reason));
        to->armed = plan->armed;
        plan->armed += to->child->armed;
    }
    return from->branches != NULL ? make_branches(to, from->branches, bad, reason) : CUDA_SUCCESS;
}

static void copy_links(struct gv_plan *plan, const struct gv_graph *graph)
{
    uint32_t number = 0, used = 0;
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next, number++) {
        struct gv_plan_node *to = &plan->nodes[number];
        to->before = plan->links + used;
        to->before_count = node->before.count;
        for (uint32_t i = 0; i < node->before.count; i++)
            plan->links[used++] = node->before.list[i].node->mark;
        to->after = plan->links + used;
        to->after_count = node->after.count;
        for (uint32_t i = 0; i < node->after.count; i++)
            plan->links[used++] = node->after.list[i].node->mark;
    }
}

/* Nodes that are ready in order of creation; what is in a cycle never gets ready. */
static CUresult sort(struct gv_plan *plan, const struct gv_graph_node **bad, CUgraphInstantiateResult *reason)
{
    uint32_t *missing = calloc(plan->count + 1, sizeof *missing);
    uint32_t taken = 0, ready = 0;
    if (missing == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    plan->linear = true;
    for (uint32_t i = 0; i < plan->count; i++) {
        missing[i] = plan->nodes[i].before_count;
        if (missing[i] == 0)
            plan->order[ready++] = i;
    }
    for (; taken < ready; taken++) {
        if (ready - taken > 1)
            plan->linear = false;
        const struct gv_plan_node *node = &plan->nodes[plan->order[taken]];
        for (uint32_t i = 0; i < node->after_count; i++)
            if (--missing[node->after[i]] == 0)
                plan->order[ready++] = node->after[i];
    }
    for (uint32_t i = 0; ready < plan->count && i < plan->count; i++)
        if (missing[i] > 0)
            *bad = plan->nodes[i].node;
    free(missing);
    if (ready == plan->count)
        return CUDA_SUCCESS;
    *reason = CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE;
    return CUDA_ERROR_INVALID_VALUE;
}

static CUresult make(const struct gv_graph *graph, bool in_branch, struct gv_plan **made,
                     const struct gv_graph_node **bad, CUgraphInstantiateResult *reason)
{
    uint32_t links = 0, number = 0;
    for (struct gv_graph_node *node = graph->first; node != NULL; node = node->next) {
        node->mark = number++;
        links += node->before.count + node->after.count;
    }
    struct gv_plan *plan = new_plan(graph->count, links);
    if (plan == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    copy_links(plan, graph);
    CUresult result = CUDA_SUCCESS;
    number = 0;
    for (const struct gv_graph_node *node = graph->first; node != NULL && result == CUDA_SUCCESS; node = node->next)
        result = make_node(plan, &plan->nodes[number++], node, in_branch, bad, reason);
    if (result == CUDA_SUCCESS)
        result = sort(plan, bad, reason);
    if (result != CUDA_SUCCESS) {
        gv_plan_release(plan);
        return result;
    }
    *made = plan;
    return CUDA_SUCCESS;
}

CUresult gv_plan_make(const struct gv_graph *graph, struct gv_plan **plan, const struct gv_graph_node **bad,
                      CUgraphInstantiateResult *reason)
{
    *bad = NULL;
    *reason = CUDA_GRAPH_INSTANTIATE_ERROR;
    return make(graph, false, plan, bad, reason);
}

/* The copy shares the work, the children and the branches. */
bool gv_plan_own(struct gv_plan **plan)
{
    struct gv_plan *old = *plan;
    if (atomic_load(&old->references) == 1)
        return true;
    struct gv_plan *copy = new_plan(old->count, old->link_count);
    if (copy == NULL)
        return false;
    copy->armed = old->armed;
    copy->linear = old->linear;
    memcpy(copy->order, old->order, old->count * sizeof *old->order);
    memcpy(copy->links, old->links, old->link_count * sizeof *old->links);
    for (uint32_t i = 0; i < old->count; i++) {
        struct gv_plan_node *to = &copy->nodes[i];
        const struct gv_plan_node *from = &old->nodes[i];
        *to = *from;
        to->before = copy->links + (from->before - old->links);
        to->after = copy->links + (from->after - old->links);
        if (to->work != NULL)
            gv_operation_retain(to->work);
        if (to->child != NULL)
            gv_plan_retain(to->child);
        if (to->condition != NULL)
            gv_condition_retain(to->condition);
        to->branches = from->branch_count > 0 ? calloc(from->branch_count, sizeof(struct gv_plan *)) : NULL;
        if (from->branch_count > 0 && to->branches == NULL) {
            to->branch_count = 0;
            copy->count = i + 1;
            gv_plan_release(copy);
            return false;
        }
        for (uint32_t j = 0; j < from->branch_count; j++) {
            to->branches[j] = from->branches[j];
            gv_plan_retain(to->branches[j]);
        }
    }
    gv_plan_release(old);
    *plan = copy;
    return true;
}

void gv_plan_set_work(struct gv_plan_node *node, struct gv_operation *work)
{
    if (node->work != NULL)
        gv_operation_release(node->work);
    node->work = work;
}

const struct gv_plan_node *gv_plan_find(const struct gv_plan *plan, const struct gv_graph_node *node)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct gv_plan_node *here = &plan->nodes[i], *found = NULL;
        if (here->node == node && here->id == node->id)
            return here;
        if (here->child != NULL)
            found = gv_plan_find(here->child, node);
        for (uint32_t j = 0; j < here->branch_count && found == NULL; j++)
            found = gv_plan_find(here->branches[j], node);
        if (found != NULL)
            return found;
    }
    return NULL;
}

struct gv_plan_node *gv_plan_change(struct gv_plan **plan, const struct gv_graph_node *node)
{
    if (gv_plan_find(*plan, node) == NULL || !gv_plan_own(plan))
        return NULL;
    for (uint32_t i = 0; i < (*plan)->count; i++) {
        struct gv_plan_node *here = &(*plan)->nodes[i], *found = NULL;
        if (here->node == node && here->id == node->id)
            return here;
        if (here->child != NULL)
            found = gv_plan_change(&here->child, node);
        for (uint32_t j = 0; j < here->branch_count && found == NULL; j++)
            found = gv_plan_change(&here->branches[j], node);
        if (found != NULL)
            return found;
    }
    return NULL;
}

bool gv_plan_each(const struct gv_plan *plan, bool (*visit)(const struct gv_plan_node *node, void *data), void *data)
{
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct gv_plan_node *node = &plan->nodes[plan->order[i]];
        if (!visit(node, data) || (node->child != NULL && !gv_plan_each(node->child, visit, data)))
            return false;
        for (uint32_t j = 0; j < node->branch_count; j++)
            if (!gv_plan_each(node->branches[j], visit, data))
                return false;
    }
    return true;
}

static CUresult state_of(const struct gv_operation *work)
{
    if (work->context == NULL)
        return CUDA_SUCCESS;
    GV_TRY(gv_context_state(work->context));
    return work->context->id == work->context_id ? CUDA_SUCCESS : CUDA_ERROR_CONTEXT_IS_DESTROYED;
}

/* Nearly always all nodes are of one context: each is looked at only where that differs from the one before. */
CUresult gv_plan_state(const struct gv_plan *plan)
{
    const struct gv_operation *last = NULL;
    for (uint32_t i = 0; i < plan->count; i++) {
        const struct gv_plan_node *node = &plan->nodes[i];
        if (node->child != NULL)
            GV_TRY(gv_plan_state(node->child));
        if (node->work == NULL || (last != NULL && node->work->context_id == last->context_id))
            continue;
        last = node->work;
        GV_TRY(state_of(last));
    }
    return CUDA_SUCCESS;
}
