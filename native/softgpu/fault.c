/* SPDX-License-Identifier: Apache-2.0
 *
 * The signal handler. It uses one thread-local pointer and siglongjmp, nothing else. SA_NODEFER, so that there is no mask to
 * restore after the jump; SA_ONSTACK, so that a program's alternate stack is respected.
 */
#include "fault.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

GV_THREAD_LOCAL struct gv_fault_frame *innermost;

static const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
enum { SIGNALS = sizeof signals / sizeof *signals };
static struct sigaction
    before[SIGNALS]; /* the program's handlers; written under `installing` before ours is installed */
static pthread_mutex_t installing = PTHREAD_MUTEX_INITIALIZER;

void gv_fault_enter(struct gv_fault_frame *frame)
{
    frame->outer = innermost;
    innermost = frame;
}

void gv_fault_leave(struct gv_fault_frame *frame) { innermost = frame->outer; }

/* Hands the signal to who had it before us. With the default action we put that back and return: the instruction faults
 * again and the process ends as it would have without us. */
static void chain(int index, int number, siginfo_t *info, void *machine)
{
    const struct sigaction *old = &before[index];
    if (old->sa_flags & SA_SIGINFO) {
        old->sa_sigaction(number, info, machine);
    } else if (old->sa_handler == SIG_DFL || old->sa_handler == SIG_IGN) {
        signal(number, SIG_DFL);
        if (info->si_code <= 0) /* sent by kill(): nothing faults again */
            raise(number);
    } else {
        old->sa_handler(number);
    }
}

static void on_fault(int number, siginfo_t *info, void *machine)
{
    struct gv_fault_frame *frame = innermost;
    const uintptr_t address = (uintptr_t)info->si_addr;
    const bool arithmetic = number == SIGFPE || number == SIGILL;
    if (frame != NULL && info->si_code > 0) {
        /* A non-canonical address is reported as 0: only a kernel, whose frame covers all addresses, catches it. */
        const bool ours = (address >= frame->low && address < frame->high) ||
                          (address >= frame->also_low && address < frame->also_high) ||
                          (arithmetic && frame->low == 0 && frame->high == UINTPTR_MAX);
        if (ours) {
            frame->signal = number;
            frame->address = info->si_addr;
            innermost = frame->outer;
            siglongjmp(frame->jump, 1);
        }
    }
    for (int i = 0; i < SIGNALS; i++)
        if (signals[i] == number)
            chain(i, number, info, machine);
}

void gv_fault_install(void)
{
    pthread_mutex_lock(&installing);
    for (int i = 0; i < SIGNALS; i++) {
        struct sigaction now;
        if (sigaction(signals[i], NULL, &now) != 0 || (now.sa_flags & SA_SIGINFO && now.sa_sigaction == on_fault))
            continue;
        before[i] = now;
        struct sigaction ours;
        memset(&ours, 0, sizeof ours);
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigemptyset(&ours.sa_mask);
        sigaction(signals[i], &ours, NULL);
    }
    pthread_mutex_unlock(&installing);
}

CUresult gv_fault_error(int signal)
{
    switch (signal) {
    case SIGILL:
        return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case SIGFPE:
        return CUDA_ERROR_LAUNCH_FAILED;
    default:
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    }
}
