/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs: work with dependencies, described once and run many times.
 *
 *     graph.c            nodes and edges, clone, destroy     graph_topology.c  questions about them, and changes
 *     graph_params.c     parameters <-> work                 graph_nodes.c     one call per type of node
 *     graph_plan.c       executable form of a graph          graph_run.c       running it
 *     graph_exec.c       instantiate, launch, destroy        graph_update.c    changes of an executable graph
 *     graph_memory.c     memory with a graph's lifetime      conditional.c     bodies that run on a condition
 *     user_object.c      references to the program's things  graph_dot.c       a picture
 *     capture.c          streams that record
 *
 * As documented, a graph is not to be used by two threads at once: it has no lock. What streams record is under the lock of
 * capture.c.
 */
#ifndef GPUVIRT_SOFTGPU_GRAPH_H
#define GPUVIRT_SOFTGPU_GRAPH_H

#include "stream.h"

struct gv_graph;
struct gv_graph_node;

struct gv_edge {
    struct gv_graph_node *node;
    CUgraphEdgeData data; /* compared and handed out; every edge is a full dependency here */
};
struct gv_edges {
    struct gv_edge *list;
    uint32_t count, room;
};

/* ---- conditions (conditional.c) ---- */
struct gv_condition {
    _Atomic uint32_t value; /* first: the handle is its address, and kernels write to it */
    uint32_t references;    /* of graphs and plans; atomic */
    uint32_t initial;
    bool assign;               /* `initial` at the start of each launch */
    bool used;                 /* by a node */
    uint64_t graph_id;         /* of the graph that it was made for */
    struct gv_condition *next; /* graph->conditions */
};
void gv_condition_retain(struct gv_condition *condition);
void gv_condition_release(struct gv_condition *condition);

struct gv_branches { /* of a conditional node */
    struct gv_condition *condition;
    CUgraphConditionalNodeType type;
    uint32_t count;
    struct gv_graph *graphs[];
};

/* ---- user objects (user_object.c) ---- */
struct gv_user_object;
struct gv_user_references {
    struct gv_user_reference *list;
    uint32_t count, room;
};
/* Adds what `from` holds; false when out of memory. */
bool gv_user_references_add(struct gv_user_references *to, const struct gv_user_references *from);
/* May call destructors of the program: no lock is held. */
void gv_user_references_release(struct gv_user_references *references);

/* ---- graphs and nodes ---- */
struct gv_graph_node {
    struct gv_object object;
    struct gv_graph *graph;
    struct gv_graph_node *next, *previous; /* of the graph, in order of creation */
    uint64_t id;                           /* of the process, never used again */
    uint64_t origin;                       /* id of the node that it is a clone of; 0: none */
    uint32_t local_id;
    uint32_t mark; /* for walks */
    CUgraphNodeType type;
    struct gv_operation *work;    /* NULL: child graph, conditional, empty */
    struct gv_graph *child;       /* of a child graph node, its own */
    bool moved;                   /* the child was given, not copied */
    struct gv_branches *branches; /* of a conditional node */
    struct gv_edges before, after;
};

/* How many executable graphs made from a graph are alive. Graph and instances hold it: any may go first, in any thread. */
struct gv_instances_of_graph {
    _Atomic uint32_t references, alive;
};
void gv_instances_of_graph_release(struct gv_instances_of_graph *instances);

struct gv_graph {
    struct gv_object object;
    uint64_t id;
    uint32_t number; /* cuGraphGetId */
    uint64_t origin; /* id of the graph that it is a clone of */
    struct gv_graph_node *first, *last;
    uint32_t count, last_local_id;
    struct gv_graph_node *owner; /* the node whose child or branch it is; NULL: the program's */
    uint32_t memory_nodes;       /* allocations and frees: forbid removal, clones, second instances */
    uint32_t conditionals;       /* the same */
    struct gv_instances_of_graph *instances;
    uint32_t captures; /* that record into it: it cannot be instantiated */
    struct gv_condition *conditions;
    struct gv_user_references users;
};

static inline struct gv_graph *gv_graph_of(CUgraph handle)
{
    return gv_is(handle, GV_GRAPH) ? (struct gv_graph *)handle : NULL;
}
static inline struct gv_graph_node *gv_node_of(CUgraphNode handle)
{
    return gv_is(handle, GV_GRAPH_NODE) ? (struct gv_graph_node *)handle : NULL;
}

struct gv_graph *gv_graph_new(void);
/* With its nodes. */
void gv_graph_free(struct gv_graph *graph);
CUresult gv_graph_clone(const struct gv_graph *graph, struct gv_graph **clone);
/* Holds allocations, frees or (with `conditionals`) conditionals, its children's included. */
bool gv_graph_has_memory(const struct gv_graph *graph);
bool gv_graph_has_conditionals(const struct gv_graph *graph);

/* What a node does, before it is in a graph. */
struct gv_content {
    CUgraphNodeType type;
    struct gv_operation *work;
    struct gv_graph *child;
    bool moved;
    struct gv_branches *branches;
};
void gv_content_free(struct gv_content *content);

bool gv_edges_add(struct gv_edges *edges, struct gv_graph_node *node, CUgraphEdgeData data);
bool gv_edges_have(const struct gv_edges *edges, const struct gv_graph_node *node);
/* INVALID_VALUE for edges that are not of this graph, double or malformed; on success the node has the content. */
CUresult gv_node_add(struct gv_graph *graph, const CUgraphNode *dependencies, const CUgraphEdgeData *data, size_t count,
                     const struct gv_content *content, struct gv_graph_node **node);
CUresult gv_edge_check(const struct gv_graph *graph, CUgraphNode from, CUgraphNode to, const CUgraphEdgeData *data);
CUresult gv_node_connect(struct gv_graph_node *from, struct gv_graph_node *to, CUgraphEdgeData data);
void gv_node_disconnect(struct gv_graph_node *from, struct gv_graph_node *to);
void gv_node_remove(struct gv_graph_node *node);

/* ---- parameters (graph_params.c) ---- */
/* `old`: the work whose attributes a changed kernel node keeps; NULL: none. */
CUresult gv_params_to_work(const CUgraphNodeParams *params, const struct gv_operation *old, struct gv_operation **work);
/* For every type of node. Writes what the call returns in `params`. */
CUresult gv_params_to_content(struct gv_graph *graph, CUgraphNodeParams *params, struct gv_content *content);
void gv_params_of_node(const struct gv_graph_node *node, CUgraphNodeParams *params);

/* ---- nodes of allocation and free (graph_memory.c) ---- */
struct gv_graph_allocation;
/* At the device of the current context; the address is known from now on. */
CUresult gv_graph_allocate(struct gv_graph *graph, CUDA_MEM_ALLOC_NODE_PARAMS *params, struct gv_operation **work);
CUresult gv_graph_deallocate(struct gv_graph *graph, CUdeviceptr address, struct gv_operation **work);

#endif
