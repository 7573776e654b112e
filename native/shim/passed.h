/* SPDX-License-Identifier: Apache-2.0
 *
 * How often functions of class pass-through were called. Their forwarders (shim_forwarders.S) add one to the function's counter
 * and one to the sum, in one of GV_PASSED_SHARDS pages, chosen by bits of the thread's own address: neighbouring threads
 * use different pages. The adds are plain: two threads that share a page and call at the same instant may leave one count
 * instead of two. So the counts are lower bounds, exact for programs of one thread; nothing is decided by them.
 */
#ifndef GPUVIRT_SHIM_PASSED_H
#define GPUVIRT_SHIM_PASSED_H

#include <stdint.h>

/* Calls of all of them so far. Some loads; any thread. */
uint64_t gv_passed_total(void);

/* Stores the total there if it is larger than what is: a reader never sees it fall. Any thread. */
void gv_passed_publish(uint64_t *field);

/* Calls of one symbol so far (its `counter` in gv_symbols). */
uint64_t gv_passed_calls(unsigned counter);

/* With GPUVIRT_SHIM_DEBUG: one line for each symbol that was called for the first time since the last report. */
void gv_passed_report(void);

/* In the child of a fork: its counts start at zero. */
void gv_passed_forget(void);

#endif
