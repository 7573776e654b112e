/* SPDX-License-Identifier: Apache-2.0
 *
 * Legacy IPC (cuIpc*MemHandle) between processes of one job. The 64 bytes name a process, a run of its extents and the
 * allocation in them; the importer maps the same extents at an address of its own. They stay resident in the exporter (kept)
 * until nothing there uses them any more, and are charged there, once.
 */
#ifndef GPUVIRT_SHIM_IPC_H
#define GPUVIRT_SHIM_IPC_H

#include "memory.h"

/* The allocation of another process that is open here around an address, as a range; 0: none. */
int gv_import_find(CUdeviceptr address, struct gv_range *range);
/* What a context had open is closed with it. */
void gv_imports_context_ended(CUcontext context);
/* Extents of another process are not its own any more: what is open of them here is charged here. Control thread. */
void gv_imports_orphaned(uint32_t pid, uint64_t nonce, uint64_t first, uint64_t count);
void gv_imports_forget(void); /* in the child of a fork */

#endif
