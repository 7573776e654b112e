/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: test_forwarders SHIM NUMBERED_DRIVER. Every function that the shim forwards reaches the driver's of that name.
 */
#include <dlfcn.h>

#include "check.h"

static const struct {
    const char *name;
    int index;
} forwarded[] = {
#define GV_FORWARDED(index, symbol) {#symbol, index},
#include "shim_forwarded.inc"
#undef GV_FORWARDED
};

int main(int argc, char **argv)
{
    CHECK_EQUAL(argc, 3);
    CHECK_EQUAL(setenv("GPUVIRT_DRIVER", argv[2], 1), 0);
    void *shim = dlopen(argv[1], RTLD_NOW);
    CHECK(shim != NULL);
    for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
        int (*function)(void) = (int (*)(void))dlsym(shim, forwarded[i].name);
        CHECK(function != NULL);
        CHECK_EQUAL(function(), 1000 + forwarded[i].index);
        CHECK_EQUAL(function(), 1000 + forwarded[i].index); /* and again, not through the opening stub */
    }
    CHECK(sizeof forwarded / sizeof *forwarded > 100);
    return 0;
}
