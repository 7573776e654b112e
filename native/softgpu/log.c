/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

bool gv_log_wanted(void)
{
    const char *value = getenv("GPUVIRT_SOFTGPU_LOG");
    return value != NULL && *value != '\0' && strcmp(value, "0") != 0;
}

/* One write() per line: lines of several processes do not mix, and no stdio lock of the program is taken. */
static void write_line(const char *format, va_list arguments)
{
    const int saved = errno;
    char line[1024];
    int length = snprintf(line, sizeof line, "gpuvirt soft GPU: ");
    const int rest = vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
    length += rest < 0 ? 0 : rest;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    line[length++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)length) < 0) {
        /* No one to tell. */
    }
    errno = saved;
}

void gv_log_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}

void gv_log_detail(const char *format, ...)
{
    if (!gv_log_wanted())
        return;
    va_list arguments;
    va_start(arguments, format);
    write_line(format, arguments);
    va_end(arguments);
}
