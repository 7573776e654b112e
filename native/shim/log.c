/* SPDX-License-Identifier: Apache-2.0 */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "environment.h"

static void say(const char *format, va_list arguments)
{
    const int saved = errno;
    char line[512];
    int length = snprintf(line, sizeof line, "gpuvirt[%d]: ", (int)getpid());
    const int more = vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
    length += more < 0 ? 0 : more;
    if (length > (int)sizeof line - 2)
        length = (int)sizeof line - 2;
    for (int i = 0; i < length; i++) /* a reason from elsewhere: one line stays one, and harmless to a terminal */
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
            line[i] = '?';
    line[length++] = '\n';
    /* One write, so that lines of several processes do not mix; a closed stderr is no error of ours. Not write(), where a
     * thread that was cancelled would end, maybe with a lock of ours. */
    syscall(SYS_write, STDERR_FILENO, line, (size_t)length);
    errno = saved;
}

void gv_log(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}

void gv_debug(const char *format, ...)
{
    if (!gv_environment()->debug)
        return;
    va_list arguments;
    va_start(arguments, format);
    say(format, arguments);
    va_end(arguments);
}
