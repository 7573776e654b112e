/* SPDX-License-Identifier: Apache-2.0
 *
 * Running the translator and the compiler from inside somebody else's process.
 */
#ifndef GPUVIRT_SOFTGPU_PROCESS_H
#define GPUVIRT_SOFTGPU_PROCESS_H

#include <stddef.h>

enum gv_process_result {
    GV_PROCESS_ENDED,     /* *status: exit code, -1 when a signal ended it, -2 when somebody else collected it */
    GV_PROCESS_NOT_FOUND, /* no such program */
    GV_PROCESS_FAILED,    /* errno */
};

/* Runs `arguments` (looked up in PATH), stdin and stdout /dev/null, stderr into `output`. LD_PRELOAD, LD_AUDIT and GPUVIRT_*
 * do not reach it: the shim must not attach a compiler to the daemon. The program's SIGCHLD handling is left alone. */
enum gv_process_result gv_process_run(const char *const *arguments, char *output, size_t room, int *status);

#endif
