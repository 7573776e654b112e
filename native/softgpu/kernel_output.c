/* SPDX-License-Identifier: Apache-2.0
 *
 * Device printf and assert. Lines are collected and written to the program's stdout when it waits for the device, as CUDA
 * does; a device assert goes to stderr at once, in CUDA's form.
 *
 * Formatting happens in a local buffer before the lock is taken: a %s with a wild pointer faults like any other access.
 */
#include "launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 2048, FIFO = 1 << 20 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *fifo; /* under `lock` */
static size_t filled;
static atomic_bool something;

/* Takes the next argument at its natural alignment. */
static const void *take(const uint8_t **at, size_t size)
{
    const uintptr_t aligned = ((uintptr_t)*at + size - 1) & ~(uintptr_t)(size - 1);
    *at = (const uint8_t *)(aligned + size);
    return (const void *)aligned;
}

static uint64_t take_integer(const uint8_t **at, bool is_long)
{
    if (is_long)
        return *(const uint64_t *)take(at, 8);
    return (uint64_t)(int64_t)*(const int32_t *)take(at, 4);
}

/* One conversion: `spec` is "%...x" without length modifiers. Returns what snprintf returns. */
static int convert(char *out, size_t room, char *spec, size_t length, bool is_long, const uint8_t **at,
                   const int *stars, int star_count)
{
    const char kind = spec[length - 1];
    char full[64];
    const int first = star_count > 0 ? stars[0] : 0, second = star_count > 1 ? stars[1] : 0;
#define EMIT(...)                                                                                                      \
    (star_count == 0   ? snprintf(out, room, full, __VA_ARGS__)                                                        \
     : star_count == 1 ? snprintf(out, room, full, first, __VA_ARGS__)                                                 \
                       : snprintf(out, room, full, first, second, __VA_ARGS__))
    switch (kind) {
    case 'd':
    case 'i':
    case 'u':
    case 'x':
    case 'X':
    case 'o': {
        snprintf(full, sizeof full, "%.*sll%c", (int)length - 1, spec, kind);
        uint64_t value = take_integer(at, is_long);
        if (!is_long && kind != 'd' && kind != 'i')
            value &= 0xffffffffu;
        return EMIT((long long)value);
    }
    case 'c':
        snprintf(full, sizeof full, "%s", spec);
        return EMIT((int)take_integer(at, false));
    case 'p':
        snprintf(full, sizeof full, "%s", spec);
        return EMIT((void *)take_integer(at, true));
    case 's':
        snprintf(full, sizeof full, "%s", spec);
        return EMIT((const char *)take_integer(at, true));
    default: /* e f g a and capitals: float is passed as double */
        snprintf(full, sizeof full, "%s", spec);
        return EMIT(*(const double *)take(at, 8));
    }
#undef EMIT
}

static size_t format_line(char *out, size_t room, const char *format, const uint8_t *at, int *taken)
{
    size_t length = 0;
    *taken = 0;
    while (*format != '\0' && length + 1 < room) {
        if (format[0] != '%' || format[1] == '%') {
            out[length++] = *format;
            format += *format == '%' ? 2 : 1;
            continue;
        }
        char spec[40];
        size_t used = 0;
        int stars[2], star_count = 0, longs = 0;
        spec[used++] = *format++;
        while (*format != '\0' && strchr("-+ #0123456789.*lhzjtL", *format) != NULL) {
            if (*format == 'l' || *format == 'z' || *format == 'j' || *format == 't')
                longs++;
            else if (*format == '*' && star_count < 2)
                stars[star_count++] = (int)take_integer(&at, false);
            if (strchr("lhzjtL", *format) == NULL && used < sizeof spec - 2)
                spec[used++] = *format;
            format++;
        }
        if (*format == '\0' || strchr("diuxXocpsaAeEfFgG", *format) == NULL)
            continue; /* not a conversion that devices know */
        spec[used++] = *format++;
        spec[used] = '\0';
        *taken += 1 + star_count;
        const int written = convert(out + length, room - length, spec, used, longs > 0, &at, stars, star_count);
        if (written > 0)
            length += (size_t)written < room - length ? (size_t)written : room - length - 1;
    }
    out[length] = '\0';
    return length;
}

int gv_output_vprintf(void *sink, const char *format, const void *arguments)
{
    (void)sink;
    char line[LINE];
    int taken;
    const size_t length = format_line(line, sizeof line, format, arguments, &taken);
    pthread_mutex_lock(&lock);
    if (fifo == NULL)
        fifo = malloc(FIFO);
    if (fifo != NULL) {
        if (filled + length > FIFO) { /* a device drops its oldest lines when the buffer is full */
            const size_t drop = filled + length - FIFO;
            memmove(fifo, fifo + drop, filled - drop);
            filled -= drop;
        }
        memcpy(fifo + filled, line, length);
        filled += length;
        atomic_store(&something, true);
    }
    pthread_mutex_unlock(&lock);
    return taken; /* unlike C's: arguments, not characters */
}

void gv_output_assert(void *sink, const char *message, const char *file, uint32_t line, const char *function)
{
    (void)sink;
    char text[LINE];
    snprintf(text, sizeof text, "%s:%u: %s: Assertion `%s` failed.\n", file, line, function, message);
    fputs(text, stderr);
}

void gv_printf_flush(void)
{
    if (!atomic_load_explicit(&something, memory_order_acquire))
        return;
    pthread_mutex_lock(&lock);
    atomic_store(&something, false);
    if (filled > 0 && fwrite(fifo, 1, filled, stdout) != filled)
        gv_log_detail("device printf: stdout does not take it");
    fflush(stdout);
    filled = 0;
    pthread_mutex_unlock(&lock);
}
