/* SPDX-License-Identifier: Apache-2.0
 *
 * The few lines that the shim may say in somebody else's program. errno is kept; nothing is allocated.
 */
#ifndef GPUVIRT_SHIM_LOG_H
#define GPUVIRT_SHIM_LOG_H

/* One line on stderr, "gpuvirt[pid]: ...": only for what the user must know (cannot attach, cannot go on). */
void gv_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same, only with GPUVIRT_SHIM_DEBUG=1. */
void gv_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
