/* SPDX-License-Identifier: Apache-2.0
 *
 * Undocumented tables of functions (cuGetExportTable): passed through untouched, since the CUDA runtime checks them; what is
 * called through one is not governed. Each UUID that is asked for is remembered once and told to the daemon.
 */
#ifndef GPUVIRT_SHIM_TABLES_H
#define GPUVIRT_SHIM_TABLES_H

#include <stddef.h>

/* Control thread: the next UUID that was not told yet, as a sentence; returns 0 when there is none. */
int gv_table_next(char *text, size_t size);

/* In the child of a fork. */
void gv_tables_forget(void);

#endif
