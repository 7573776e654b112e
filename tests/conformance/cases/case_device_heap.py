# SPDX-License-Identifier: Apache-2.0
"""malloc and free in kernels: a heap of the context, of limited size."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import compile_ptx

Call = Callable[..., Any]
MIB = 1 << 20
LIMIT = cu.CUlimit.CU_LIMIT_MALLOC_HEAP_SIZE
SOURCE = rb"""
extern "C" __global__ void take(unsigned long long *at, unsigned long long size)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    char *p = (char *)malloc(size);
    if (p) { p[0] = (char)i; p[size - 1] = (char)i; }
    at[i] = (unsigned long long)p;
}
extern "C" __global__ void give(unsigned long long *at, unsigned long long size, unsigned *wrong)
{
    unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
    char *p = (char *)at[i];
    if (p && (p[0] != (char)i || p[size - 1] != (char)i)) atomicAdd(wrong, 1);
    free(p);
}
"""


@pytest.fixture
def run(context: Any, driver_call: Call) -> Callable[..., None]:
    module = driver_call(cu.cuModuleLoadData, compile_ptx(SOURCE))

    def launch(name: str, threads: int, *arguments: tuple[int, Any]) -> None:
        function = driver_call(cu.cuModuleGetFunction, module, name.encode())
        packed = tuple(value for value, _ in arguments), tuple(kind for _, kind in arguments)
        driver_call(cu.cuLaunchKernel, function, threads // 32, 1, 1, 32, 1, 1, 0, 0, packed, 0)
        driver_call(cu.cuCtxSynchronize)

    return launch


def pointers(driver_call: Call, array: int, count: int) -> Any:
    back: Any = np.zeros(count, dtype=np.uint64)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, array, back.nbytes)
    return back


def test_memory_of_a_kernel_is_kept_for_the_next(run: Call, driver_call: Call) -> None:
    array = int(driver_call(cu.cuMemAlloc, 256 * 8 + 4))
    driver_call(cu.cuMemsetD8, array, 0, 256 * 8 + 4)
    for _ in range(3):
        run("take", 256, (array, ctypes.c_uint64), (100, ctypes.c_uint64))
        told = pointers(driver_call, array, 256)
        assert told.all()
        assert len(set(told.tolist())) == 256
        assert not (told % 16).any()
        wrong = array + 256 * 8
        run("give", 256, (array, ctypes.c_uint64), (100, ctypes.c_uint64), (wrong, ctypes.c_uint64))
    assert pointers(driver_call, array + 256 * 8 - 4, 1)[0] >> 32 == 0


def test_heap_is_used_up(run: Call, driver_call: Call, driver_result: Call) -> None:
    driver_call(cu.cuCtxSetLimit, LIMIT, 8 * MIB)
    size = int(driver_call(cu.cuCtxGetLimit, LIMIT))
    array = int(driver_call(cu.cuMemAlloc, 64 * 8))
    run("take", 64, (array, ctypes.c_uint64), (size // 16, ctypes.c_uint64))
    told = pointers(driver_call, array, 64)
    assert 8 <= np.count_nonzero(told) <= 16
    wrong = int(driver_call(cu.cuMemAlloc, 4))
    driver_call(cu.cuMemsetD32, wrong, 0, 1)
    run("give", 64, (array, ctypes.c_uint64), (size // 16, ctypes.c_uint64), (wrong, ctypes.c_uint64))
    run("take", 64, (array, ctypes.c_uint64), (size // 16, ctypes.c_uint64))
    assert np.count_nonzero(pointers(driver_call, array, 64)) >= 8  # what was freed is there again
    assert driver_result(cu.cuCtxSetLimit, LIMIT, 16 * MIB) == "INVALID_VALUE"  # too late


def test_calls_of_the_driver_do_not_know_it(run: Call, driver_call: Call, driver_result: Call) -> None:
    array = int(driver_call(cu.cuMemAlloc, 32 * 8))
    run("take", 32, (array, ctypes.c_uint64), (64, ctypes.c_uint64))
    pointer = int(pointers(driver_call, array, 32)[0])
    assert driver_result(cu.cuMemFree, pointer) == "INVALID_VALUE"
