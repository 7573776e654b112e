/* SPDX-License-Identifier: Apache-2.0
 *
 * One line on stderr for what the user must know; more with GPUVIRT_SOFTGPU_LOG=1. Keeps errno.
 */
#ifndef GPUVIRT_SOFTGPU_LOG_H
#define GPUVIRT_SOFTGPU_LOG_H

#include <stdbool.h>

bool gv_log_wanted(void);
/* Always printed: names thing, reason and fix. */
__attribute__((format(printf, 1, 2))) void gv_log_error(const char *format, ...);
/* Printed when GPUVIRT_SOFTGPU_LOG is set and not 0. */
__attribute__((format(printf, 1, 2))) void gv_log_detail(const char *format, ...);

#endif
