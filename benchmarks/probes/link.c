/* SPDX-License-Identifier: Apache-2.0
 *
 * What plain copies get of the link: link WAY MIB PIECE_KIB [pageable] [at NS]
 *
 * WAY is in, out, both (a stream for each), or fill (a memset, which needs no link). Everything is submitted in pieces of
 * PIECE_KIB before the first is waited for, beginning at NS of CLOCK_MONOTONIC so that several processes begin together.
 * Prints {"start": ns, "in_end": ns, "out_end": ns, "bytes": N}; bytes are those of one way.
 */
#include <string.h>
#include <unistd.h>

#include "driver.h"

static int wanted(const char *way, const char *one) { return strcmp(way, one) == 0 || strcmp(way, "both") == 0; }

static void *host(size_t bytes, int pageable)
{
    void *memory = NULL;
    if (pageable)
        memory = malloc(bytes);
    else
        check(host_allocate(&memory, bytes, 0), "cuMemHostAlloc");
    if (memory == NULL) {
        fprintf(stderr, "no memory\n");
        exit(3);
    }
    memset(memory, 1, bytes); /* the first touch is not the link's */
    return memory;
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: link in|out|both|fill MIB PIECE_KIB [pageable] [at NS]\n");
        return 2;
    }
    const char *const way = argv[1];
    const size_t bytes = strtoull(argv[2], NULL, 10) << 20, piece = strtoull(argv[3], NULL, 10) << 10;
    const int pageable = argc > 4 && strcmp(argv[4], "pageable") == 0;
    const uint64_t at = argc > 4 + pageable + 1 ? strtoull(argv[5 + pageable], NULL, 10) : 0;
    const int in = wanted(way, "in"), out = wanted(way, "out"), fill = strcmp(way, "fill") == 0;
    device_address to = 0, from = 0;
    void *streams[2], *source = NULL, *sink = NULL;
    open_driver(".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry nothing() { ret; }\n");
    for (int i = 0; i < 2; i++)
        check(stream_create(&streams[i], 1), "cuStreamCreate");
    if (in || fill) {
        check(allocate(&to, bytes), "cuMemAlloc");
        check(fill_later(to, 2, bytes, streams[0]), "cuMemsetD8Async");
        source = host(bytes, pageable);
    }
    if (out) {
        check(allocate(&from, bytes), "cuMemAlloc");
        check(fill_later(from, 3, bytes, streams[1]), "cuMemsetD8Async");
        sink = host(bytes, pageable);
    }
    for (int i = 0; i < 2; i++)
        check(stream_wait(streams[i]), "cuStreamSynchronize");

    while (now_ns() < at)
        usleep(200);
    const uint64_t start = now_ns();
    for (size_t done = 0; done < bytes; done += piece) {
        if (in)
            check(copy_in_later(to + done, (char *)source + done, piece, streams[0]), "cuMemcpyHtoDAsync");
        if (out)
            check(copy_out_later((char *)sink + done, from + done, piece, streams[1]), "cuMemcpyDtoHAsync");
        if (fill)
            check(fill_later(to + done, 4, piece, streams[0]), "cuMemsetD8Async");
    }
    uint64_t end[2];
    for (int i = 0; i < 2; i++) {
        check(stream_wait(streams[i]), "cuStreamSynchronize");
        end[i] = now_ns();
    }
    printf("{\"start\": %llu, \"in_end\": %llu, \"out_end\": %llu, \"bytes\": %llu}\n", (unsigned long long)start,
           (unsigned long long)end[0], (unsigned long long)end[1], (unsigned long long)bytes);
    return 0;
}
