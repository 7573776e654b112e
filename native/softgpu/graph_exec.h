/* SPDX-License-Identifier: Apache-2.0
 *
 * Executable graphs. Launches of one follow each other; each keeps the plan that it was given.
 */
#ifndef GPUVIRT_SOFTGPU_GRAPH_EXEC_H
#define GPUVIRT_SOFTGPU_GRAPH_EXEC_H

#include "graph_plan.h"

/* The program's things, until neither the executable graph nor a launch of it needs them. */
struct gv_owners {
    _Atomic uint32_t references;
    struct gv_user_references users;
};

struct gv_exec {
    struct gv_object object;
    uint64_t flags; /* CUDA_GRAPH_INSTANTIATE_FLAG_* */
    uint32_t number;
    struct gv_plan *plan;
    struct gv_owners *owners;
    struct gv_instances_of_graph *instances; /* of the graph that it was made from */
    bool has_memory, has_conditions;
    struct gv_dependency last; /* launch: the next one comes after it. Under `launching` of graph_exec.c */
};

static inline struct gv_exec *gv_exec_of(CUgraphExec handle)
{
    return gv_is(handle, GV_GRAPH_EXEC) ? (struct gv_exec *)handle : NULL;
}
struct gv_owners *gv_owners_new(const struct gv_graph *graph); /* NULL: out of memory */
void gv_owners_release(struct gv_owners *owners);

/* New parameters for a node (graph_update.c). */
CUresult gv_exec_set_params(CUgraphExec exec, CUgraphNode node, const CUgraphNodeParams *params);

/* ---- memory of graphs at a launch (graph_memory.c) ---- */
/* Gives all its allocations memory and takes note of what is allocated and freed. `launch` false: an upload, memory only. */
CUresult gv_graph_memory_prepare(const struct gv_plan *plan, bool launch, bool auto_free);
/* The allocations are in use until the gauge is there. */
void gv_graph_memory_busy(const struct gv_plan *plan, struct gv_gauge *gauge, uint64_t until);

/* ---- between graph_memory.c and graph_memory_api.c; under gv_memory_lock ---- */
struct gv_graph_allocation *gv_graph_allocation_of(const struct gv_operation *work);
bool gv_graph_allocation_stays(const struct gv_graph_allocation *allocation); /* is not freed by its own graph */
void gv_graph_allocation_set(struct gv_graph_allocation *allocation, bool outstanding);
void gv_graph_allocation_want(struct gv_graph_allocation *allocation, bool wanted);
CUresult gv_graph_allocation_give(struct gv_graph_allocation *allocation);
void gv_graph_allocation_busy(struct gv_graph_allocation *allocation, struct gv_gauge *gauge, uint64_t until);
uint64_t gv_graph_memory_sum(int device, bool used);
uint64_t *gv_graph_memory_high(int device, bool used);
void gv_graph_memory_trim(int device);

#endif
