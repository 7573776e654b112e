/* SPDX-License-Identifier: Apache-2.0
 *
 * Questions about nodes and edges, and changes of them; whole graphs made, copied, destroyed.
 */
#include "graph.h"

#include <string.h>

GV_EXPORT CUresult cuGraphCreate(CUgraph *phGraph, unsigned int flags)
{
    GV_ENTER();
    if (phGraph == NULL || flags != 0)
        return CUDA_ERROR_INVALID_VALUE;
    *phGraph = (CUgraph)gv_graph_new();
    return *phGraph == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
}

/* A child or branch goes with its node; what streams record into belongs to them until the end of the capture. */
GV_EXPORT CUresult cuGraphDestroy(CUgraph hGraph)
{
    GV_ENTER();
    struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || graph->owner != NULL || graph->captures > 0)
        return CUDA_ERROR_INVALID_VALUE;
    gv_graph_free(graph);
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphClone(CUgraph *phGraphClone, CUgraph originalGraph)
{
    GV_ENTER();
    const struct gv_graph *graph = gv_graph_of(originalGraph);
    struct gv_graph *clone;
    if (phGraphClone == NULL || graph == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    if (gv_graph_has_memory(graph) || gv_graph_has_conditionals(graph))
        return CUDA_ERROR_NOT_SUPPORTED;
    GV_TRY(gv_graph_clone(graph, &clone));
    *phGraphClone = (CUgraph)clone;
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphNodeFindInClone(CUgraphNode *phNode, CUgraphNode hOriginalNode, CUgraph hClonedGraph)
{
    GV_ENTER();
    const struct gv_graph_node *original = gv_node_of(hOriginalNode);
    const struct gv_graph *clone = gv_graph_of(hClonedGraph);
    if (phNode == NULL || original == NULL || clone == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (struct gv_graph_node *node = clone->first; node != NULL; node = node->next)
        if (node->origin == original->id) {
            *phNode = (CUgraphNode)node;
            return CUDA_SUCCESS;
        }
    return CUDA_ERROR_INVALID_VALUE;
}

#define NODE_QUESTION(name, type, value)                                                                               \
    GV_EXPORT CUresult name(CUgraphNode hNode, type *answer)                                                           \
    {                                                                                                                  \
        GV_ENTER();                                                                                                    \
        const struct gv_graph_node *node = gv_node_of(hNode);                                                          \
        if (node == NULL || answer == NULL)                                                                            \
            return CUDA_ERROR_INVALID_VALUE;                                                                           \
        *answer = value;                                                                                               \
        return CUDA_SUCCESS;                                                                                           \
    }
NODE_QUESTION(cuGraphNodeGetType, CUgraphNodeType, node->type)
NODE_QUESTION(cuGraphNodeGetContainingGraph, CUgraph, (CUgraph)node->graph)
NODE_QUESTION(cuGraphNodeGetLocalId, unsigned int, node->local_id)
NODE_QUESTION(cuGraphNodeGetToolsId, unsigned long long, node->id)

GV_EXPORT CUresult cuGraphGetId(CUgraph hGraph, unsigned int *graphId)
{
    GV_ENTER();
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || graphId == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    *graphId = graph->number;
    return CUDA_SUCCESS;
}

/* The protocol of all lists: without an array the count is told; an array longer than needed ends in NULLs. */
struct answer {
    CUgraphNode *first, *second;
    CUgraphEdgeData *data;
    bool lossy; /* the caller cannot be told the data of edges */
    size_t room, found;
    CUresult result;
};

static void put(struct answer *answer, const struct gv_graph_node *first, const struct gv_graph_node *second,
                const CUgraphEdgeData *data)
{
    static const CUgraphEdgeData none;
    if (answer->found < answer->room && answer->first != NULL) {
        answer->first[answer->found] = (CUgraphNode)first;
        if (answer->second != NULL)
            answer->second[answer->found] = (CUgraphNode)second;
        if (answer->data != NULL)
            answer->data[answer->found] = data != NULL ? *data : none;
        else if (data != NULL && memcmp(data, &none, sizeof none) != 0)
            answer->result = CUDA_ERROR_LOSSY_QUERY;
    }
    answer->found++;
}

static CUresult finish(struct answer *answer, size_t *count)
{
    const size_t filled = answer->first != NULL && answer->found > answer->room ? answer->room : answer->found;
    for (size_t i = answer->found; answer->first != NULL && i < answer->room; i++) {
        answer->first[i] = NULL;
        if (answer->second != NULL)
            answer->second[i] = NULL;
        if (answer->data != NULL)
            memset(&answer->data[i], 0, sizeof *answer->data);
    }
    *count = filled;
    return answer->result;
}

static CUresult list_nodes(CUgraph hGraph, CUgraphNode *nodes, size_t *count, bool roots)
{
    GV_READY();
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || count == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    struct answer answer = {.first = nodes, .room = nodes != NULL ? *count : 0};
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        if (!roots || node->before.count == 0)
            put(&answer, node, NULL, NULL);
    return finish(&answer, count);
}

GV_EXPORT CUresult cuGraphGetNodes(CUgraph hGraph, CUgraphNode *nodes, size_t *numNodes)
{
    GV_ENTER();
    return list_nodes(hGraph, nodes, numNodes, false);
}

GV_EXPORT CUresult cuGraphGetRootNodes(CUgraph hGraph, CUgraphNode *rootNodes, size_t *numRootNodes)
{
    GV_ENTER();
    return list_nodes(hGraph, rootNodes, numRootNodes, true);
}

GV_EXPORT CUresult cuGraphGetEdges_v2(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, CUgraphEdgeData *edgeData,
                                      size_t *numEdges)
{
    GV_ENTER();
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || numEdges == NULL || (from == NULL) != (to == NULL) || (edgeData != NULL && from == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    struct answer answer = {.first = from, .second = to, .data = edgeData, .room = from != NULL ? *numEdges : 0};
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        for (uint32_t i = 0; i < node->after.count; i++)
            put(&answer, node, node->after.list[i].node, &node->after.list[i].data);
    return finish(&answer, numEdges);
}

GV_EXPORT CUresult cuGraphGetEdges(CUgraph hGraph, CUgraphNode *from, CUgraphNode *to, size_t *numEdges)
{
    GV_ENTER();
    return cuGraphGetEdges_v2(hGraph, from, to, NULL, numEdges);
}

static CUresult neighbours(CUgraphNode hNode, CUgraphNode *nodes, CUgraphEdgeData *data, size_t *count, bool after)
{
    GV_READY();
    const struct gv_graph_node *node = gv_node_of(hNode);
    if (node == NULL || count == NULL || (data != NULL && nodes == NULL))
        return CUDA_ERROR_INVALID_VALUE;
    const struct gv_edges *edges = after ? &node->after : &node->before;
    struct answer answer = {.first = nodes, .data = data, .room = nodes != NULL ? *count : 0};
    for (uint32_t i = 0; i < edges->count; i++)
        put(&answer, edges->list[i].node, NULL, &edges->list[i].data);
    return finish(&answer, count);
}

GV_EXPORT CUresult cuGraphNodeGetDependencies_v2(CUgraphNode hNode, CUgraphNode *dependencies,
                                                 CUgraphEdgeData *edgeData, size_t *numDependencies)
{
    GV_ENTER();
    return neighbours(hNode, dependencies, edgeData, numDependencies, false);
}

GV_EXPORT CUresult cuGraphNodeGetDependencies(CUgraphNode hNode, CUgraphNode *dependencies, size_t *numDependencies)
{
    GV_ENTER();
    return neighbours(hNode, dependencies, NULL, numDependencies, false);
}

GV_EXPORT CUresult cuGraphNodeGetDependentNodes_v2(CUgraphNode hNode, CUgraphNode *dependentNodes,
                                                   CUgraphEdgeData *edgeData, size_t *numDependentNodes)
{
    GV_ENTER();
    return neighbours(hNode, dependentNodes, edgeData, numDependentNodes, true);
}

GV_EXPORT CUresult cuGraphNodeGetDependentNodes(CUgraphNode hNode, CUgraphNode *dependentNodes,
                                                size_t *numDependentNodes)
{
    GV_ENTER();
    return neighbours(hNode, dependentNodes, NULL, numDependentNodes, true);
}

GV_EXPORT CUresult cuGraphAddDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                             const CUgraphEdgeData *edgeData, size_t numDependencies)
{
    GV_ENTER();
    static const CUgraphEdgeData none;
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || (numDependencies > 0 && (from == NULL || to == NULL)))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < numDependencies; i++) {
        if (to[i] == NULL)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_edge_check(graph, from[i], to[i], edgeData != NULL ? &edgeData[i] : NULL));
        if (gv_edges_have(&gv_node_of(to[i])->before, gv_node_of(from[i])))
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < numDependencies; i++)
        GV_TRY(gv_node_connect(gv_node_of(from[i]), gv_node_of(to[i]), edgeData != NULL ? edgeData[i] : none));
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphAddDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                          size_t numDependencies)
{
    GV_ENTER();
    return cuGraphAddDependencies_v2(hGraph, from, to, NULL, numDependencies);
}

static const struct gv_edge *find_edge(const struct gv_graph_node *from, const struct gv_graph_node *to)
{
    for (uint32_t i = 0; i < from->after.count; i++)
        if (from->after.list[i].node == to)
            return &from->after.list[i];
    return NULL;
}

GV_EXPORT CUresult cuGraphRemoveDependencies_v2(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                                const CUgraphEdgeData *edgeData, size_t numDependencies)
{
    GV_ENTER();
    static const CUgraphEdgeData none;
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || (numDependencies > 0 && (from == NULL || to == NULL)) ||
        (numDependencies > 0 && graph->memory_nodes > 0))
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < numDependencies; i++) {
        if (to[i] == NULL)
            return CUDA_ERROR_INVALID_VALUE;
        GV_TRY(gv_edge_check(graph, from[i], to[i], NULL));
        const struct gv_edge *edge = find_edge(gv_node_of(from[i]), gv_node_of(to[i]));
        if (edge == NULL || memcmp(&edge->data, edgeData != NULL ? &edgeData[i] : &none, sizeof none) != 0)
            return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < numDependencies; i++)
        gv_node_disconnect(gv_node_of(from[i]), gv_node_of(to[i]));
    return CUDA_SUCCESS;
}

GV_EXPORT CUresult cuGraphRemoveDependencies(CUgraph hGraph, const CUgraphNode *from, const CUgraphNode *to,
                                             size_t numDependencies)
{
    GV_ENTER();
    return cuGraphRemoveDependencies_v2(hGraph, from, to, NULL, numDependencies);
}

GV_EXPORT CUresult cuGraphDestroyNode(CUgraphNode hNode)
{
    GV_ENTER();
    struct gv_graph_node *node = gv_node_of(hNode);
    if (node == NULL || node->graph->memory_nodes > 0 || node->graph->captures > 0)
        return CUDA_ERROR_INVALID_VALUE;
    gv_node_remove(node);
    return CUDA_SUCCESS;
}
