/* SPDX-License-Identifier: Apache-2.0
 *
 * Profiles and models of cost: what driver and NVML say of a device, what calls are charged, and that it is the same in every
 * process. Costs are checked by the books on the board and by lower bounds of time; nothing here needs a quiet machine.
 */
#include "../../../native/softgpu/board.h"
#include "cuda_check.h"
#include "kernels.h"

#include <fcntl.h>
#include <nvml.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MB (1ull << 20)
#define NVML(call) CHECK_EQUAL(call, NVML_SUCCESS)

static const struct gv_board *board;

static int attribute(CUdevice_attribute which, int device)
{
    int value = -77;
    OK(cuDeviceGetAttribute(&value, which, device));
    return value;
}

static void look_at_board(void)
{
    const int fd = open(board_path, O_RDONLY);
    CHECK(fd >= 0);
    board = mmap(NULL, sizeof *board, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(board != MAP_FAILED);
    close(fd);
}

/* What a program asks before it chooses its kernels, by the first two profiles of the board. */
static void two_cards(void)
{
    static const struct {
        const char *name;
        int major, minor, multiprocessors, threads, shared, clock;
    } cards[] = {{"Soft GPU (gpuvirt) h100-80gb", 9, 0, 132, 2048, 227 * 1024, 1980000},
                 {"Soft GPU (gpuvirt) t4", 7, 5, 40, 1024, 64 * 1024, 1590000}};
    int count;
    OK(cuDeviceGetCount(&count));
    CHECK_EQUAL(count, 2);
    for (int d = 0; d < 2; d++) {
        char name[96];
        size_t bytes;
        int major, minor;
        nvmlDevice_t device;
        nvmlMemory_v2_t memory = {.version = nvmlMemory_v2};
        OK(cuDeviceGetName(name, sizeof name, d));
        CHECK(strcmp(name, cards[d].name) == 0);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, d), cards[d].major);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, d), cards[d].minor);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, d), cards[d].multiprocessors);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, d), cards[d].threads);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, d), cards[d].shared);
        CHECK_EQUAL(attribute(CU_DEVICE_ATTRIBUTE_CLOCK_RATE, d), cards[d].clock);
        OK(cuDeviceTotalMem(&bytes, d));

        NVML(nvmlDeviceGetHandleByIndex(d, &device));
        NVML(nvmlDeviceGetName(device, name, sizeof name));
        CHECK(strcmp(name, cards[d].name) == 0);
        NVML(nvmlDeviceGetCudaComputeCapability(device, &major, &minor));
        CHECK(major == cards[d].major && minor == cards[d].minor);
        unsigned clock, idle, limit, generation;
        NVML(nvmlDeviceGetMaxClockInfo(device, NVML_CLOCK_SM, &clock));
        CHECK_EQUAL((int)clock, cards[d].clock / 1000);
        NVML(nvmlDeviceGetPowerUsage(device, &idle));
        NVML(nvmlDeviceGetEnforcedPowerLimit(device, &limit));
        CHECK(idle > 0 && idle < limit);
        NVML(nvmlDeviceGetCurrPcieLinkGeneration(device, &generation));
        CHECK_EQUAL(generation, d == 0 ? 5 : 3);
        /* What the driver keeps is not CUDA's, but NVML's. */
        NVML(nvmlDeviceGetMemoryInfo_v2(device, &memory));
        CHECK(memory.reserved > 0);
        CHECK_EQUAL(memory.total, bytes + memory.reserved);
        CHECK_EQUAL(memory.free + memory.used + memory.reserved, memory.total);
        nvmlFieldValue_t fields[3] = {{.fieldId = NVML_FI_DEV_POWER_MAX_LIMIT},
                                      {.fieldId = NVML_FI_DEV_NVLINK_LINK_COUNT},
                                      {.fieldId = NVML_FI_DEV_MEMORY_TEMP}};
        NVML(nvmlDeviceGetFieldValues(device, 3, fields));
        CHECK(fields[0].nvmlReturn == NVML_SUCCESS && fields[0].value.uiVal == limit);
        CHECK(fields[1].nvmlReturn == NVML_SUCCESS && fields[1].value.uiVal == 0);
        CHECK_EQUAL(fields[2].nvmlReturn, NVML_ERROR_NOT_SUPPORTED);
        unsigned fan;
        CHECK_EQUAL(nvmlDeviceGetFanSpeed(device, &fan), NVML_ERROR_NOT_SUPPORTED);
        CHECK_EQUAL(nvmlDeviceGetMigMode(device, &fan, &fan), NVML_ERROR_NOT_SUPPORTED);
    }
    CHECK(board->devices[0].memory_bytes > 5 * board->devices[1].memory_bytes); /* one factor for both */
}

static void limits_of_a_card(int device)
{
    CUcontext context;
    CUmodule module;
    CUfunction function;
    int blocks, least, size;
    OK(cuCtxCreate(&context, NULL, 0, device));
    char *const earlier = strdup(kernels); /* they say sm_80 */
    strstr(earlier, "sm_80")[3] = '5';
    OK(cuModuleLoadData(&module, earlier));
    free(earlier);
    OK(cuModuleGetFunction(&function, module, "nothing"));
    const int threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, device);
    const int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, device);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 1024, 0));
    CHECK_EQUAL(blocks, threads / 1024);
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 32, 0));
    CHECK_EQUAL(blocks, attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, device));
    OK(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, function, 32, (size_t)most));
    CHECK_EQUAL(blocks, 1);
    OK(cuOccupancyMaxPotentialBlockSize(&least, &size, function, NULL, 0, 0));
    CHECK_EQUAL(least, attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device) * (threads / size));
    EXPECT(CUDA_ERROR_INVALID_VALUE,
           cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most + 1));
    OK(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most));
    OK(cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, (unsigned)most, NULL, NULL, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, (unsigned)most + 4, NULL, NULL, NULL));
    /* Code of a later card is not for this one. */
    char later[64];
    snprintf(later, sizeof later, ".version 8.0\n.target sm_%d\n.address_size 64\n", device == 0 ? 100 : 80);
    EXPECT(CUDA_ERROR_INVALID_PTX, cuModuleLoadData(&module, later));
    OK(cuCtxDestroy(context));
}

static void contexts_keep_memory(void)
{
    CUcontext context;
    CHECK_EQUAL(board->devices[1].used_bytes, 0);
    OK(cuCtxCreate(&context, NULL, 0, 1));
    CHECK_EQUAL(board->devices[1].used_bytes, board->devices[1].model.context_bytes);
    CHECK(board->devices[1].model.context_bytes > 0);
    OK(cuCtxDestroy(context));
    CHECK_EQUAL(board->devices[1].used_bytes, 0);
}

static void vmm_calls_cost(void)
{
    const struct gv_board_model *model = &board->devices[0].model;
    CUmemGenericAllocationHandle handle;
    CUmemAllocationProp prop = device_memory(0);
    CUdeviceptr area;
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    const uint64_t calls = model->vmm_calls, cost = model->vmm_ns, start = now_ns();
    OK(cuMemAddressReserve(&area, 2 * MB, 0, 0, 0));
    for (int i = 0; i < 20; i++) {
        OK(cuMemCreate(&handle, 2 * MB, &prop, 0));
        OK(cuMemMap(area, 2 * MB, 0, handle, 0));
        OK(cuMemSetAccess(area, 2 * MB, &access, 1));
        OK(cuMemUnmap(area, 2 * MB));
        OK(cuMemRelease(handle));
    }
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemUnmap(area, 2 * MB)); /* what fails is free */
    OK(cuMemAddressFree(area, 2 * MB));
    CHECK_EQUAL(model->vmm_calls - calls, 80);
    CHECK_EQUAL(model->vmm_ns - cost, 20 * 256500); /* the table's sum for 2 MiB */
    CHECK(now_ns() - start >= 20 * 256500 - 400000);
    OK(cuMemCreate(&handle, 32 * MB, &prop, 0));
    CHECK(model->vmm_ns - cost > 20 * 256500 + 193000); /* a larger one costs more */
    OK(cuMemRelease(handle));
}

static void copies_cost(void)
{
    const struct gv_board_model *model = &board->devices[0].model;
    enum { BYTES = 8 << 20 };
    CUdeviceptr at;
    void *pinned;
    OK(cuMemAlloc(&at, BYTES));
    OK(cuMemAllocHost(&pinned, BYTES));
    char *pageable = malloc(BYTES);
    CHECK(pageable != NULL);
    memset(pageable, 1, BYTES);
    uint64_t busy = model->link[0].busy_ns;
    OK(cuMemcpyHtoD(at, pinned, BYTES));
    const uint64_t fast = model->link[0].busy_ns - busy;
    CHECK(fast >= 4190000 && fast <= 4200000); /* 2 GB/s */
    busy = model->link[0].busy_ns;
    const uint64_t start = now_ns();
    OK(cuMemcpyHtoD(at, pageable, BYTES));
    CHECK(model->link[0].busy_ns - busy >= fast * 2); /* 40 % */
    CHECK(now_ns() - start >= fast * 2);
    busy = model->link[1].busy_ns;
    OK(cuMemcpyDtoH(pinned, at, BYTES));
    CHECK(model->link[1].busy_ns - busy >= 8380000); /* 1 GB/s */
    CHECK_EQUAL(model->link[0].bytes, 2 * BYTES);
    CHECK_EQUAL(model->link[1].bytes, BYTES);
    nvmlDevice_t device;
    unsigned received;
    NVML(nvmlDeviceGetHandleByIndex(0, &device));
    NVML(nvmlDeviceGetPcieThroughput(device, NVML_PCIE_UTIL_RX_BYTES, &received));
    CHECK(received > 1000); /* KB/s */
    free(pageable);
    OK(cuMemFreeHost(pinned));
    OK(cuMemFree(at));
}

/* --- a queue of copies -------------------------------------------------------------------------------------------------- */

static _Atomic int all_queued;
static uint64_t first_start_ns;

static void CUDA_CB hold(void *unused)
{
    (void)unused;
    while (!all_queued)
        usleep(100);
    first_start_ns = now_ns();
}

/* Gives a stream `count` pieces each way it is asked for, then lets it go. */
static void queue(CUstream stream, CUdeviceptr at, char *host, int out, size_t piece, size_t count)
{
    for (size_t i = 0; i < count; i++)
        OK(out ? cuMemcpyDtoHAsync(host + i * piece, at + i * piece, piece, stream)
               : cuMemcpyHtoDAsync(at + i * piece, host + i * piece, piece, stream));
}

/* The thread that plays the copy engine wakes late after each of 4,096 pieces: the books of the link must not show it. */
static void queued_copies_have_no_gaps(void)
{
    enum { PIECE = 16 << 10, COUNT = 4096, BYTES = PIECE * COUNT };
    const struct gv_board_device *device = &board->devices[0];
    CUdeviceptr at;
    CUstream stream;
    void *pinned;
    OK(cuMemAlloc(&at, BYTES));
    OK(cuMemAllocHost(&pinned, BYTES));
    OK(cuMemsetD8(at, 1, BYTES));
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    all_queued = 0;
    const uint64_t busy = device->model.link[1].busy_ns;
    OK(cuLaunchHostFunc(stream, hold, NULL));
    queue(stream, at, pinned, 1, PIECE, COUNT);
    all_queued = 1;
    OK(cuStreamSynchronize(stream));
    const uint64_t cost = device->model.link[1].busy_ns - busy, end = device->link_free_at_ns[1];
    CHECK(cost >= 67000000 && cost <= 67200000); /* 1 GB/s */
    CHECK(end - first_start_ns >= cost);
    CHECK(end - first_start_ns < cost * 3); /* without: four times */
    CHECK(now_ns() >= end);

    /* What comes after a wait of the program starts then, not before. */
    usleep(20000);
    const uint64_t later = now_ns();
    queue(stream, at, pinned, 1, PIECE, 1);
    OK(cuStreamSynchronize(stream));
    CHECK(device->link_free_at_ns[1] > later);
    /* Nor does what comes after other work of the stream. */
    all_queued = 0;
    OK(cuLaunchHostFunc(stream, hold, NULL));
    queue(stream, at, pinned, 1, PIECE, 1);
    OK(cuLaunchHostFunc(stream, hold, NULL));
    queue(stream, at, pinned, 1, PIECE, 1);
    usleep(2000);
    all_queued = 1;
    OK(cuStreamSynchronize(stream));
    CHECK(device->link_free_at_ns[1] > first_start_ns);
    OK(cuStreamDestroy(stream));
    OK(cuMemFreeHost(pinned));
    OK(cuMemFree(at));
}

/* 64 MiB in at 2 GB/s and 32 MiB out at 1 GB/s at the same time: each is as slow as the profile says, 71 %. False: for
 * lack of a processor they were not there at the same time. */
static bool both_ways_are_slower(void)
{
    enum { BYTES = 64 << 20 };
    const struct gv_board_link *link = board->devices[0].model.link;
    CUdeviceptr at[2];
    CUstream streams[2];
    void *pinned[2];
    uint64_t busy[2];
    all_queued = 0;
    for (int i = 0; i < 2; i++) {
        OK(cuMemAlloc(&at[i], BYTES >> i));
        OK(cuMemAllocHost(&pinned[i], BYTES >> i));
        memset(pinned[i], 1, BYTES >> i);
        OK(cuMemsetD8(at[i], 1, BYTES >> i));
        OK(cuStreamCreate(&streams[i], CU_STREAM_NON_BLOCKING));
        OK(cuLaunchHostFunc(streams[i], hold, NULL));
        queue(streams[i], at[i], pinned[i], i, 1 << 20, BYTES >> 20 >> i);
        busy[i] = link[i].busy_ns;
    }
    all_queued = 1;
    for (int i = 0; i < 2; i++)
        OK(cuStreamSynchronize(streams[i]));
    bool slower = true;
    for (int i = 0; i < 2; i++) {
        const uint64_t cost = link[i].busy_ns - busy[i], alone = 33554432;
        CHECK(cost <= alone * 100 / 71 + 100000);
        slower &= cost >= alone * 13 / 10;
        OK(cuStreamDestroy(streams[i]));
        OK(cuMemFreeHost(pinned[i]));
        OK(cuMemFree(at[i]));
    }
    return slower;
}

/* What stays on the device costs the link nothing. */
static void device_work_is_free(void)
{
    enum { BYTES = 8 << 20 };
    const struct gv_board_link *link = board->devices[0].model.link;
    CUdeviceptr at;
    OK(cuMemAlloc(&at, 2 * BYTES));
    const uint64_t busy = link[0].busy_ns + link[1].busy_ns;
    OK(cuMemsetD8(at, 1, BYTES));
    OK(cuMemcpyDtoD(at + BYTES, at, BYTES));
    OK(cuCtxSynchronize());
    CHECK_EQUAL(link[0].busy_ns + link[1].busy_ns, busy);
    OK(cuMemFree(at));
}

static void in_another_process(void)
{
    const pid_t child = fork();
    if (child == 0) {
        setenv("GPUVIRT_SOFTGPU_PROFILE", "a100-80gb", 1); /* too late: the board is made */
        char *const program[] = {"/proc/self/exe", "again", NULL};
        execv(program[0], program);
        _exit(9);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc == 1) {
        use_own_board("64M");
        unsetenv("GPUVIRT_SOFTGPU_MEMORY");
        setenv("GPUVIRT_SOFTGPU_PROFILE", "h100-80gb,t4", 1);
        setenv("GPUVIRT_SOFTGPU_MEMORY_SCALE", "0.01", 1);
        setenv("GPUVIRT_SOFTGPU_MODEL", "link=2:1,vmm,reserved,context=4M,pin,launch=1,init=1", 1);
    } else {
        snprintf(board_path, sizeof board_path, "%s", getenv("GPUVIRT_SOFTGPU_BOARD"));
    }
    OK(cuInit(0));
    NVML(nvmlInit());
    look_at_board();
    two_cards();
    if (argc > 1)
        return 0;
    limits_of_a_card(0);
    limits_of_a_card(1);
    contexts_keep_memory();
    primary_context();
    vmm_calls_cost();
    copies_cost();
    queued_copies_have_no_gaps();
    int tries = 0;
    while (!both_ways_are_slower())
        CHECK(++tries < 20);
    device_work_is_free();
    in_another_process();
    return 0;
}
