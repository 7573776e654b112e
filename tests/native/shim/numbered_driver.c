/* SPDX-License-Identifier: Apache-2.0
 *
 * A libcuda.so.1 whose functions all answer with their number, to see that each forwarder leads to the function of its name.
 */
#define GV_SYMBOL(index, symbol)                                                                                       \
    __attribute__((visibility("default"))) int symbol(void);                                                           \
    int symbol(void) { return 1000 + index; }
#include "entry_points.inc"
