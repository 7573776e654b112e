/* SPDX-License-Identifier: Apache-2.0
 *
 * Modules, libraries, launches and what goes wrong in them.
 */
#include "cuda_check.h"
#include "kernels.h"

#include <setjmp.h>
#include <signal.h>

static CUmodule load(void)
{
    CUmodule module;
    OK(cuModuleLoadData(&module, kernels));
    return module;
}

static CUfunction function_of(CUmodule module, const char *name)
{
    CUfunction function;
    OK(cuModuleGetFunction(&function, module, name));
    return function;
}

static void modules(void)
{
    CUmodule module = load(), again = load(), from;
    CUfunction function;
    CUdeviceptr one, two;
    size_t bytes;
    unsigned count;
    uint32_t value;
    OK(cuModuleGetFunctionCount(&count, module));
    CHECK_EQUAL(count, 7);
    EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetFunction(&function, module, "no such"));
    OK(cuFuncGetModule(&from, function_of(module, "stop")));
    CHECK(from == module);
    OK(cuModuleGetGlobal(&one, &bytes, module, "variable"));
    CHECK_EQUAL(bytes, 4);
    OK(cuModuleGetGlobal(&two, NULL, again, "variable")); /* each has its own */
    CHECK(one != two);
    OK(cuMemsetD32(one, 77, 1));
    OK(cuMemcpyDtoH(&value, two, 4));
    CHECK_EQUAL(value, 5);
    EXPECT(CUDA_ERROR_NOT_FOUND, cuModuleGetGlobal(&one, NULL, module, "no such"));
    OK(cuModuleUnload(module));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuModuleUnload(module));
    OK(cuModuleUnload(again));
}

static void bad_modules(void)
{
    char log[512] = "";
    CUmodule module;
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    EXPECT(CUDA_ERROR_NO_BINARY_FOR_GPU, cuModuleLoadData(&module, "\177ELF\2\1\1"));
    EXPECT(CUDA_ERROR_INVALID_IMAGE, cuModuleLoadData(&module, "something else"));
    EXPECT(CUDA_ERROR_INVALID_PTX,
           cuModuleLoadDataEx(
               &module,
               ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k() { frobnicate.u32 1; ret; }\n", 2,
               options, values));
    CHECK(strstr(log, "frobnicate") != NULL);
    CHECK_EQUAL((size_t)values[1], strlen(log) + 1);
    EXPECT(CUDA_ERROR_FILE_NOT_FOUND, cuModuleLoad(&module, "/nowhere/file.ptx"));
}

static void launches(void)
{
    CUmodule module = load();
    CUfunction count = function_of(module, "count"), store = function_of(module, "store");
    CUdeviceptr at;
    uint32_t value = 0;
    OK(cuMemAlloc(&at, 64));
    OK(cuMemsetD8(at, 0, 64));
    void *arguments[] = {&at, &value};
    OK(cuLaunchKernel(count, 7, 5, 3, 8, 4, 2, 0, NULL, arguments, NULL));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 7 * 5 * 3 * 8 * 4 * 2);
    OK(cuLaunchKernel(count, 20000, 1, 1, 64, 1, 1, 0, NULL, arguments, NULL)); /* long enough for helpers */
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 6720 + 20000 * 64);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 0, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 1, 1, 1025, 1, 1, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 1, 1, 64, 32, 1, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 65536, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 1, 1, 1, 1, 65, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 49153, NULL, arguments, NULL));
    OK(cuFuncSetAttribute(count, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 100000));
    OK(cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 100000, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuLaunchKernel(count, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    struct {
        CUdeviceptr to;
        uint32_t value;
    } packed = {at, 123};
    size_t bytes = 12;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &packed, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    OK(cuLaunchKernel(store, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, extra));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 123);
    CUlaunchConfig config;
    memset(&config, 0, sizeof config);
    config.gridDimX = config.gridDimY = config.gridDimZ = 1;
    config.blockDimX = config.blockDimY = config.blockDimZ = 1;
    value = 321;
    OK(cuLaunchKernelEx(&config, store, arguments, NULL));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 321);
    OK(cuMemFree(at));
    OK(cuModuleUnload(module));
}

static void libraries(CUcontext primary)
{
    CUlibrary library;
    CUkernel kernel;
    CUfunction function;
    CUcontext other;
    CUdeviceptr here, there;
    size_t offset, size;
    const char *name;
    OK(cuLibraryLoadData(&library, kernels, NULL, NULL, 0, NULL, NULL, 0));
    OK(cuLibraryGetKernel(&kernel, library, "store"));
    OK(cuKernelGetName(&name, kernel));
    CHECK(strcmp(name, "store") == 0);
    OK(cuKernelGetParamInfo(kernel, 1, &offset, &size));
    CHECK(offset == 8 && size == 4);
    EXPECT(CUDA_ERROR_INVALID_VALUE, cuKernelGetParamInfo(kernel, 2, &offset, &size));
    OK(cuKernelGetFunction(&function, kernel));
    OK(cuLibraryGetGlobal(&here, NULL, library, "variable"));
    uint32_t value = 9;
    void *arguments[] = {&here, &value};
    OK(cuLaunchKernel((CUfunction)kernel, 1, 1, 1, 1, 1, 1, 0, NULL, arguments,
                      NULL)); /* a kernel is a function here */
    OK(cuMemcpyDtoH(&value, here, 4));
    CHECK_EQUAL(value, 9);
    OK(cuCtxCreate(&other, NULL, 0, 0)); /* another context has other variables */
    OK(cuLibraryGetGlobal(&there, NULL, library, "variable"));
    CHECK(here != there);
    OK(cuMemcpyDtoH(&value, there, 4));
    CHECK_EQUAL(value, 5);
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    OK(cuCtxDestroy(other));
    OK(cuCtxSetCurrent(primary));
    OK(cuLibraryUnload(library));
    EXPECT(CUDA_ERROR_INVALID_HANDLE, cuLibraryGetKernel(&kernel, library, "store"));
}

static void links(void)
{
    static const char caller[] = ".version 7.0\n.target sm_80\n.address_size 64\n"
                                 ".extern .func (.param .b32 result) twice (.param .b32 x);\n"
                                 ".visible .entry apply(.param .u64 to, .param .u32 x) {\n"
                                 " .reg .b64 %a<2>; .reg .b32 %v;\n"
                                 " ld.param.u64 %a0, [to]; cvta.to.global.u64 %a1, %a0; ld.param.u32 %v, [x];\n"
                                 " { .param .b32 in; st.param.b32 [in], %v; .param .b32 out; call.uni (out), twice, "
                                 "(in); ld.param.b32 %v, [out]; }\n"
                                 " st.global.u32 [%a1], %v; ret; }\n";
    static const char callee[] =
        ".version 7.0\n.target sm_80\n.address_size 64\n"
        ".visible .func (.param .b32 result) twice (.param .b32 x) {\n"
        " .reg .b32 %v; ld.param.b32 %v, [x]; add.u32 %v, %v, %v; st.param.b32 [result], %v; ret; }\n";
    CUlinkState state;
    void *image;
    size_t bytes;
    CUmodule module;
    CUdeviceptr at;
    char log[512] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)sizeof log};
    OK(cuLinkCreate(2, options, values, &state));
    OK(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)caller, sizeof caller, "caller", 0, NULL, NULL));
    CHECK(cuLinkComplete(state, &image, &bytes) != CUDA_SUCCESS); /* `twice` is missing */
    CHECK(strstr(log, "twice") != NULL);
    OK(cuLinkAddData(state, CU_JIT_INPUT_PTX, (void *)callee, sizeof callee, "callee", 0, NULL, NULL));
    EXPECT(CUDA_ERROR_NO_BINARY_FOR_GPU,
           cuLinkAddData(state, CU_JIT_INPUT_CUBIN, (void *)callee, 40, "bin", 0, NULL, NULL));
    OK(cuLinkComplete(state, &image, &bytes));
    OK(cuModuleLoadData(&module, image));
    OK(cuLinkDestroy(state));
    uint32_t value = 21;
    OK(cuMemAlloc(&at, 4));
    void *arguments[] = {&at, &value};
    OK(cuLaunchKernel(function_of(module, "apply"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, 42);
    OK(cuMemFree(at));
    OK(cuModuleUnload(module));
}

/* A failed context stays failed; another one goes on; a reset makes it new. */
static void faults(CUcontext primary)
{
    CUcontext other;
    CUdeviceptr nowhere = 4096, good;
    uint32_t value = 3;
    CUevent event;
    OK(cuCtxCreate(&other, NULL, 0, 0));
    OK(cuMemAlloc(&good, 4));
    void *arguments[] = {&nowhere, &value};
    OK(cuCtxSetCurrent(primary));
    OK(cuEventCreate(&event, 0));
    CUmodule module = load();
    OK(cuLaunchKernel(function_of(module, "store"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuMemcpyDtoH(&value, good, 4));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuEventQuery(event));
    OK(cuEventDestroy(event));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(NULL));
    OK(cuCtxSetCurrent(other));
    arguments[0] = &good;
    module = load();
    OK(cuLaunchKernel(function_of(module, "store"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    value = 0;
    OK(cuMemcpyDtoH(&value, good, 4));
    CHECK_EQUAL(value, 3);
    OK(cuCtxDestroy(other));
    OK(cuCtxSetCurrent(primary));
    OK(cuDevicePrimaryCtxReset(0));
    OK(cuCtxSynchronize());
    module = load();
    OK(cuLaunchKernel(function_of(module, "stop"), 3, 1, 1, 32, 1, 1, 0, NULL, NULL, NULL));
    EXPECT(CUDA_ERROR_LAUNCH_FAILED, cuCtxSynchronize());
    OK(cuDevicePrimaryCtxReset(0));
    OK(cuCtxSynchronize());
}

/* Memory taken away under a running kernel. */
static void unmap_under_work(void)
{
    const CUmemAllocationProp prop = device_memory(0);
    const CUmemAccessDesc access = access_of(0, CU_MEM_ACCESS_FLAGS_PROT_READWRITE);
    CUmemGenericAllocationHandle handle;
    CUdeviceptr area;
    void *arguments[] = {&area};
    CUmodule module = load();
    OK(cuMemAddressReserve(&area, 2 << 20, 0, 0, 0));
    OK(cuMemCreate(&handle, 2 << 20, &prop, 0));
    OK(cuMemMap(area, 2 << 20, 0, handle, 0));
    OK(cuMemSetAccess(area, 2 << 20, &access, 1));
    OK(cuLaunchKernel(function_of(module, "wait_for"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    usleep(2000);
    EXPECT(CUDA_ERROR_NOT_READY, cuStreamQuery(NULL));
    OK(cuMemUnmap(area, 2 << 20));
    EXPECT(CUDA_ERROR_ILLEGAL_ADDRESS, cuCtxSynchronize());
    OK(cuMemRelease(handle));
    OK(cuMemAddressFree(area, 2 << 20));
    OK(cuDevicePrimaryCtxReset(0));
}

/* A thread of a block may have ended before the one that started it goes on: it was touched once more, to give it a name. */
static void short_blocks(void)
{
    CUmodule module = load();
    CUfunction count = function_of(module, "count");
    CUdeviceptr at;
    uint32_t value = 0;
    enum { LAUNCHES = 3000, BLOCKS = 16 };
    OK(cuMemAlloc(&at, 64));
    OK(cuMemsetD8(at, 0, 64));
    void *arguments[] = {&at, &value};
    for (int i = 0; i < LAUNCHES; i++)
        OK(cuLaunchCooperativeKernel(count, BLOCKS, 1, 1, 1, 1, 1, 0, NULL, arguments));
    OK(cuMemcpyDtoH(&value, at, 4));
    CHECK_EQUAL(value, LAUNCHES * BLOCKS);
    OK(cuMemFree(at));
    OK(cuModuleUnload(module));
}

/* Two long blocks run side by side from the start, once the driver knows that they are long. */
static void long_blocks(void)
{
    CUmodule module = load();
    CUfunction meet = function_of(module, "meet");
    CUdeviceptr counts;
    uint32_t met = 0;
    uint64_t time_ns = 1000000;
    void *arguments[] = {&counts, &time_ns};
    OK(cuMemAlloc(&counts, 64));
    for (int i = 0; i < 2; i++, time_ns = 60000000000) {
        OK(cuMemsetD8(counts, 0, 64));
        OK(cuLaunchKernel(meet, 2, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
        OK(cuMemcpyDtoH(&met, counts + 4, 4));
    }
    CHECK_EQUAL(met, 2);
    OK(cuMemFree(counts));
    OK(cuModuleUnload(module));
}

static sigjmp_buf *own_jump;
static void own_handler(int number)
{
    (void)number;
    siglongjmp(*own_jump, 1);
}

/* The program's own faults reach the program's own handler, installed before cuInit. */
static void chained_handler(void)
{
    sigjmp_buf jump;
    own_jump = &jump;
    volatile int caught = 0;
    volatile uintptr_t bad_address = 8;
    if (sigsetjmp(jump, 1) == 0)
        *(volatile int *)bad_address = 1;
    else
        caught = 1;
    CHECK_EQUAL(caught, 1);
}

int main(void)
{
    use_own_board("64M");
    setenv("GPUVIRT_SOFTGPU_WORKERS", "2", 1);
    signal(SIGSEGV, own_handler);
    CUcontext primary = primary_context();
    modules();
    bad_modules();
    launches();
    short_blocks();
    long_blocks();
    libraries(primary);
    links();
    faults(primary);
    unmap_under_work();
    chained_handler();
    return 0;
}
