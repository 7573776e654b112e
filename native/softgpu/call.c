/* SPDX-License-Identifier: Apache-2.0
 *
 * The slow side of the entry seam: the list of calling threads and the gate. See call.h.
 */
#include "driver.h"
#include "driver_faults.h"

#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

__thread struct gv_caller gv_caller __attribute__((tls_model("initial-exec"))) = {.unlisted = 1};

static uint32_t never_armed;
_Atomic(uint32_t *) gv_call_armed = &never_armed;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the list */
static struct gv_caller *callers;
static pthread_key_t thread_end;
static pthread_once_t thread_end_once = PTHREAD_ONCE_INIT;

static void forget_caller(void *caller)
{
    pthread_mutex_lock(&lock);
    for (struct gv_caller **link = &callers; *link != NULL; link = &(*link)->next)
        if (*link == caller) {
            *link = (*link)->next;
            break;
        }
    pthread_mutex_unlock(&lock);
    gv_caller.unlisted = 1; /* another destructor of this thread may still call the driver */
}

static void make_key(void) { pthread_key_create(&thread_end, forget_caller); }

static void list_caller(void)
{
    pthread_once(&thread_end_once, make_key);
    pthread_setspecific(thread_end, &gv_caller);
    pthread_mutex_lock(&lock);
    gv_caller.next = callers;
    callers = &gv_caller;
    pthread_mutex_unlock(&lock);
    gv_caller.unlisted = 0;
}

/* Waits until the gate is open. Meanwhile this thread is in no call: the lock need not wait for it. */
static void wait_at_gate(void)
{
    uint32_t *const armed = atomic_load_explicit(&gv_call_armed, memory_order_relaxed);
    uint32_t seen;
    while ((seen = __atomic_load_n(armed, __ATOMIC_ACQUIRE)) & GV_ARMED_CLOSED) {
        atomic_store_explicit(&gv_caller.depth, 0, memory_order_release);
        syscall(SYS_futex, armed, FUTEX_WAIT, seen, NULL, NULL, 0);
        atomic_store(&gv_caller.depth, 1);
        /* Either the closer sees the depth or we see that the gate is closed again. */
        atomic_thread_fence(memory_order_seq_cst);
    }
}

enum { FORBIDDEN = 2 }; /* in gv_caller.unlisted, so that the fast path looks at one word */

void gv_call_forbid(bool forbid)
{
    gv_caller.unlisted = forbid ? gv_caller.unlisted | FORBIDDEN : gv_caller.unlisted & ~(uint32_t)FORBIDDEN;
}

/* What only looks something up works in a host function too. */
static bool only_looks_up(const char *function)
{
    return strncmp(function, "cuGetError", 10) == 0 || strncmp(function, "cuGetProcAddress", 16) == 0 ||
           strcmp(function, "cuDriverGetVersion") == 0;
}

CUresult gv_call_admit(const char *function)
{
    if (gv_caller.unlisted & FORBIDDEN)
        return only_looks_up(function) ? CUDA_SUCCESS : CUDA_ERROR_NOT_PERMITTED;
    if (gv_caller.unlisted) {
        list_caller();
        atomic_thread_fence(memory_order_seq_cst); /* whoever closed the gate before could not see this thread */
    }
    wait_at_gate();
    return gv_armed() & (GV_ARMED_RULES | GV_ARMED_LOST) ? gv_inject_call(function) : CUDA_SUCCESS;
}

void gv_calls_start(uint32_t *armed)
{
    if (armed == NULL) { /* a forked child: one thread, no record, and its parent's list */
        pthread_mutex_init(&lock, NULL);
        callers = NULL;
        gv_caller.unlisted = 1;
        armed = &never_armed;
    } else {
        syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
    }
    atomic_store_explicit(&gv_call_armed, armed, memory_order_release);
}

void gv_calls_close(void)
{
    __atomic_fetch_or(atomic_load(&gv_call_armed), GV_ARMED_CLOSED, __ATOMIC_SEQ_CST);
    if (syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) != 0) {
        /* Refused, as some sandboxes do: no store stays in a store buffer for as long as this. */
        const struct timespec long_enough = {0, 10000000};
        nanosleep(&long_enough, NULL);
    }
}

void gv_calls_open(void)
{
    uint32_t *const armed = atomic_load(&gv_call_armed);
    __atomic_fetch_and(armed, ~(uint32_t)GV_ARMED_CLOSED, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, armed, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

bool gv_calls_quiet(void)
{
    bool quiet = true;
    pthread_mutex_lock(&lock);
    for (const struct gv_caller *caller = callers; caller != NULL && quiet; caller = caller->next)
        quiet = atomic_load_explicit(&caller->depth, memory_order_acquire) == 0;
    pthread_mutex_unlock(&lock);
    return quiet;
}
