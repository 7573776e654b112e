/* SPDX-License-Identifier: Apache-2.0
 *
 * What the shim knows of each documented symbol: gv_symbols[], in the order of the table of the real driver. Generated from
 * NVIDIA's headers, generate/classes.tsv and hooked_functions.h (generate/forwarders.py); this header includes none of
 * NVIDIA's, because the table only takes addresses.
 */
#ifndef GPUVIRT_SHIM_SYMBOLS_H
#define GPUVIRT_SHIM_SYMBOLS_H

#include <stdint.h>

#include "header_version.h"

enum gv_class { /* the order of CLASSES in generate/forwarders.py */
                GV_CLASS_UNCLASSIFIED = 0,
                GV_CLASS_BOOTSTRAP = 1,
                GV_CLASS_VIRTUALIZE = 2,
                GV_CLASS_ACCOUNT = 3,
                GV_CLASS_GATE = 4,
                GV_CLASS_ORDER_ONLY = 5,
                GV_CLASS_SYNC_AWARE = 6,
                GV_CLASS_CAPTURE_AWARE = 7,
                GV_CLASS_GRAPH_RECORD = 8,
                GV_CLASS_HANDLE_RECORD = 9,
                GV_CLASS_CHECKPOINT = 10,
                GV_CLASS_PASS_THROUGH = 11,
};

struct gv_symbol {
    const char *name; /* of the ABI: cuMemAlloc_v2 */
    void *
        answer; /* what cuGetProcAddress gives for it: our function, or our counting forwarder; NULL: the driver's own */
    uint16_t counter; /* of its calls (passed.h); 0: not counted */
    uint8_t class;    /* enum gv_class */
    uint8_t hooked;   /* 1: a function of ours, not a forwarder */
};
extern const struct gv_symbol gv_symbols[GV_SYMBOL_COUNT] __attribute__((visibility("hidden")));

#endif
