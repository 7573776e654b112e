/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for a condition as threads of the program may: none of them ends there when it is cancelled, with the lock held.
 */
#ifndef GPUVIRT_SHIM_SETTLED_H
#define GPUVIRT_SHIM_SETTLED_H

#include <pthread.h>

/* `until`: NULL, or the time to give up, by the condition's clock. 0, or ETIMEDOUT. */
static inline int gv_wait_settled(pthread_cond_t *condition, pthread_mutex_t *lock, const struct timespec *until)
{
    int cancellable;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
    const int error =
        until == NULL ? pthread_cond_wait(condition, lock) : pthread_cond_timedwait(condition, lock, until);
    pthread_setcancelstate(cancellable, NULL);
    return error;
}

#endif
