/* SPDX-License-Identifier: Apache-2.0
 *
 * Every entry point of the driver passes the seam first: with a rule that matches all of them, each answers with the rule's
 * error, whatever its arguments. And each counts once, however many others it calls.
 */
#include "cuda_check.h"

#include <dlfcn.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

static const char *const symbols[] = {
#define GV_SYMBOL(index, symbol) [index] = #symbol,
#include "entry_points.inc"
#undef GV_SYMBOL
};
/* Tables, which need no driver. */
static const char *const without[] = {"cuGetErrorName", "cuGetErrorString"};

static int (*add)(const char *, char *, size_t);
static int (*clear)(uint32_t);
static int (*list)(char *, size_t);
static char message[512];

static uint64_t calls_counted(void)
{
    char text[4096];
    uint64_t calls;
    list(text, sizeof text);
    CHECK(sscanf(text, "%*u\t%*s\t%" SCNu64, &calls) == 1);
    return calls;
}

int main(void)
{
    use_own_board("64M");
    void *driver = dlopen("libcuda.so.1", RTLD_NOW), *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    CHECK(driver != NULL && nvml != NULL);
    add = (int (*)(const char *, char *, size_t))dlsym(nvml, "gv_softgpu_fault_add");
    clear = (int (*)(uint32_t))dlsym(nvml, "gv_softgpu_fault_clear");
    list = (int (*)(char *, size_t))dlsym(nvml, "gv_softgpu_fault_list");
    CHECK(add != NULL && clear != NULL && list != NULL);
    CHECK_EQUAL(cuInit(0), 0);
    char rule[64];
    snprintf(rule, sizeof rule, "cu*:*:31415:pid=%d", (int)getpid());
    CHECK(add(rule, message, sizeof message) > 0);
    uint64_t before = 0;
    int wrong = 0;
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        bool skip = false;
        for (size_t w = 0; w < sizeof without / sizeof *without; w++)
            skip = skip || strcmp(symbols[i], without[w]) == 0;
        int (*call)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t) = (int (*)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                                         uint64_t, uint64_t, uint64_t))dlsym(driver, symbols[i]);
        CHECK(call != NULL);
        if (skip)
            continue;
        const int answer = call(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        const uint64_t counted = calls_counted();
        if (answer != 31415 || counted != before + 1) {
            fprintf(stderr, "%s answers %d and counts %d times\n", symbols[i], answer, (int)(counted - before));
            wrong++;
        }
        before = counted;
    }
    CHECK_EQUAL(wrong, 0);
    CHECK_EQUAL(clear(0), 1);
    return 0;
}
