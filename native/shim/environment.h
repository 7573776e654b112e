/* SPDX-License-Identifier: Apache-2.0
 *
 * What `gpuvirt run` tells the shim. Read once, at the first CUDA call; never getenv on a hot path.
 */
#ifndef GPUVIRT_SHIM_ENVIRONMENT_H
#define GPUVIRT_SHIM_ENVIRONMENT_H

#include <stdint.h>

struct gv_environment {
    char driver[4096]; /* GPUVIRT_DRIVER: absolute path of the real libcuda.so.1; "" = search */
    char nvml[4096];   /* GPUVIRT_NVML: absolute path of the real libnvidia-ml.so.1; "" = search */
    char socket[108];  /* GPUVIRT_SOCKET: the daemon's client socket */
    char token[64];    /* GPUVIRT_JOB: which job this process belongs to */
    uint64_t
        attach_timeout_ns; /* GPUVIRT_ATTACH_TIMEOUT_MS: how long a first attach may take (a daemon may be restarting) */
    int no_deepbind;       /* GPUVIRT_NO_DEEPBIND=1: for sanitizers */
    int debug;             /* GPUVIRT_SHIM_DEBUG=1: more lines on stderr */
};

const struct gv_environment *gv_environment(void);

#endif
