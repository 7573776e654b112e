# SPDX-License-Identifier: Apache-2.0
"""What the cases share: a current context, results checked by name, kernels from CUDA C."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu
from cuda.bindings import nvrtc

SOURCE = rb"""
extern "C" __global__ void add(float *y, const float *x, float a, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
extern "C" __global__ void store(unsigned *to, unsigned value) { *to = value; }
extern "C" __global__ void load(const unsigned *from, unsigned *to) { *to = *from; }
extern "C" __global__ void wait_for(const volatile unsigned *flag) { while (*flag == 0) { } }
extern "C" __global__ void sum(const int *x, int *out)
{
    extern __shared__ int part[];
    part[threadIdx.x] = x[blockIdx.x * blockDim.x + threadIdx.x];
    __syncthreads();
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) atomicAdd(out, part[0]);
}
__device__ int counter = 5;
__constant__ int table[4] = {1, 2, 3, 4};
extern "C" __global__ void count() { atomicAdd(&counter, table[threadIdx.x & 3]); }
extern "C" __global__ void trap() { asm("trap;"); }
"""


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A driver call that must succeed; its value, or a tuple of them."""
    error, *values = function(*arguments)
    assert error == cu.CUresult.CUDA_SUCCESS, f"{function.__name__}: {error.name}"
    return values[0] if len(values) == 1 else tuple(values)


def result(function: Callable[..., Any], *arguments: Any) -> str:
    """The name of what a driver call answers, without its prefix: "INVALID_VALUE"."""
    name: str = function(*arguments)[0].name
    return name.removeprefix("CUDA_ERROR_").removeprefix("CUDA_")


@pytest.fixture(scope="session")
def ptx() -> bytes:
    error, program = nvrtc.nvrtcCreateProgram(SOURCE, b"cases.cu", 0, [], [])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    (error,) = nvrtc.nvrtcCompileProgram(program, 1, [b"--gpu-architecture=compute_75"])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    nvrtc.nvrtcGetPTX(program, text)
    return text


@pytest.fixture
def context() -> Iterator[Any]:
    """The primary context of device 0, as new: reset before and after."""
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    primary = call(cu.cuDevicePrimaryCtxRetain, device)
    call(cu.cuCtxSetCurrent, primary)
    yield primary
    cu.cuCtxSetCurrent(primary)
    call(cu.cuDevicePrimaryCtxReset, device)
    call(cu.cuDevicePrimaryCtxRelease, device)


@pytest.fixture
def kernel(context: Any, ptx: bytes) -> Callable[[str], Any]:
    module = call(cu.cuModuleLoadData, ptx)
    return lambda name: call(cu.cuModuleGetFunction, module, name.encode())


@pytest.fixture
def driver_call() -> Callable[..., Any]:
    return call


@pytest.fixture
def driver_result() -> Callable[..., str]:
    return result
