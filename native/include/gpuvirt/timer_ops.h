/* SPDX-License-Identifier: Apache-2.0
 *
 * A timer that an event loop can wait for beside its sockets, to the precision of the kernel's: for Python (through cffi), whose
 * own before 3.13 rounds up to the next millisecond.
 */
#ifndef GPUVIRT_TIMER_OPS_H
#define GPUVIRT_TIMER_OPS_H

#include <errno.h>
#include <stdint.h>
#include <sys/timerfd.h>

/* A descriptor that becomes readable when its time (CLOCK_MONOTONIC) has come; -errno. */
static inline int gv_timer_create(void)
{
    const int descriptor = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    return descriptor >= 0 ? descriptor : -errno;
}

/* Once, in so many ns; 0: never. What has come before and was not read is forgotten. 0, or an errno. */
static inline int gv_timer_set(int descriptor, uint64_t in_ns)
{
    const struct itimerspec when = {.it_value = {(time_t)(in_ns / 1000000000u), (long)(in_ns % 1000000000u)}};
    return timerfd_settime(descriptor, 0, &when, NULL) == 0 ? 0 : errno;
}

#endif
