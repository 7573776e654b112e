/* SPDX-License-Identifier: Apache-2.0
 *
 * cuGraphDebugDotPrint: the graph for Graphviz. Children and branches are clusters of their own.
 */
#include "graph.h"
#include "launch.h"
#include "module.h"

#include <stdio.h>

static const char *type_name(CUgraphNodeType type)
{
    switch (type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return "KERNEL";
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return "MEMCPY";
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return "MEMSET";
    case CU_GRAPH_NODE_TYPE_HOST:
        return "HOST";
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return "GRAPH";
    case CU_GRAPH_NODE_TYPE_EMPTY:
        return "EMPTY";
    case CU_GRAPH_NODE_TYPE_WAIT_EVENT:
        return "WAIT_EVENT";
    case CU_GRAPH_NODE_TYPE_EVENT_RECORD:
        return "EVENT_RECORD";
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return "MEM_ALLOC";
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return "MEM_FREE";
    case CU_GRAPH_NODE_TYPE_BATCH_MEM_OP:
        return "BATCH_MEM_OP";
    case CU_GRAPH_NODE_TYPE_CONDITIONAL:
        return "CONDITIONAL";
    default:
        return "OTHER";
    }
}

static bool asked(unsigned flags, unsigned which)
{
    return flags & (which | (unsigned)CU_GRAPH_DEBUG_DOT_FLAGS_VERBOSE);
}

static void print_details(FILE *file, const struct gv_graph_node *node, unsigned flags)
{
    CUgraphNodeParams p;
    gv_params_of_node(node, &p);
    if (node->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        fprintf(file, "\\n%s", gv_launch_function(node->work)->kernel->name);
        if (asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_KERNEL_NODE_PARAMS))
            fprintf(file, "\\n<<<(%u,%u,%u),(%u,%u,%u),%u>>>", p.kernel.gridDimX, p.kernel.gridDimY, p.kernel.gridDimZ,
                    p.kernel.blockDimX, p.kernel.blockDimY, p.kernel.blockDimZ, p.kernel.sharedMemBytes);
    } else if (node->type == CU_GRAPH_NODE_TYPE_MEMCPY) {
        static const char *const sides[] = {"?", "Host", "Device", "Array", "Unified"};
        const CUDA_MEMCPY3D *copy = &p.memcpy.copyParams;
        fprintf(file, "\\n%s to %s", sides[copy->srcMemoryType % 5], sides[copy->dstMemoryType % 5]);
        if (asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_MEMCPY_NODE_PARAMS))
            fprintf(file, "\\n%zu x %zu x %zu", copy->WidthInBytes, copy->Height, copy->Depth);
    } else if (node->type == CU_GRAPH_NODE_TYPE_MEMSET && asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_MEMSET_NODE_PARAMS)) {
        fprintf(file, "\\n0x%llx = %u, %zu x %zu of %u", (unsigned long long)p.memset.dst, p.memset.value,
                p.memset.width, p.memset.height, p.memset.elementSize);
    } else if (node->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC &&
               asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_MEM_ALLOC_NODE_PARAMS)) {
        fprintf(file, "\\n0x%llx, %zu bytes", (unsigned long long)p.alloc.dptr, p.alloc.bytesize);
    } else if (node->type == CU_GRAPH_NODE_TYPE_MEM_FREE &&
               asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_MEM_FREE_NODE_PARAMS)) {
        fprintf(file, "\\n0x%llx", (unsigned long long)p.free.dptr);
    }
    if (asked(flags, CU_GRAPH_DEBUG_DOT_FLAGS_HANDLES))
        fprintf(file, "\\n%p", (const void *)node);
}

static void print_graph(FILE *file, const struct gv_graph *graph, unsigned flags)
{
    fprintf(file, "subgraph cluster_%u {\nlabel=\"graph_%u\"\n", graph->number, graph->number);
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next) {
        fprintf(file, "\"graph_%u_node_%u\" [shape=box label=\"%u\\n%s", graph->number, node->local_id, node->local_id,
                type_name(node->type));
        print_details(file, node, flags);
        fputs("\"]\n", file);
    }
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next)
        for (uint32_t i = 0; i < node->after.count; i++)
            fprintf(file, "\"graph_%u_node_%u\" -> \"graph_%u_node_%u\"\n", graph->number, node->local_id,
                    graph->number, node->after.list[i].node->local_id);
    for (const struct gv_graph_node *node = graph->first; node != NULL; node = node->next) {
        if (node->child != NULL)
            print_graph(file, node->child, flags);
        for (uint32_t i = 0; node->branches != NULL && i < node->branches->count; i++)
            print_graph(file, node->branches->graphs[i], flags);
    }
    fputs("}\n", file);
}

GV_EXPORT CUresult cuGraphDebugDotPrint(CUgraph hGraph, const char *path, unsigned int flags)
{
    GV_ENTER();
    const struct gv_graph *graph = gv_graph_of(hGraph);
    if (graph == NULL || path == NULL)
        return CUDA_ERROR_INVALID_VALUE;
    FILE *file = fopen(path, "we");
    if (file == NULL)
        return CUDA_ERROR_OPERATING_SYSTEM;
    fputs("digraph dot {\n", file);
    print_graph(file, graph, flags);
    fputs("}\n", file);
    return fclose(file) == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}
