/* SPDX-License-Identifier: Apache-2.0
 *
 * Handles, gauges and threads: what the other files are made of.
 */
#include "driver.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t lists = PTHREAD_MUTEX_INITIALIZER;
static struct gv_object *unused[GV_KIND_END - GV_CONTEXT]; /* under `lists` */

void *gv_object_new(enum gv_kind kind, size_t size)
{
    pthread_mutex_lock(&lists);
    struct gv_object *object = unused[kind - GV_CONTEXT];
    if (object != NULL)
        unused[kind - GV_CONTEXT] = object->next_free;
    pthread_mutex_unlock(&lists);
    if (object == NULL)
        object = calloc(1, size);
    if (object != NULL)
        atomic_store_explicit(&object->kind, kind, memory_order_release);
    return object;
}

void gv_object_free(void *pointer, enum gv_kind kind)
{
    struct gv_object *object = pointer;
    atomic_store_explicit(&object->kind, 0, memory_order_release);
    pthread_mutex_lock(&lists);
    object->next_free = unused[kind - GV_CONTEXT];
    unused[kind - GV_CONTEXT] = object;
    pthread_mutex_unlock(&lists);
}

static uint32_t *futex_of(struct gv_gauge *gauge)
{
    return (uint32_t *)&gauge->value; /* little endian: the low half comes first */
}

void gv_gauge_advance(struct gv_gauge *gauge, uint64_t value)
{
    uint64_t old = atomic_load_explicit(&gauge->value, memory_order_relaxed);
    /* Sequentially consistent with `waiters`: either we see the waiter or it sees the value. */
    while (old < value && !atomic_compare_exchange_weak(&gauge->value, &old, value)) {
    }
    if (atomic_load(&gauge->waiters) != 0)
        syscall(SYS_futex, futex_of(gauge), FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void gv_gauge_wait(struct gv_gauge *gauge, uint64_t value)
{
    /* About 10 us: shorter than a sleep and a wake, too short to matter to others. */
    for (int spin = 0; spin < 256; spin++) {
        if (gv_gauge_reached(gauge, value))
            return;
#ifdef __x86_64__
        __builtin_ia32_pause();
#elif defined __aarch64__
        __asm__ volatile("yield");
#endif
    }
    atomic_fetch_add(&gauge->waiters, 1);
    for (;;) {
        const uint64_t now = atomic_load(&gauge->value);
        if (now >= value)
            break;
        syscall(SYS_futex, futex_of(gauge), FUTEX_WAIT_PRIVATE, (uint32_t)now, NULL, NULL, 0);
    }
    atomic_fetch_sub(&gauge->waiters, 1);
}

void gv_gauge_wait_for(struct gv_gauge *gauge, uint64_t value, uint64_t ns)
{
    const struct timespec limit = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    atomic_fetch_add(&gauge->waiters, 1);
    const uint64_t now = atomic_load(&gauge->value);
    if (now < value)
        syscall(SYS_futex, futex_of(gauge), FUTEX_WAIT_PRIVATE, (uint32_t)now, &limit, NULL, 0);
    atomic_fetch_sub(&gauge->waiters, 1);
}

struct start {
    void *(*run)(void *);
    void *argument;
    const char *name;
    _Alignas(16) char handler_stack[65536];
};

/* A kernel may use up the thread's stack, by recursion without end: the handler of that fault needs another one. */
static void *run_thread(void *argument)
{
    struct start *start = argument;
    pthread_setname_np(pthread_self(), start->name); /* here: for its creator it may be gone already */
    const stack_t ours = {.ss_sp = start->handler_stack, .ss_size = sizeof start->handler_stack};
    const stack_t none = {.ss_flags = SS_DISABLE};
    stack_t had;
    const bool changed = sigaltstack(NULL, &had) == 0 && (had.ss_flags & SS_DISABLE) && sigaltstack(&ours, NULL) == 0;
    void *result = start->run(start->argument);
    if (changed)
        sigaltstack(&none, NULL);
    free(start);
    return result;
}

bool gv_start_thread(void *(*run)(void *), void *argument, const char *name)
{
    struct start *start = malloc(sizeof *start);
    if (start == NULL)
        return false;
    start->run = run;
    start->argument = argument;
    start->name = name;
    sigset_t blocked, old;
    sigfillset(&blocked);
    sigdelset(&blocked, SIGSEGV);
    sigdelset(&blocked, SIGBUS);
    sigdelset(&blocked, SIGFPE);
    sigdelset(&blocked, SIGILL);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &blocked, &old);
    pthread_t thread;
    const int error = pthread_create(&thread, &attributes, run_thread, start);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    if (error != 0) {
        free(start);
        gv_log_error("cannot start a thread (error %d): limit on threads or memory reached", error);
    }
    return error == 0;
}
