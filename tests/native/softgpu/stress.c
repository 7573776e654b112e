/* SPDX-License-Identifier: Apache-2.0
 *
 * Eight threads with four streams each do, at random, what programs do: launches, copies, fills, allocations of three kinds,
 * events between streams, host functions, graphs, streams and modules that come and go. Every buffer holds one value in all its words,
 * and the value that must be there is known when the work is given. Also built with sanitizers (tests/project/test_native.py).
 *
 *     stress [ROUNDS] [SEED]     defaults 4000, 1; the same seed gives each thread the same work
 */
#include "cuda_check.h"

#include <pthread.h>
#include <stdatomic.h>

enum { THREADS = 8, STREAMS = 4, WORDS = 3000, BYTES = WORDS * 4, SLOTS = 4, VMM_BYTES = 2 << 20 };

static const char code[] = ".version 7.0\n.target sm_80\n.address_size 64\n"
                           /* to[i] = from[i] + value for i < n */
                           ".visible .entry add(.param .u64 to, .param .u64 from, .param .u32 value, .param .u32 n) {\n"
                           " .reg .b64 %a<4>; .reg .b32 %r<8>; .reg .pred %p;\n"
                           " ld.param.u64 %a0, [to]; ld.param.u64 %a1, [from]; ld.param.u32 %r0, [value];\n"
                           " ld.param.u32 %r1, [n]; mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;\n"
                           " mad.lo.s32 %r5, %r2, %r3, %r4; setp.ge.u32 %p, %r5, %r1; @%p ret;\n"
                           " mul.wide.u32 %a2, %r5, 4; add.s64 %a0, %a0, %a2; add.s64 %a1, %a1, %a2;\n"
                           " ld.global.u32 %r6, [%a1]; add.u32 %r6, %r6, %r0; st.global.u32 [%a0], %r6; ret; }\n";

enum kind { PLAIN, POOL, MAPPED, KINDS };

struct buffer {
    enum kind kind;
    CUdeviceptr at;
    CUmemGenericAllocationHandle handle;
    uint32_t value;
};

/* Pinned memory for one copy at a time. */
struct slot {
    uint32_t *words;
    atomic_int busy;
    uint32_t expected;
};

struct lane {
    CUstream stream;
    CUevent event;
    struct buffer buffers[2];
    struct slot slots[SLOTS];
};

struct worker {
    int number, rounds;
    uint64_t random;
    CUmodule module;
    CUfunction add;
    struct lane lanes[STREAMS];
};

static CUcontext context;
static atomic_ulong wrong, checked;
static CUmemAccessDesc everything;

static uint32_t dice(struct worker *w, uint32_t sides)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(w->random >> 33) % sides;
}

static struct lane *any_lane(struct worker *w) { return &w->lanes[dice(w, STREAMS)]; }
static struct buffer *any_buffer(struct worker *w, struct lane *lane) { return &lane->buffers[dice(w, 2)]; }

static void fill(struct worker *w, struct lane *lane, struct buffer *buffer)
{
    buffer->value = dice(w, 1u << 30);
    OK(cuMemsetD32Async(buffer->at, buffer->value, WORDS, lane->stream));
}

static void make_buffer(struct worker *w, struct lane *lane, struct buffer *buffer)
{
    buffer->kind = (enum kind)dice(w, KINDS);
    if (buffer->kind == PLAIN) {
        OK(cuMemAlloc(&buffer->at, BYTES));
    } else if (buffer->kind == POOL) {
        OK(cuMemAllocAsync(&buffer->at, BYTES, lane->stream));
    } else {
        const CUmemAllocationProp prop = device_memory(0);
        OK(cuMemAddressReserve(&buffer->at, VMM_BYTES, 0, 0, 0));
        OK(cuMemCreate(&buffer->handle, VMM_BYTES, &prop, 0));
        OK(cuMemMap(buffer->at, VMM_BYTES, 0, buffer->handle, 0));
        OK(cuMemSetAccess(buffer->at, VMM_BYTES, &everything, 1));
    }
    fill(w, lane, buffer);
}

static void drop_buffer(struct lane *lane, struct buffer *buffer)
{
    if (buffer->kind == POOL) {
        OK(cuMemFreeAsync(buffer->at, lane->stream));
        return;
    }
    OK(cuStreamSynchronize(lane->stream)); /* unmapping under running work is an error of the program */
    if (buffer->kind == PLAIN) {
        OK(cuMemFree(buffer->at));
    } else {
        OK(cuMemUnmap(buffer->at, VMM_BYTES));
        OK(cuMemRelease(buffer->handle));
        OK(cuMemAddressFree(buffer->at, VMM_BYTES));
    }
}

static void look(const uint32_t *words, uint32_t expected)
{
    for (int i = 0; i < WORDS; i++)
        if (words[i] != expected) {
            if (atomic_fetch_add(&wrong, 1) == 0)
                fprintf(stderr, "word %d is %u, expected %u\n", i, words[i], expected);
            break;
        }
    atomic_fetch_add(&checked, 1);
}

static void CUDA_CB slot_arrived(void *data)
{
    struct slot *slot = data;
    look(slot->words, slot->expected);
    atomic_store_explicit(&slot->busy, 0, memory_order_release);
}

static void CUDA_CB slot_read(void *data)
{
    struct slot *slot = data;
    atomic_store_explicit(&slot->busy, 0, memory_order_release);
}

static struct slot *free_slot(struct lane *lane)
{
    for (int i = 0; i < SLOTS; i++)
        if (atomic_load_explicit(&lane->slots[i].busy, memory_order_acquire) == 0) {
            atomic_store(&lane->slots[i].busy, 1);
            return &lane->slots[i];
        }
    return NULL;
}

static void launch(struct worker *w, CUstream stream, struct buffer *to, const struct buffer *from)
{
    uint32_t value = dice(w, 1000), words = WORDS;
    CUdeviceptr target = to->at, source = from->at;
    void *arguments[] = {&target, &source, &value, &words};
    const unsigned block = 32u << dice(w, 5);
    OK(cuLaunchKernel(w->add, (WORDS + block - 1) / block, 1, 1, block, 1, 1, 0, stream, arguments, NULL));
    to->value = from->value + value;
}

/* Another lane's data, with events both ways: not before it is there, not overwritten before it is read. */
static void borrow(struct worker *w, struct lane *lane)
{
    struct lane *other = any_lane(w);
    if (other == lane)
        return;
    OK(cuEventRecord(other->event, other->stream));
    OK(cuStreamWaitEvent(lane->stream, other->event, 0));
    launch(w, lane->stream, any_buffer(w, lane), any_buffer(w, other));
    OK(cuEventRecord(lane->event, lane->stream));
    OK(cuStreamWaitEvent(other->stream, lane->event, 0));
}

static void make_stream(struct worker *w, struct lane *lane)
{
    OK(cuStreamCreateWithPriority(&lane->stream, dice(w, 4) == 0 ? CU_STREAM_DEFAULT : CU_STREAM_NON_BLOCKING,
                                  -(int)dice(w, 3)));
}

/* The old stream goes with its work pending; the new one goes on after it. */
static void change_stream(struct worker *w, struct lane *lane)
{
    OK(cuEventRecord(lane->event, lane->stream));
    OK(cuStreamDestroy(lane->stream));
    make_stream(w, lane);
    OK(cuStreamWaitEvent(lane->stream, lane->event, 0));
}

static void change_module(struct worker *w)
{
    OK(cuModuleUnload(w->module));
    OK(cuModuleLoadData(&w->module, code));
    OK(cuModuleGetFunction(&w->add, w->module, "add"));
}

static void ask(struct worker *w, struct lane *lane)
{
    const struct buffer *buffer = any_buffer(w, lane);
    size_t bytes;
    CUdeviceptr base;
    CUmemorytype type;
    const CUresult state = cuStreamQuery(lane->stream), event = cuEventQuery(lane->event);
    CHECK(state == CUDA_SUCCESS || state == CUDA_ERROR_NOT_READY);
    CHECK(event == CUDA_SUCCESS || event == CUDA_ERROR_NOT_READY);
    OK(cuMemGetInfo(&bytes, NULL));
    OK(cuMemGetAddressRange(&base, &bytes, buffer->at + 100));
    CHECK(base == buffer->at);
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, buffer->at));
    CHECK(type == CU_MEMORYTYPE_DEVICE);
}

static void copy_in(struct worker *w, struct lane *lane)
{
    struct buffer *buffer = any_buffer(w, lane);
    struct slot *slot = free_slot(lane);
    if (slot == NULL)
        return;
    buffer->value = dice(w, 1u << 30);
    for (int i = 0; i < WORDS; i++)
        slot->words[i] = buffer->value;
    OK(cuMemcpyHtoDAsync(buffer->at, slot->words, BYTES, lane->stream));
    OK(cuLaunchHostFunc(lane->stream, slot_read, slot));
}

static void copy_out(struct worker *w, struct lane *lane)
{
    const struct buffer *buffer = any_buffer(w, lane);
    struct slot *slot = free_slot(lane);
    if (slot == NULL)
        return;
    slot->expected = buffer->value;
    OK(cuMemcpyDtoHAsync(slot->words, buffer->at, BYTES, lane->stream));
    OK(cuLaunchHostFunc(lane->stream, slot_arrived, slot));
}

/* Pageable memory: the call returns when it is done. */
static void copy_out_now(struct worker *w, struct lane *lane)
{
    static __thread uint32_t words[WORDS];
    const struct buffer *buffer = any_buffer(w, lane);
    OK(cuMemcpyDtoHAsync(words, buffer->at, BYTES, lane->stream));
    look(words, buffer->value);
}

static CUgraphNode add_node(struct worker *w, CUgraph graph, const CUgraphNode *after, CUdeviceptr *to,
                            CUdeviceptr *from, uint32_t *value)
{
    uint32_t words = WORDS;
    void *arguments[] = {to, from, value, &words};
    CUDA_KERNEL_NODE_PARAMS params;
    CUgraphNode node;
    memset(&params, 0, sizeof params);
    params.func = w->add;
    params.gridDimX = (WORDS + 127) / 128;
    params.blockDimX = 128;
    params.gridDimY = params.gridDimZ = params.blockDimY = params.blockDimZ = 1;
    params.kernelParams = arguments;
    OK(cuGraphAddKernelNode(&node, graph, after, after != NULL, &params));
    return node;
}

/* Two kernels one after the other, a few times; the graph goes while its launches may be pending. */
static void run_graph(struct worker *w, struct lane *lane)
{
    struct buffer *one = &lane->buffers[0], *two = &lane->buffers[1];
    uint32_t there = dice(w, 1000), back = dice(w, 1000);
    CUgraph graph;
    CUgraphExec ready;
    OK(cuGraphCreate(&graph, 0));
    const CUgraphNode first = add_node(w, graph, NULL, &two->at, &one->at, &there);
    add_node(w, graph, &first, &one->at, &two->at, &back);
    OK(cuGraphInstantiate(&ready, graph, 0));
    OK(cuGraphDestroy(graph));
    for (uint32_t n = 1 + dice(w, 3); n > 0; n--) {
        OK(cuGraphLaunch(ready, lane->stream));
        two->value = one->value + there;
        one->value = two->value + back;
    }
    OK(cuGraphExecDestroy(ready));
}

static void step(struct worker *w)
{
    struct lane *lane = any_lane(w);
    struct buffer *buffer = any_buffer(w, lane);
    const uint32_t what = dice(w, 100);
    if (what < 30) {
        launch(w, lane->stream, buffer, any_buffer(w, lane));
    } else if (what < 40) {
        copy_in(w, lane);
    } else if (what < 55) {
        copy_out(w, lane);
    } else if (what < 60) {
        copy_out_now(w, lane);
    } else if (what < 65) {
        fill(w, lane, buffer);
    } else if (what < 72) {
        const struct buffer *from = any_buffer(w, lane);
        OK(cuMemcpyDtoDAsync(buffer->at, from->at, BYTES, lane->stream));
        buffer->value = from->value;
    } else if (what < 80) {
        borrow(w, lane);
    } else if (what < 88) {
        drop_buffer(lane, buffer);
        make_buffer(w, lane, buffer);
    } else if (what < 90) {
        change_stream(w, lane);
    } else if (what < 93) {
        run_graph(w, lane);
    } else if (what < 97) {
        ask(w, lane);
    } else if (what < 98) {
        OK(cuStreamSynchronize(dice(w, 2) ? CU_STREAM_LEGACY : CU_STREAM_PER_THREAD));
    } else if (what < 99) {
        OK(cuCtxSynchronize());
    } else if (dice(w, 4) == 0) {
        change_module(w);
    }
}

static void open_worker(struct worker *w)
{
    OK(cuCtxSetCurrent(context));
    OK(cuModuleLoadData(&w->module, code));
    OK(cuModuleGetFunction(&w->add, w->module, "add"));
    for (int l = 0; l < STREAMS; l++) {
        struct lane *lane = &w->lanes[l];
        make_stream(w, lane);
        OK(cuEventCreate(&lane->event, CU_EVENT_DISABLE_TIMING));
        for (int b = 0; b < 2; b++)
            make_buffer(w, lane, &lane->buffers[b]);
        for (int s = 0; s < SLOTS; s++)
            OK(cuMemHostAlloc((void **)&lane->slots[s].words, BYTES, 0));
    }
}

static void close_worker(struct worker *w)
{
    for (int l = 0; l < STREAMS; l++) {
        struct lane *lane = &w->lanes[l];
        copy_out_now(w, lane);
        OK(cuStreamSynchronize(lane->stream));
        for (int b = 0; b < 2; b++)
            drop_buffer(lane, &lane->buffers[b]);
        OK(cuStreamDestroy(lane->stream));
        OK(cuEventDestroy(lane->event));
        for (int s = 0; s < SLOTS; s++)
            OK(cuMemFreeHost(lane->slots[s].words));
    }
    OK(cuModuleUnload(w->module));
}

static void *work(void *argument)
{
    struct worker *w = argument;
    open_worker(w);
    for (int round = 0; round < w->rounds; round++)
        step(w);
    close_worker(w);
    return NULL;
}

int main(int count, char **arguments)
{
    const int rounds = count > 1 ? atoi(arguments[1]) : 4000;
    const uint64_t seed = count > 2 ? strtoull(arguments[2], NULL, 0) : 1;
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    use_own_board("512M");
    context = primary_context();
    everything = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    const size_t before = free_bytes();
    for (int t = 0; t < THREADS; t++) {
        workers[t].number = t;
        workers[t].rounds = rounds;
        workers[t].random = seed * 1000003u + (uint64_t)t;
        CHECK(pthread_create(&threads[t], NULL, work, &workers[t]) == 0);
    }
    for (int t = 0; t < THREADS; t++)
        pthread_join(threads[t], NULL);
    OK(cuCtxSynchronize());
    CUmemoryPool pool;
    OK(cuDeviceGetDefaultMemPool(&pool, 0));
    OK(cuMemPoolTrimTo(pool, 0));
    CHECK_EQUAL(free_bytes(), before);
    CHECK_EQUAL(atomic_load(&wrong), 0);
    CHECK(atomic_load(&checked) > (unsigned long)rounds / 10);
    OK(cuDevicePrimaryCtxRelease(0));
    printf("stress: %lu buffers checked\n", atomic_load(&checked));
    return 0;
}
