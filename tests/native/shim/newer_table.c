/* SPDX-License-Identifier: Apache-2.0
 *
 * Every documented function of newer_driver.c, as a jump to the driver behind it. In a file of its own: those that
 * newer_driver.c defines win over these.
 */
#define GV_SYMBOL(index, symbol)                                                                                       \
    __asm__(".weak " #symbol "\n.type " #symbol ", @function\n" #symbol ": jmp *behind+8*" #index "(%rip)\n");
#include "entry_points.inc"
#undef GV_SYMBOL
