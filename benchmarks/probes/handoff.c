/* SPDX-License-Identifier: Apache-2.0
 *
 * A job that never pauses, and notes when it has the GPU: handoff FILE BLOCK_NS LONG_US
 *
 * Launches a kernel of BLOCK_NS and waits for it, again and again, from the start that the page gives to its stop. A launch that
 * did not return for LONG_US begins a turn. Prints {"turns": [[first_ns, last_ns], ...]} with CLOCK_MONOTONIC times: when the
 * first launch of a turn had passed, and when its last kernel was seen to have ended.
 */
#include "page.h"

enum { TURNS_MOST = 100000 };

int main(int argc, char **argv)
{
    static uint64_t turns[TURNS_MOST][2];
    if (argc != 4) {
        fprintf(stderr, "usage: handoff FILE BLOCK_NS LONG_US\n");
        return 2;
    }
    const uint64_t block_ns = strtoull(argv[2], NULL, 10), gap = strtoull(argv[3], NULL, 10) * 1000;
    void *stream;
    open_page(argv[1]);
    check(stream_create(&stream, 1), "cuStreamCreate");
    give_work(stream, block_ns, 1);
    check(stream_wait(stream), "cuStreamSynchronize");

    uint64_t before = wait_for_start();
    size_t count = 0;
    while (!stopped() && count + 1 < TURNS_MOST) {
        give_work(stream, block_ns, 1);
        const uint64_t launched = now_ns();
        if (count == 0 || launched - before > gap)
            turns[count++][0] = launched;
        check(stream_wait(stream), "cuStreamSynchronize");
        before = now_ns();
        turns[count - 1][1] = before;
    }
    printf("{\"turns\": [");
    for (size_t i = 0; i < count; i++)
        printf("%s[%llu, %llu]", i ? ", " : "", (unsigned long long)turns[i][0], (unsigned long long)turns[i][1]);
    printf("]}\n");
    return 0;
}
