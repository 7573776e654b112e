/* SPDX-License-Identifier: Apache-2.0
 *
 * Linked with libcuda.so.1 (DT_NEEDED) and bound when it starts. Prints whose functions it got.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>

int cuInit(unsigned int flags);
int cuMemAlloc_v2(unsigned long long *pointer, unsigned long bytes);
int cuIpcOpenMemHandle_v2(void);
int cuLaunchKernel_ptsz(void);
int cuProfilerStart(void);
int cuEGLStreamProducerConnect(void);
int cuGLMapBufferObject_v2_ptds(void);
int cuVDPAUGetDevice(void);

int main(void)
{
    void *const functions[] = {
        (void *)cuMemAlloc_v2,   (void *)cuIpcOpenMemHandle_v2,      (void *)cuLaunchKernel_ptsz,
        (void *)cuProfilerStart, (void *)cuEGLStreamProducerConnect, (void *)cuGLMapBufferObject_v2_ptds,
        (void *)cuVDPAUGetDevice};
    for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
        Dl_info info = {0};
        if (!dladdr(functions[i], &info))
            return 1;
        printf("linked %s %s\n", info.dli_fname, info.dli_sname);
    }
    printf("init %d\n", cuInit(0));
    return 0;
}
