/* SPDX-License-Identifier: Apache-2.0
 *
 * Conditional nodes, for the parameters of nodes.
 */
#ifndef GPUVIRT_SOFTGPU_CONDITIONAL_H
#define GPUVIRT_SOFTGPU_CONDITIONAL_H

#include "graph.h"

/* Makes the branches; says in `params` where they are. */
CUresult gv_conditional_content(struct gv_graph *graph, CUDA_CONDITIONAL_NODE_PARAMS *params,
                                struct gv_content *content);

#endif
