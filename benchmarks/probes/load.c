/* SPDX-License-Identifier: Apache-2.0
 *
 * Kernels for ever: load BLOCK_NS BLOCKS queued|waiting. With `queued` some are always in line, with `waiting` the next one is
 * launched when the last one is done. Says "ready" after the first.
 */
#include "driver.h"

#include <string.h>

static const char kernel[] =
    ".version 7.0\n.target sm_52\n.address_size 64\n"
    ".visible .entry spin(.param .u64 time) {\n"
    " .reg .b64 %s, %n, %l; .reg .pred %p;\n"
    " ld.param.u64 %l, [time]; mov.u64 %s, %globaltimer;\n"
    "again: mov.u64 %n, %globaltimer; sub.s64 %n, %n, %s; setp.lt.u64 %p, %n, %l; @%p bra again; ret; }\n";

enum { EVENTS = 4, EACH = 64 };

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    uint64_t block_ns = strtoull(argv[1], NULL, 10);
    const unsigned blocks = (unsigned)atoi(argv[2]);
    const int waiting = strcmp(argv[3], "waiting") == 0;
    void *const module = open_driver(kernel);
    void *const library = dlopen("libcuda.so.1", RTLD_NOW);
    int (*const event_create)(void **, unsigned) = (int (*)(void **, unsigned))dlsym(library, "cuEventCreate");
    int (*const event_record)(void *, void *) = (int (*)(void *, void *))dlsym(library, "cuEventRecord");
    int (*const event_wait)(void *) = (int (*)(void *))dlsym(library, "cuEventSynchronize");
    void *function, *events[EVENTS], *parameters[] = {&block_ns};
    check(function_get(&function, module, "spin"), "cuModuleGetFunction");
    for (int i = 0; i < EVENTS; i++)
        check(event_create(&events[i], 0), "cuEventCreate");
    for (unsigned i = 0;; i++) {
        check(launch(function, blocks, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL), "cuLaunchKernel");
        if (i == 0) {
            check(stream_wait(NULL), "cuStreamSynchronize");
            puts("ready");
            fflush(stdout);
        }
        if (waiting)
            check(stream_wait(NULL), "cuStreamSynchronize");
        else if (i % EACH == 0) {
            check(event_wait(events[i / EACH % EVENTS]), "cuEventSynchronize");
            check(event_record(events[i / EACH % EVENTS], NULL), "cuEventRecord");
        }
    }
}
