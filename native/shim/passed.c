/* SPDX-License-Identifier: Apache-2.0 */
#include "passed.h"

#include <string.h>

#include "environment.h"
#include "log.h"
#include "symbols.h"

/* Defined beside the forwarders. Entry 0 of a shard is the sum of the others. */
extern uint64_t gv_passed[GV_PASSED_SHARDS][GV_PASSED_SLOTS] __attribute__((visibility("hidden")));

uint64_t gv_passed_calls(unsigned counter)
{
    uint64_t calls = 0;
    for (int shard = 0; shard < GV_PASSED_SHARDS; shard++)
        calls += __atomic_load_n(&gv_passed[shard][counter], __ATOMIC_RELAXED);
    return calls;
}

uint64_t gv_passed_total(void) { return gv_passed_calls(0); }

void gv_passed_publish(uint64_t *field)
{
    const uint64_t total = gv_passed_total();
    uint64_t before = __atomic_load_n(field, __ATOMIC_RELAXED);
    while (total > before &&
           !__atomic_compare_exchange_n(field, &before, total, 0, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
}

void gv_passed_report(void)
{
    static uint8_t said[GV_SYMBOL_COUNT]; /* control thread */
    for (int i = 0; gv_environment()->debug && i < GV_SYMBOL_COUNT; i++) {
        const unsigned counter = gv_symbols[i].counter;
        if (counter == 0 || said[i] || gv_passed_calls(counter) == 0)
            continue;
        said[i] = 1;
        gv_debug("%s passes through", gv_symbols[i].name);
    }
}

void gv_passed_forget(void)
{
    for (int shard = 0; shard < GV_PASSED_SHARDS; shard++)
        if (gv_passed[shard][0] != 0) /* pages that nobody counted in stay untouched */
            memset(gv_passed[shard], 0, sizeof gv_passed[shard]);
}
