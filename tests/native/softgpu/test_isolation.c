/* SPDX-License-Identifier: Apache-2.0
 *
 * No process sees another's device memory: not while that lives, not after it freed it, not after it was killed. What a
 * process gets is zero.
 */
#include "cuda_check.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MB (1ull << 20)
enum { ALL = 64, PIECE = 4 };

static struct shared {
    volatile int ready, go;
    volatile CUdeviceptr secret;
} *shared;

static void await(volatile int *flag, int value)
{
    for (int i = 0; i < 20000 && *flag < value; i++)
        usleep(1000);
    CHECK(*flag >= value);
}

/* Writes all of the device, frees half of it; what is left is never freed. */
static void keep_secrets(void)
{
    CUdeviceptr pieces[ALL / PIECE];
    primary_context();
    for (int i = 0; i < ALL / PIECE; i++) {
        OK(cuMemAlloc(&pieces[i], PIECE * MB));
        OK(cuMemsetD8(pieces[i], 0xab, PIECE * MB));
    }
    OK(cuCtxSynchronize());
    for (int i = 0; i < ALL / PIECE; i += 2)
        OK(cuMemFree(pieces[i]));
    shared->secret = pieces[1];
    shared->ready = 1;
    for (;;)
        pause();
}

static void expect_zero(CUdeviceptr at, size_t bytes)
{
    static char buffer[PIECE << 20];
    CHECK(bytes <= sizeof buffer);
    OK(cuMemcpyDtoH(buffer, at, bytes));
    for (size_t i = 0; i < bytes; i++)
        if (buffer[i] != 0)
            FAIL("byte %zu of fresh memory is %#x", i, (unsigned char)buffer[i]);
}

/* All of `mb`: by allocations, by handles, and from a pool. */
static void look_everywhere(int mb)
{
    CUmemGenericAllocationHandle handle;
    const CUmemAllocationProp prop = device_memory(0);
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUdeviceptr at[ALL / PIECE], area;
    for (int i = 0; i < mb / PIECE; i++) {
        OK(cuMemAlloc(&at[i], PIECE * MB));
        expect_zero(at[i], PIECE * MB);
    }
    EXPECT(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc(&at[0], PIECE * MB)); /* that was all */
    for (int i = 0; i < mb / PIECE; i++)
        OK(cuMemFree(at[i]));
    OK(cuMemAddressReserve(&area, (size_t)mb * MB, 0, 0, 0));
    for (int i = 0; i < mb; i += PIECE) {
        OK(cuMemCreate(&handle, PIECE * MB, &prop, 0));
        OK(cuMemMap(area + (CUdeviceptr)i * MB, PIECE * MB, 0, handle, 0));
        OK(cuMemSetAccess(area + (CUdeviceptr)i * MB, PIECE * MB, &access, 1));
        expect_zero(area + (CUdeviceptr)i * MB, PIECE * MB);
        OK(cuMemRelease(handle));
    }
    for (int i = 0; i < mb; i += PIECE)
        OK(cuMemUnmap(area + (CUdeviceptr)i * MB, PIECE * MB));
    OK(cuMemAllocAsync(&at[0], PIECE * MB, NULL));
    OK(cuStreamSynchronize(NULL));
    expect_zero(at[0], PIECE * MB);
    OK(cuMemFreeAsync(at[0], NULL));
    OK(cuStreamSynchronize(NULL));
}

static void be_curious(void)
{
    char byte;
    primary_context();
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoH(&byte, shared->secret, 1)); /* an address of the other's */
    look_everywhere(ALL / 2);                                                 /* what it freed */
    shared->ready = 2;
    await(&shared->go, 1);
    look_everywhere(ALL); /* it was killed */
}

static pid_t spawn(void (*act)(void))
{
    const pid_t child = fork();
    if (child == 0) {
        act();
        _exit(0);
    }
    return child;
}

int main(void)
{
    int status;
    use_own_board("64M");
    shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const pid_t keeper = spawn(keep_secrets);
    await(&shared->ready, 1);
    const pid_t curious = spawn(be_curious);
    for (int i = 0; i < 20000 && shared->ready < 2; i++) {
        CHECK(waitpid(curious, &status, WNOHANG) == 0);
        usleep(1000);
    }
    kill(keeper, SIGKILL);
    waitpid(keeper, &status, 0);
    shared->go = 1;
    CHECK(waitpid(curious, &status, 0) == curious && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return 0;
}
