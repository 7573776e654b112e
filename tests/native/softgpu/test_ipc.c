/* SPDX-License-Identifier: Apache-2.0
 *
 * Memory of another process by legacy handle: what happens when the exporter frees it, ends, or the handle is old.
 */
#include "cuda_check.h"

#include <sys/mman.h>
#include <sys/wait.h>

#define MB (1ull << 20)
static struct shared {
    volatile int step;
    CUipcMemHandle memory, old;
    CUipcEventHandle event;
} *shared;

static void await(int step)
{
    for (int i = 0; i < 20000 && shared->step < step; i++)
        usleep(1000);
    CHECK(shared->step >= step);
}

static void exporter(void)
{
    CUdeviceptr large, small;
    CUevent event;
    uint32_t value = 4711;
    primary_context();
    OK(cuMemAlloc(&small, 100));
    OK(cuIpcGetMemHandle(&shared->old, small));
    OK(cuMemFree(small)); /* with its piece of memory: the handle names nothing any more */
    OK(cuMemAlloc(&large, 8 * MB));
    OK(cuMemcpyHtoD(large + 100, &value, 4));
    OK(cuIpcGetMemHandle(&shared->memory, large));
    CUipcMemHandle inside;
    OK(cuIpcGetMemHandle(&inside, large + 100));
    CHECK(memcmp(&inside, &shared->memory, sizeof inside) == 0); /* of the allocation */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcGetMemHandle(&inside, (CUdeviceptr)&value));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcGetMemHandle(NULL, large));
    OK(cuEventCreate(&event, CU_EVENT_INTERPROCESS | CU_EVENT_DISABLE_TIMING));
    OK(cuIpcGetEventHandle(&shared->event, event));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcGetEventHandle(NULL, event));
    shared->step = 1;
    await(2);
    OK(cuMemFree(large)); /* the importer has it still */
    CHECK_EQUAL(free_bytes(), 56 * MB);
    shared->step = 3;
    await(4);
}

static void importer(void)
{
    CUdeviceptr at, again;
    CUevent event;
    uint32_t value = 0;
    await(1);
    primary_context();
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuIpcOpenMemHandle(&at, shared->old, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    CUipcMemHandle wrong;
    memset(&wrong, 7, sizeof wrong);
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuIpcOpenMemHandle(&at, wrong, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    OK(cuIpcOpenMemHandle(&at, shared->memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS));
    CHECK_EQUAL(free_bytes(), 56 * MB);                              /* charged once */
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcGetMemHandle(&wrong, at)); /* not ours to give */
    CUcontext other;
    OK(cuCtxCreate(&other, NULL, 0, 0));
    EXPECT(CUDA_ERROR_INVALID_CONTEXT,
           cuIpcOpenMemHandle(&again, shared->memory, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS)); /* one context only */
    OK(cuCtxDestroy(other));
    OK(cuIpcOpenEventHandle(&event, shared->event));
    OK(cuEventQuery(event)); /* never recorded */
    OK(cuEventDestroy(event));
    shared->step = 2;
    await(3);
    OK(cuMemcpyDtoH(&value, at + 100, 4));
    CHECK_EQUAL(value, 4711);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcCloseMemHandle(at + 100));
    OK(cuIpcCloseMemHandle(at));
    CHECK_EQUAL(free_bytes(), 64 * MB);
    OK(cuIpcOpenEventHandle(&event, shared->event));
    shared->step = 4;
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuIpcCloseMemHandle(at));
}

int main(void)
{
    use_own_board("64M");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(shared != MAP_FAILED);
    void (*const acts[2])(void) = {exporter, importer};
    pid_t children[2];
    for (int i = 0; i < 2; i++)
        if ((children[i] = fork()) == 0) {
            acts[i]();
            _exit(0);
        }
    for (int i = 0; i < 2; i++) {
        int status;
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    return 0;
}
