/* SPDX-License-Identifier: Apache-2.0
 *
 * A service: serve FILE BLOCK_NS KERNELS HOST_NS
 *
 * Requests come at the times that the page says (ns after the start), whether the service is free or not, and are answered
 * one after the other: the input is copied in, KERNELS kernels of one block of BLOCK_NS, the answer is copied out, and the host
 * works on it for HOST_NS. Of each request the page gets two times in ns: from arrival to answer, and from begin to answer.
 */
#include "page.h"

enum { INPUT_BYTES = 64 << 10, OUTPUT_BYTES = 4 << 10 };

static void *stream;
static device_address memory;

static void answer(uint64_t block_ns, int kernels, uint64_t host_ns)
{
    static char input[INPUT_BYTES], output[OUTPUT_BYTES];
    check(copy_in_later(memory, input, INPUT_BYTES, stream), "cuMemcpyHtoDAsync");
    for (int i = 0; i < kernels; i++)
        give_work(stream, block_ns, 1);
    check(copy_out_later(output, memory, OUTPUT_BYTES, stream), "cuMemcpyDtoHAsync");
    check(stream_wait(stream), "cuStreamSynchronize");
    for (const uint64_t end = now_ns() + host_ns; now_ns() < end;)
        ;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: serve FILE BLOCK_NS KERNELS HOST_NS\n");
        return 2;
    }
    const uint64_t block_ns = strtoull(argv[2], NULL, 10), host_ns = strtoull(argv[4], NULL, 10);
    const int kernels = atoi(argv[3]);
    open_page(argv[1]);
    check(stream_create(&stream, 1), "cuStreamCreate");
    check(allocate(&memory, INPUT_BYTES), "cuMemAlloc");
    for (int i = 0; i < 3; i++)
        answer(block_ns, kernels, host_ns);

    const uint64_t start = wait_for_start(), count = page->count;
    uint64_t *const latency = page->requests + count, *const service = latency + count;
    for (uint64_t i = 0; i < count && !stopped(); i++) {
        const uint64_t arrival = start + page->requests[i];
        const struct timespec when = {(time_t)(arrival / 1000000000u), (long)(arrival % 1000000000u)};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) != 0)
            ;
        const uint64_t begin = now_ns();
        answer(block_ns, kernels, host_ns);
        const uint64_t end = now_ns();
        latency[i] = end - arrival;
        service[i] = end - begin;
    }
    return 0;
}
