/* SPDX-License-Identifier: Apache-2.0
 *
 * A job that always wants the GPU: share FILE BLOCK_NS BLOCKS STREAMS DEPTH queued|waiting|graph|training
 *
 * Kernels of BLOCKS blocks of BLOCK_NS each (page.h counts them) go round STREAMS streams, until the page says stop:
 *
 *     queued    up to DEPTH are in flight in each stream
 *     waiting   one; the next is launched when it is done
 *     graph     as queued, GRAPH_KERNELS of them in one graph
 *     training  steps of kernels of 1 to 13 times BLOCKS blocks: a batch is copied in, and the loss is read at the end
 */
#include "page.h"

enum { STREAMS_MOST = 16, DEPTH_MOST = 512, GRAPH_KERNELS = 16, STEP_KERNELS = 24, BATCH_BYTES = 256 << 10 };

static void *streams[STREAMS_MOST], *events[STREAMS_MOST][DEPTH_MOST];
static int (*event_create)(void **, unsigned), (*event_record)(void *, void *), (*event_wait)(void *);

static void *graph_of(void *stream, uint64_t block_ns, unsigned blocks)
{
    int (*const begin)(void *, int) = (int (*)(void *, int))driver_function("cuStreamBeginCapture_v2");
    int (*const end)(void *, void **) = (int (*)(void *, void **))driver_function("cuStreamEndCapture");
    int (*const instantiate)(void **, void *, unsigned long long) =
        (int (*)(void **, void *, unsigned long long))driver_function("cuGraphInstantiateWithFlags");
    void *graph, *made;
    check(begin(stream, 1 /* of this thread */), "cuStreamBeginCapture");
    for (int i = 0; i < GRAPH_KERNELS; i++)
        give_work(stream, block_ns, blocks);
    check(end(stream, &graph), "cuStreamEndCapture");
    check(instantiate(&made, graph, 0), "cuGraphInstantiate");
    return made;
}

/* Waits until fewer than `depth` are in flight in the stream, before the i-th is given to it. */
static void keep_depth(int stream, uint64_t i, unsigned depth)
{
    if (i >= depth)
        check(event_wait(events[stream][i % depth]), "cuEventSynchronize");
}

static void train(uint64_t block_ns, unsigned blocks)
{
    static char batch[BATCH_BYTES];
    device_address memory;
    float loss;
    check(allocate(&memory, BATCH_BYTES), "cuMemAlloc");
    while (!stopped()) {
        check(copy_in_later(memory, batch, BATCH_BYTES, streams[0]), "cuMemcpyHtoDAsync");
        for (unsigned i = 0; i < STEP_KERNELS; i++)
            give_work(streams[0], block_ns, blocks * (1 + i * 7 % 13));
        check(copy_out_later(&loss, memory, sizeof loss, streams[0]), "cuMemcpyDtoHAsync");
        check(stream_wait(streams[0]), "cuStreamSynchronize");
    }
}

int main(int argc, char **argv)
{
    if (argc != 7) {
        fprintf(stderr, "usage: share FILE BLOCK_NS BLOCKS STREAMS DEPTH queued|waiting|graph|training\n");
        return 2;
    }
    const uint64_t block_ns = strtoull(argv[2], NULL, 10);
    const unsigned blocks = (unsigned)atoi(argv[3]), depth = (unsigned)atoi(argv[5]);
    const int count = atoi(argv[4]), waiting = strcmp(argv[6], "waiting") == 0;
    if (count < 1 || count > STREAMS_MOST || depth < 1 || depth > DEPTH_MOST)
        return 2;
    open_page(argv[1]);
    event_create = (int (*)(void **, unsigned))driver_function("cuEventCreate");
    event_record = (int (*)(void *, void *))driver_function("cuEventRecord");
    event_wait = (int (*)(void *))driver_function("cuEventSynchronize");
    for (int s = 0; s < count; s++) {
        check(stream_create(&streams[s], 1), "cuStreamCreate");
        for (unsigned i = 0; i < depth; i++)
            check(event_create(&events[s][i], 3 /* blocking, no timing */), "cuEventCreate");
    }
    int (*const graph_launch)(void *, void *) = (int (*)(void *, void *))driver_function("cuGraphLaunch");
    void *const graph = strcmp(argv[6], "graph") == 0 ? graph_of(streams[0], block_ns, blocks) : NULL;
    give_work(streams[0], block_ns, blocks);
    check(stream_wait(streams[0]), "cuStreamSynchronize");

    wait_for_start();
    if (strcmp(argv[6], "training") == 0)
        train(block_ns, blocks);
    for (uint64_t i = 0; !stopped(); i++)
        for (int s = 0; s < count; s++) {
            if (!waiting)
                keep_depth(s, i, depth);
            if (graph != NULL)
                check(graph_launch(graph, streams[s]), "cuGraphLaunch");
            else
                give_work(streams[s], block_ns, blocks);
            if (waiting)
                check(stream_wait(streams[s]), "cuStreamSynchronize");
            else
                check(event_record(events[s][i % depth], streams[s]), "cuEventRecord");
        }
    for (int s = 0; s < count; s++)
        check(stream_wait(streams[s]), "cuStreamSynchronize");
    return 0;
}
