/* SPDX-License-Identifier: Apache-2.0
 *
 * What programs found in the driver that the shim's headers do not have: unpublished or newer names, newer versions of known
 * ones, flags of a later CUDA. The driver's answer passes through; what is called by it is not governed. Each is remembered
 * once, counted, and told to the daemon.
 */
#ifndef GPUVIRT_SHIM_UNKNOWN_H
#define GPUVIRT_SHIM_UNKNOWN_H

#include <stddef.h>
#include <stdint.h>

enum gv_unknown_kind {
    GV_UNKNOWN_NAME = 1,    /* no such name in our headers */
    GV_UNKNOWN_VERSION = 2, /* a newer function of this name than our headers have */
    GV_UNKNOWN_FLAGS = 3,   /* asked for with flags that our headers do not have */
};

/* Remembers it unless that was done before. Any thread, no lock. */
void gv_unknown_add(const char *name, int version, enum gv_unknown_kind kind);

/* How many different ones there are so far. */
uint64_t gv_unknown_count(void);

/* Control thread: the next one that was not told yet, as a sentence; returns 0 when there is none. */
int gv_unknown_next(char *text, size_t size);

/* In the child of a fork. */
void gv_unknown_forget(void);

#endif
