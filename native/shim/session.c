/* SPDX-License-Identifier: Apache-2.0 */
#include "session.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

#include "activity.h"
#include "arena.h"
#include "blocks.h"
#include "capture.h"
#include "connection.h"
#include "contexts.h"
#include "drain.h"
#include "driver_heap.h"
#include "environment.h"
#include "fixed.h"
#include "graph_memory.h"
#include "host_memory.h"
#include "ipc.h"
#include "log.h"
#include "marks.h"
#include "memory.h"
#include "pacing.h"
#include "pages.h"
#include "passed.h"
#include "pool.h"
#include "real_driver.h"
#include "room.h"
#include "sharing.h"
#include "streams.h"
#include "tables.h"
#include "unknown.h"

struct gv_session gv_session = {.doorbell = -1};
static pthread_mutex_t attaching = PTHREAD_MUTEX_INITIALIZER;
static int fork_handler_set;

struct gv_client *gv_client_page(void) { return gv_session.client; }

int gv_session_refused(void) { return __atomic_load_n(&gv_session.state, __ATOMIC_ACQUIRE) == GV_SESSION_REFUSED; }

void gv_session_poke(enum gv_poke what)
{
    const uint32_t before = __atomic_fetch_or(&gv_session.pokes, what, __ATOMIC_ACQ_REL);
    if ((before & what) == 0)
        gv_session_ring();
}

void gv_session_ring(void)
{
    const int doorbell = __atomic_load_n(&gv_session.doorbell, __ATOMIC_RELAXED), saved = errno;
    const eventfd_t one = 1;
    if (doorbell >= 0) /* not write(): no CUDA call is a place where a cancelled thread ends */
        syscall(SYS_write, doorbell, &one, sizeof one);
    errno = saved;
}

void gv_session_renew_doorbell(void)
{
    const int doorbell =
        gv_out_of_the_way(eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)); /* 1: look once at what was missed */
    __atomic_store_n(&gv_session.doorbell, doorbell, __ATOMIC_RELAXED);
}

/* The child of a fork is nobody: it has no lease, no memory and no thread of ours. CUDA itself is unusable in it as well. */
static void forget_in_child(void)
{
    pthread_mutex_init(&attaching, NULL);
    gv_gate_forget();
    gv_activity_forget();
    gv_control_forget();
    gv_drain_forget();
    if (gv_session.doorbell >= 0)
        close(gv_session.doorbell);
    memset(&gv_session, 0, sizeof gv_session);
    gv_session.doorbell = -1;
    gv_arena_forget();
    gv_contexts_forget();
    gv_streams_forget();
    gv_marks_forget();
    gv_pacing_forget();
    gv_capture_forget();
    gv_graph_memory_forget();
    gv_driver_heap_forget();
    gv_pool_forget();
    gv_memory_forget();
    gv_blocks_forget();
    gv_mappings_forget();
    gv_imports_forget();
    gv_sharing_forget();
    gv_fixed_forget();
    gv_passed_forget();
    gv_tables_forget();
    gv_unknown_forget();
    gv_host_memory_forget();
    gv_room_forget();
}

static CUresult refuse(CUresult code)
{
    gv_session.refusal = code;
    __atomic_store_n(&gv_session.state, GV_SESSION_REFUSED, __ATOMIC_RELEASE);
    return code;
}

static int prepare(void)
{
    gv_session.doorbell = gv_out_of_the_way(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    return gv_session.doorbell < 0 || gv_pages_prepare() != 0 || gv_gate_prepare() != 0 ? -1 : 0;
}

/* A thread that takes no signal of the program's; faults of its own stay faults. */
int gv_session_start_thread(void *(*function)(void *))
{
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    sigfillset(&all);
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++)
        sigdelset(&all, faults[i]);
    if (pthread_sigmask(SIG_SETMASK, &all, &before) != 0)
        return -1;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    const int error = pthread_create(&thread, &attributes, function, NULL);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

/*
 * One try by the calling thread: two wake-ups less before the program goes on. Whatever disturbs it (a signal, a daemon that
 * restarts) is left to the control thread, which tries for longer.
 */
static void try_at_once(void)
{
    int cancellable;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancellable);
    gv_control_try();
    pthread_setcancelstate(cancellable, NULL);
}

static CUresult begin(CUdevice device)
{
    const struct gv_environment *const environment = gv_environment();
    if (environment->token[0] == '\0' || environment->socket[0] == '\0') {
        gv_log("this program was not started by gpuvirt (GPUVIRT_JOB or GPUVIRT_SOCKET is missing), so it gets no GPU; "
               "start it with: gpuvirt run -- PROGRAM");
        return refuse(CUDA_ERROR_NOT_PERMITTED);
    }
    CUresult result = gv_memory_prepare(device);
    if (result == CUDA_SUCCESS)
        result = REAL(cuDeviceGetUuid_v2)(&gv_session.uuid, device);
    if (result != CUDA_SUCCESS)
        return result; /* not refused: the driver's own error, as in a forked child */
    gv_session.device = device;
    if (gv_session.lease == NULL && prepare() != 0) {
        gv_log("no memory or descriptors to attach to gpuvirtd");
        return refuse(CUDA_ERROR_OUT_OF_MEMORY);
    }
    if (!fork_handler_set && pthread_atfork(NULL, NULL, forget_in_child) == 0)
        fork_handler_set = 1;
    __atomic_store_n(&gv_session.state, GV_SESSION_CONNECTING, __ATOMIC_RELEASE);
    try_at_once();
    if (!gv_session_refused() && gv_session_start_thread(gv_control_thread) != 0) {
        gv_log("cannot start a thread to attach to gpuvirtd");
        return refuse(CUDA_ERROR_OUT_OF_MEMORY);
    }
    while (__atomic_load_n(&gv_session.state, __ATOMIC_ACQUIRE) == GV_SESSION_CONNECTING)
        gv_futex_wait(&gv_session.state, GV_SESSION_CONNECTING, 100000000); /* control.c bounds the whole */
    return gv_session_refused() ? gv_session.refusal : CUDA_SUCCESS;
}

CUresult gv_session_attach(CUdevice device)
{
    CUresult result = CUDA_SUCCESS;
    const int saved = errno;
    pthread_mutex_lock(&attaching);
    switch (__atomic_load_n(&gv_session.state, __ATOMIC_ACQUIRE)) {
    case GV_SESSION_NEW:
        result = begin(device);
        break;
    case GV_SESSION_REFUSED:
        result = gv_session.refusal;
        break;
    default:
        if (device != gv_session.device) {
            static int said; /* under `attaching` */
            if (!said)
                gv_log("this process uses GPU %d; a second one (%d) in one process is not supported yet: "
                       "give each process its own with CUDA_VISIBLE_DEVICES",
                       (int)gv_session.device, (int)device);
            said = 1;
            result = CUDA_ERROR_NOT_SUPPORTED;
        }
    }
    pthread_mutex_unlock(&attaching);
    errno = saved;
    return result;
}

/* For a process whose context came into being where we did not see it. */
CUresult gv_session_attach_slowly(void)
{
    CUdevice device = 0;
    CUcontext context = NULL;
    CUresult result = REAL(cuCtxGetDevice)(&device);
    if (result == CUDA_SUCCESS)
        result = REAL(cuCtxGetCurrent)(&context);
    if (result == CUDA_SUCCESS)
        result = gv_session_attach(device);
    if (result == CUDA_SUCCESS && gv_contexts_add(context) != 0)
        result = CUDA_ERROR_OUT_OF_MEMORY;
    return result;
}
