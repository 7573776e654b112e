/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory nodes of graphs. The driver allocates for them while it launches, keeps the memory for the next launch, and gives it
 * back when asked to trim. It does not move: fixed memory (GV_FIXED_GRAPH), charged as what the driver says it has reserved.
 *
 * Before the first launch of an executable graph since the last trim, the sum of its allocations is charged: beyond the quota
 * the launch is out of memory, and it waits until the device has room. Afterwards the charge follows the driver's figure.
 */
#ifndef GPUVIRT_SHIM_GRAPH_MEMORY_H
#define GPUVIRT_SHIM_GRAPH_MEMORY_H

/* Memory of graphs may have been freed: the charge follows. Any thread; costs one load while there is none. */
void gv_graph_memory_look(void);

/* Gives back what no graph uses now. Control thread, before others get the device. */
void gv_graph_memory_trim(void);

void gv_graph_memory_forget(void);

#endif
