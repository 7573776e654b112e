/* SPDX-License-Identifier: Apache-2.0
 *
 * What programs found in the driver that the shim's headers do not have: unpublished or newer names, newer versions of known
 * ones, flags of a later CUDA. The driver's answer passes through; what is called by it is not governed. Each is remembered
 * once, counted, and told to the daemon.
 */
#ifndef GPUVIRT_SHIM_UNKNOWN_H
#define GPUVIRT_SHIM_UNKNOWN_H

#include <stdint.h>

struct gv_client;

enum gv_unknown_kind {
    GV_UNKNOWN_NAME = 1,    /* no such name in our headers */
    GV_UNKNOWN_VERSION = 2, /* a newer function of this name than our headers have */
    GV_UNKNOWN_FLAGS = 3,   /* asked for with flags that our headers do not have */
};

/* Remembers it unless that was done before. Any thread, no lock. */
void gv_unknown_add(const char *name, int version, enum gv_unknown_kind kind);

/* How many different ones there are so far. */
uint64_t gv_unknown_count(void);

/*
 * Control thread, each turn: what passes by us goes to the client page (the calls of passed.h too), and once for each of these
 * an EVENT to the daemon (connection < 0: later). Costs some loads when there is nothing new.
 */
void gv_unknown_tell(int connection, struct gv_client *page);

/* In the child of a fork. */
void gv_unknown_forget(void);

#endif
