/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs as data: nodes, edges, clone, destroy. See graph.h.
 */
#include "graph.h"

#include <stdlib.h>
#include <string.h>

static _Atomic uint64_t last_graph, last_node;

void gv_instances_of_graph_release(struct gv_instances_of_graph *instances)
{
    if (atomic_fetch_sub(&instances->references, 1) == 1)
        free(instances);
}

struct gv_graph *gv_graph_new(void)
{
    struct gv_instances_of_graph *instances = malloc(sizeof *instances);
    struct gv_graph *graph = instances != NULL ? gv_object_new(GV_GRAPH, sizeof *graph) : NULL;
    if (graph == NULL) {
        free(instances);
        return NULL;
    }
    const struct gv_object object = graph->object;
    memset((char *)graph + sizeof object, 0, sizeof *graph - sizeof object);
    graph->id = atomic_fetch_add(&last_graph, 1) + 1;
    graph->number = (uint32_t)graph->id;
    atomic_store(&instances->references, 1);
    atomic_store(&instances->alive, 0);
    graph->instances = instances;
    return graph;
}

bool gv_edges_add(struct gv_edges *edges, struct gv_graph_node *node, CUgraphEdgeData data)
{
    if (edges->count == edges->room) {
        const uint32_t room = edges->room * 2 + 2;
        struct gv_edge *list = realloc(edges->list, room * sizeof *list);
        if (list == NULL)
            return false;
        edges->list = list;
        edges->room = room;
    }
    edges->list[edges->count++] = (struct gv_edge){node, data};
    return true;
}

bool gv_edges_have(const struct gv_edges *edges, const struct gv_graph_node *node)
{
    for (uint32_t i = 0; i < edges->count; i++)
        if (edges->list[i].node == node)
            return true;
    return false;
}

/* The order of the others stays: programs see it, and updates pair edges by it. */
static void edges_remove(struct gv_edges *edges, const struct gv_graph_node *node)
{
    for (uint32_t i = 0; i < edges->count; i++)
        if (edges->list[i].node == node) {
            memmove(edges->list + i, edges->list + i + 1, (edges->count - i - 1) * sizeof *edges->list);
            edges->count--;
            return;
        }
}

static bool is_default(const CUgraphEdgeData *data)
{
    static const CUgraphEdgeData none;
    return memcmp(data, &none, sizeof none) == 0;
}

CUresult gv_edge_check(const struct gv_graph *graph, CUgraphNode from, CUgraphNode to, const CUgraphEdgeData *data)
{
    const struct gv_graph_node *source = gv_node_of(from), *target = gv_node_of(to);
    static const unsigned char zeros[sizeof data->reserved];
    if (source == NULL || source->graph != graph || source == target ||
        (to != NULL && (target == NULL || target->graph != graph)))
        return CUDA_ERROR_INVALID_VALUE;
    if (data == NULL || is_default(data))
        return CUDA_SUCCESS;
    if (data->to_port != 0 || memcmp(data->reserved, zeros, sizeof zeros) != 0 ||
        source->type != CU_GRAPH_NODE_TYPE_KERNEL)
        return CUDA_ERROR_INVALID_VALUE;
    if (data->type == CU_GRAPH_DEPENDENCY_TYPE_PROGRAMMATIC)
        return (target == NULL || target->type == CU_GRAPH_NODE_TYPE_KERNEL) &&
                       (data->from_port == CU_GRAPH_KERNEL_NODE_PORT_PROGRAMMATIC ||
                        data->from_port == CU_GRAPH_KERNEL_NODE_PORT_LAUNCH_ORDER)
                   ? CUDA_SUCCESS
                   : CUDA_ERROR_INVALID_VALUE;
    return data->type == CU_GRAPH_DEPENDENCY_TYPE_DEFAULT && data->from_port == CU_GRAPH_KERNEL_NODE_PORT_DEFAULT
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

CUresult gv_node_connect(struct gv_graph_node *from, struct gv_graph_node *to, CUgraphEdgeData data)
{
    if (!gv_edges_add(&from->after, to, data))
        return CUDA_ERROR_OUT_OF_MEMORY;
    if (!gv_edges_add(&to->before, from, data)) {
        from->after.count--;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

void gv_node_disconnect(struct gv_graph_node *from, struct gv_graph_node *to)
{
    edges_remove(&from->after, to);
    edges_remove(&to->before, from);
}

static void set_owner(struct gv_graph_node *node)
{
    if (node->child != NULL)
        node->child->owner = node;
    for (uint32_t i = 0; node->branches != NULL && i < node->branches->count; i++)
        node->branches->graphs[i]->owner = node;
}

static struct gv_graph_node *append(struct gv_graph *graph, const struct gv_content *content)
{
    struct gv_graph_node *node = gv_object_new(GV_GRAPH_NODE, sizeof *node);
    if (node == NULL)
        return NULL;
    const struct gv_object object = node->object;
    memset((char *)node + sizeof object, 0, sizeof *node - sizeof object);
    node->graph = graph;
    node->id = atomic_fetch_add(&last_node, 1) + 1;
    node->local_id = graph->last_local_id++;
    node->type = content->type;
    node->work = content->work;
    node->child = content->child;
    node->moved = content->moved;
    node->branches = content->branches;
    node->previous = graph->last;
    if (graph->last != NULL)
        graph->last->next = node;
    else
        graph->first = node;
    graph->last = node;
    graph->count++;
    graph->memory_nodes += node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || node->type == CU_GRAPH_NODE_TYPE_MEM_FREE;
    graph->conditionals += node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL;
    set_owner(node);
    return node;
}

CUresult gv_node_add(struct gv_graph *graph, const CUgraphNode *dependencies, const CUgraphEdgeData *data, size_t count,
                     const struct gv_content *content, struct gv_graph_node **added)
{
    static const CUgraphEdgeData none;
    if (count > 0 && dependencies == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; i < count; i++) {
        GV_TRY(gv_edge_check(graph, dependencies[i], NULL, data != NULL ? &data[i] : NULL));
        if (data != NULL && data[i].type != CU_GRAPH_DEPENDENCY_TYPE_DEFAULT &&
            content->type != CU_GRAPH_NODE_TYPE_KERNEL)
            return CUDA_ERROR_INVALID_VALUE;
        for (size_t j = 0; j < i && count <= 64; j++) /* longer lists: found below, as they are linked */
            if (dependencies[j] == dependencies[i])
                return CUDA_ERROR_INVALID_VALUE;
    }
    struct gv_graph_node *node = append(graph, content);
    if (node == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    for (size_t i = 0; i < count; i++) {
        struct gv_graph_node *from = gv_node_of(dependencies[i]);
        const bool twice = from->after.count > 0 && from->after.list[from->after.count - 1].node == node;
        const CUresult result =
            twice ? CUDA_ERROR_INVALID_VALUE : gv_node_connect(from, node, data != NULL ? data[i] : none);
        if (result != CUDA_SUCCESS) {
            if (node->child != NULL) /* the content stays with the caller */
                node->child->owner = NULL;
            node->work = NULL;
            node->child = NULL;
            node->branches = NULL;
            gv_node_remove(node);
            return result;
        }
    }
    *added = node;
    return CUDA_SUCCESS;
}

void gv_content_free(struct gv_content *content)
{
    if (content->work != NULL)
        gv_operation_release(content->work);
    if (content->child != NULL && !content->moved)
        gv_graph_free(content->child);
    for (uint32_t i = 0; content->branches != NULL && i < content->branches->count; i++)
        gv_graph_free(content->branches->graphs[i]);
    if (content->branches != NULL) {
        content->branches->condition->used = false;
        gv_condition_release(content->branches->condition);
    }
    free(content->branches);
    *content = (struct gv_content){0};
}

void gv_node_remove(struct gv_graph_node *node)
{
    struct gv_graph *graph = node->graph;
    for (uint32_t i = 0; i < node->before.count; i++)
        edges_remove(&node->before.list[i].node->after, node);
    for (uint32_t i = 0; i < node->after.count; i++)
        edges_remove(&node->after.list[i].node->before, node);
    free(node->before.list);
    free(node->after.list);
    if (node->previous != NULL)
        node->previous->next = node->next;
    else
        graph->first = node->next;
    if (node->next != NULL)
        node->next->previous = node->previous;
    else
        graph->last = node->previous;
    graph->count--;
    graph->memory_nodes -= node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || node->type == CU_GRAPH_NODE_TYPE_MEM_FREE;
    graph->conditionals -= node->type == CU_GRAPH_NODE_TYPE_CONDITIONAL;
    struct gv_content content = {node->type, node->work, node->child, false, node->branches};
    gv_content_free(&content);
    gv_object_free(node, GV_GRAPH_NODE);
}

void gv_graph_free(struct gv_graph *graph)
{
    /* All nodes go: no edge is worth unlinking from its other end. */
    for (struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        node->before.count = node->after.count = 0;
    while (graph->first != NULL)
        gv_node_remove(graph->first);
    for (struct gv_condition *condition = graph->conditions, *next; condition != NULL; condition = next) {
        next = condition->next;
        gv_condition_release(condition);
    }
    struct gv_user_references users = graph->users;
    gv_instances_of_graph_release(graph->instances);
    gv_object_free(graph, GV_GRAPH);
    gv_user_references_release(&users);
}

static CUresult clone_node(struct gv_graph *graph, struct gv_graph_node *from)
{
    struct gv_content content = {.type = from->type, .work = from->work};
    if (from->child != NULL)
        GV_TRY(gv_graph_clone(from->child, &content.child));
    if (content.work != NULL)
        gv_operation_retain(content.work);
    struct gv_graph_node *node = append(graph, &content);
    if (node == NULL) {
        gv_content_free(&content);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    node->origin = from->id;
    node->local_id = from->local_id;
    return CUDA_SUCCESS;
}

/* The i-th node of the clone is that of the i-th node. */
static CUresult clone_edges(const struct gv_graph *from, struct gv_graph *to)
{
    struct gv_graph_node **nodes = calloc(from->count + 1, sizeof(struct gv_graph_node *));
    CUresult result = nodes == NULL ? CUDA_ERROR_OUT_OF_MEMORY : CUDA_SUCCESS;
    uint32_t number = 0;
    struct gv_graph_node *copy = to->first;
    for (struct gv_graph_node *node = from->first; result == CUDA_SUCCESS && node != NULL; node = node->next) {
        node->mark = number;
        nodes[number++] = copy;
        copy = copy->next;
    }
    /* Both lists of a node in their own order. */
    for (struct gv_graph_node *node = from->first; result == CUDA_SUCCESS && node != NULL; node = node->next) {
        copy = nodes[node->mark];
        for (uint32_t i = 0; i < node->before.count && result == CUDA_SUCCESS; i++)
            if (!gv_edges_add(&copy->before, nodes[node->before.list[i].node->mark], node->before.list[i].data))
                result = CUDA_ERROR_OUT_OF_MEMORY;
        for (uint32_t i = 0; i < node->after.count && result == CUDA_SUCCESS; i++)
            if (!gv_edges_add(&copy->after, nodes[node->after.list[i].node->mark], node->after.list[i].data))
                result = CUDA_ERROR_OUT_OF_MEMORY;
    }
    free(nodes);
    return result;
}

CUresult gv_graph_clone(const struct gv_graph *graph, struct gv_graph **clone)
{
    struct gv_graph *made = gv_graph_new();
    if (made == NULL)
        return CUDA_ERROR_OUT_OF_MEMORY;
    made->origin = graph->id;
    CUresult result = CUDA_SUCCESS;
    for (struct gv_graph_node *node = graph->first; node != NULL && result == CUDA_SUCCESS; node = node->next)
        result = clone_node(made, node);
    made->last_local_id = graph->last_local_id;
    if (result == CUDA_SUCCESS)
        result = clone_edges(graph, made);
    if (result == CUDA_SUCCESS && !gv_user_references_add(&made->users, &graph->users))
        result = CUDA_ERROR_OUT_OF_MEMORY;
    if (result != CUDA_SUCCESS) {
        gv_graph_free(made);
        return result;
    }
    *clone = made;
    return CUDA_SUCCESS;
}

bool gv_graph_has_memory(const struct gv_graph *graph)
{
    if (graph->memory_nodes > 0)
        return true;
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        if (node->child != NULL && gv_graph_has_memory(node->child))
            return true;
    return false;
}

bool gv_graph_has_conditionals(const struct gv_graph *graph)
{
    if (graph->conditionals > 0)
        return true;
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        if (node->child != NULL && gv_graph_has_conditionals(node->child))
            return true;
    return false;
}
