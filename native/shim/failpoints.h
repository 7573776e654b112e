/* SPDX-License-Identifier: Apache-2.0
 *
 * Places where tests make a switch fail: GPUVIRT_FAILPOINTS="NAME:ACTION[:N],..." in the environment of a process; the N-th time
 * (default 1) that it comes to NAME, ACTION happens: fail (the step fails as if by itself), kill (SIGKILL), stop (SIGSTOP), or
 * stall=MILLISECONDS. Only the control thread comes to them; without the variable a failpoint costs one load.
 */
#ifndef GPUVIRT_SHIM_FAILPOINTS_H
#define GPUVIRT_SHIM_FAILPOINTS_H

/* Every name, in the order of a switch. tests/integration/test_switch_failures.py hits each. */
#define GV_FAILPOINTS(X)                                                                                               \
    X(EVICT_BEGIN, "evict_begin")       /* EVICT was taken, nothing has happened */                                    \
    X(EVICT_HASH, "evict_hash")         /* hashes of a window are to be computed */                                    \
    X(EVICT_RESERVE, "evict_reserve")   /* host memory for a window is to be taken */                                  \
    X(EVICT_COPY, "evict_copy")         /* a copy is to be submitted */                                                \
    X(EVICT_WAIT, "evict_wait")         /* submitted; its end is to be waited for */                                   \
    X(EVICT_UNMAP, "evict_unmap")       /* its content is safe, its memory is to be released */                        \
    X(EVICT_PROGRESS, "evict_progress") /* a window is out and is to be told */                                        \
    X(EVICT_END, "evict_end")           /* all is out, EVICTED is to be sent */                                        \
    X(RESTORE_BEGIN, "restore_begin")                                                                                  \
    X(RESTORE_CREATE, "restore_create") /* physical memory is to be created */                                         \
    X(RESTORE_ACCESS, "restore_access") /* mapped; access is to be given */                                            \
    X(RESTORE_COPY, "restore_copy")     /* a copy is to be submitted */                                                \
    X(RESTORE_CREDIT, "restore_credit") /* all that the credit allows is in; more credit is to be waited for */        \
    X(RESTORE_VERIFY, "restore_verify") /* what came in is to be hashed again (verify mode) */                         \
    X(RESTORE_END, "restore_end")       /* all is in, RESTORED is to be sent */                                        \
    X(ARENA_MAP, "arena_map")           /* the arena is to be mapped */                                                \
    X(ARENA_BACK, "arena_back")         /* the daemon is to be asked for host memory */                                \
    X(ARENA_PIN, "arena_pin")           /* a segment is to be pinned */

enum gv_failpoint {
#define NAME(name, text) GV_FAIL_##name,
    GV_FAILPOINTS(NAME)
#undef NAME
        GV_FAIL_COUNT
};

/* 1: the step shall fail; errno is ENOMEM. Says so on stderr. */
int gv_failpoint(enum gv_failpoint point);

#endif
