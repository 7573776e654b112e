/* SPDX-License-Identifier: Apache-2.0
 *
 * The process as a client of the daemon: attached at its first context, by a control thread which lives as long as it does.
 */
#ifndef GPUVIRT_SHIM_SESSION_H
#define GPUVIRT_SHIM_SESSION_H

#include "cuda_api.h"
#include "gate.h"

enum gv_poke {
    GV_POKE_WANT = 1,   /* a thread waits at the gate */
    GV_POKE_IDLE = 2,   /* nothing is outstanding, and somebody else waits for the GPU */
    GV_POKE_MEMORY = 4, /* the charge changed, and the job has other processes that must know */
    GV_POKE_SHARE = 16, /* memory is offered to, or asked of, other processes of the job */
};

/* Puts the process under control, once; waits for the daemon's answer. Anything but success refuses the program's call. */
CUresult gv_session_attach(CUdevice device);

static inline CUresult gv_session_attach_current(void)
{
    extern CUresult gv_session_attach_slowly(void);
    const int attached = !(__atomic_load_n(&gv_gate.obstacles, __ATOMIC_ACQUIRE) & GV_UNATTACHED);
    return __builtin_expect(attached, 1) ? CUDA_SUCCESS : gv_session_attach_slowly();
}

int gv_session_refused(void);

/* Tells the control thread; never blocks. */
void gv_session_poke(enum gv_poke what);
void gv_session_ring(void); /* only wakes it */

/* The client page; before WELCOME a private page of the same form. */
struct gv_client *gv_client_page(void);

/* --- between session.c and control.c --- */

struct gv_session {
    CUdevice device;
    CUuuid uuid;
    int doorbell;           /* eventfd: the control thread's poll wakes */
    uint32_t pokes;         /* enum gv_poke bits not yet looked at; any thread ors, the control thread takes */
    struct gv_lease *lease; /* two pages at addresses that stay: a new daemon's pages are mapped over them */
    struct gv_client *client;
    uint32_t state;   /* futex; enum gv_session_state, written by the control thread */
    CUresult refusal; /* valid in GV_SESSION_REFUSED */
};
enum gv_session_state { GV_SESSION_NEW, GV_SESSION_CONNECTING, GV_SESSION_ATTACHED, GV_SESSION_REFUSED };
extern struct gv_session gv_session;

/* A thread of ours, for good; 0, or an errno. */
int gv_session_start_thread(void *(*function)(void *));
void *gv_control_thread(void *unused);
int gv_control_try(void); /* one try to attach, also by a program's thread before the control thread is there */
void gv_control_forget(void);
void gv_session_renew_doorbell(void); /* control thread: the program has closed it */

#endif
