/* SPDX-License-Identifier: Apache-2.0
 *
 * Plans: graphs as they are run. A plan does not change once a launch holds it: changes are made to a copy, so that launches
 * that are queued or running keep what they were given.
 */
#ifndef GPUVIRT_SOFTGPU_GRAPH_PLAN_H
#define GPUVIRT_SOFTGPU_GRAPH_PLAN_H

#include "graph.h"

#define GV_NOT_ARMED UINT32_MAX

struct gv_plan;

struct gv_plan_node {
    const struct gv_graph_node *node; /* that it was made from; with `id`, since it may be gone */
    uint64_t id;
    CUgraphNodeType type;
    bool enabled;
    struct gv_operation *work;
    struct gv_plan *child;
    struct gv_condition *condition; /* of a conditional */
    CUgraphConditionalNodeType condition_type;
    uint32_t branch_count;
    struct gv_plan **branches;
    uint32_t *before, *after; /* numbers of nodes, in the order of the edges; in plan->links */
    uint32_t before_count, after_count;
    uint32_t armed; /* place of its work among the launch's own; of a child: of its first */
};

struct gv_plan {
    _Atomic uint32_t references;
    uint32_t count;
    uint32_t armed;  /* pieces of work that each launch needs for itself, children's included */
    bool linear;     /* never two nodes ready at the same time */
    uint32_t *order; /* a topological order of the numbers */
    uint32_t *links;
    uint32_t link_count;
    struct gv_plan_node nodes[]; /* in order of creation */
};

/* On failure `bad` is the node at fault, or NULL. */
CUresult gv_plan_make(const struct gv_graph *graph, struct gv_plan **plan, const struct gv_graph_node **bad,
                      CUgraphInstantiateResult *reason);
void gv_plan_retain(struct gv_plan *plan);
void gv_plan_release(struct gv_plan *plan);
/* The node in the plan or its children, for reading; NULL: not there. */
const struct gv_plan_node *gv_plan_find(const struct gv_plan *plan, const struct gv_graph_node *node);
/* The same for changing: the plans on the way are ours alone afterwards. NULL: out of memory. */
struct gv_plan_node *gv_plan_change(struct gv_plan **plan, const struct gv_graph_node *node);
/* Makes it ours alone. */
bool gv_plan_own(struct gv_plan **plan);
/* SUCCESS, or why the context of some node can run nothing: failed, destroyed, reset. */
CUresult gv_plan_state(const struct gv_plan *plan);
void gv_plan_set_work(struct gv_plan_node *node, struct gv_operation *work); /* takes the reference */

/* Makes the launch's own pieces of work, and gives conditions their first values. */
bool gv_plan_copy_armed(const struct gv_plan *plan, struct gv_operation **armed);
/* In submission order. */
void gv_plan_arm(const struct gv_plan *plan, struct gv_operation **armed);
/* Runs it and waits for its end (graph_run.c). Errors go to the contexts of the nodes. */
void gv_plan_run(const struct gv_plan *plan, struct gv_stream *stream, struct gv_operation *const *armed);

/* Calls `visit` for each node, children's and branches' included, until it answers false. */
bool gv_plan_each(const struct gv_plan *plan, bool (*visit)(const struct gv_plan_node *node, void *data), void *data);

#endif
