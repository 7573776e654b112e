# SPDX-License-Identifier: Apache-2.0
"""Modules, libraries, launches, faults."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import compile_ptx

Call = Callable[..., Any]


def test_vector_addition(context: Any, kernel: Call, driver_call: Call) -> None:
    n = 100_003
    x = np.random.default_rng(1).random(n, dtype=np.float32)
    y: Any = np.zeros_like(x)
    on_x, on_y = driver_call(cu.cuMemAlloc, x.nbytes), driver_call(cu.cuMemAlloc, y.nbytes)
    driver_call(cu.cuMemcpyHtoD, on_x, x.ctypes.data, x.nbytes)
    driver_call(cu.cuMemsetD8, on_y, 0, y.nbytes)
    arguments = ((on_y, on_x, 2.5, n), (None, None, ctypes.c_float, ctypes.c_int))
    for _ in range(3):
        driver_call(cu.cuLaunchKernel, kernel("add"), (n + 255) // 256, 1, 1, 256, 1, 1, 0, 0, arguments, 0)
    driver_call(cu.cuMemcpyDtoH, y.ctypes.data, on_y, y.nbytes)
    assert np.allclose(y, 7.5 * x, rtol=1e-5)


def test_shared_memory_and_atomics(context: Any, kernel: Call, driver_call: Call) -> None:
    x: Any = np.arange(64 * 256, dtype=np.int32)
    out: Any = np.zeros(1, dtype=np.int32)
    on_x, on_out = driver_call(cu.cuMemAlloc, x.nbytes), driver_call(cu.cuMemAlloc, 4)
    driver_call(cu.cuMemcpyHtoD, on_x, x.ctypes.data, x.nbytes)
    driver_call(cu.cuMemsetD32, on_out, 0, 1)
    arguments = ((on_x, on_out), (None, None))
    driver_call(cu.cuLaunchKernel, kernel("sum"), 64, 1, 1, 256, 1, 1, 256 * 4, 0, arguments, 0)
    driver_call(cu.cuMemcpyDtoH, out.ctypes.data, on_out, 4)
    assert out[0] == x.sum()


def test_variables(context: Any, ptx: bytes, driver_call: Call, driver_result: Call) -> None:
    module = driver_call(cu.cuModuleLoadData, ptx)
    count = driver_call(cu.cuModuleGetFunction, module, b"count")
    driver_call(cu.cuLaunchKernel, count, 1, 1, 1, 8, 1, 1, 0, 0, 0, 0)
    address, size = driver_call(cu.cuModuleGetGlobal, module, b"counter")
    assert size == 4
    value: Any = np.zeros(1, dtype=np.int32)
    driver_call(cu.cuMemcpyDtoH, value.ctypes.data, address, 4)
    assert value[0] == 5 + 2 * (1 + 2 + 3 + 4)
    assert driver_result(cu.cuModuleGetGlobal, module, b"no such") == "NOT_FOUND"
    assert driver_result(cu.cuModuleGetFunction, module, b"no such") == "NOT_FOUND"
    driver_call(cu.cuModuleUnload, module)


def test_library(context: Any, ptx: bytes, driver_call: Call) -> None:
    library = driver_call(cu.cuLibraryLoadData, ptx, [], [], 0, [], [], 0)
    kernel = driver_call(cu.cuLibraryGetKernel, library, b"store")
    function = driver_call(cu.cuKernelGetFunction, kernel)
    at = driver_call(cu.cuMemAlloc, 4)
    for number, handle in enumerate((function, cu.CUfunction(int(kernel)))):
        config = cu.CUlaunchConfig()
        config.gridDimX = config.gridDimY = config.gridDimZ = 1
        config.blockDimX = config.blockDimY = config.blockDimZ = 1
        driver_call(cu.cuLaunchKernelEx, config, handle, ((at, 40 + number), (None, ctypes.c_uint32)), 0)
        value: Any = np.zeros(1, dtype=np.uint32)
        driver_call(cu.cuMemcpyDtoH, value.ctypes.data, at, 4)
        assert value[0] == 40 + number
    driver_call(cu.cuLibraryUnload, library)


def test_link(context: Any, ptx: bytes, driver_call: Call) -> None:
    state = driver_call(cu.cuLinkCreate, 0, [], [])
    kind = cu.CUjitInputType.CU_JIT_INPUT_PTX
    driver_call(cu.cuLinkAddData, state, kind, ptx, len(ptx), b"cases", 0, [], [])
    image, size = driver_call(cu.cuLinkComplete, state)
    assert size > 0
    module = driver_call(cu.cuModuleLoadData, image)
    driver_call(cu.cuLinkDestroy, state)
    driver_call(cu.cuModuleGetFunction, module, b"add")


def test_launch_limits(context: Any, kernel: Call, driver_result: Call) -> None:
    store = kernel("store")
    arguments = ((0, 0), (ctypes.c_void_p, ctypes.c_uint32))
    for shape in [(0, 1, 1, 1, 1, 1), (1, 1, 1, 1025, 1, 1), (1, 1, 1, 1, 1, 65), (1, 70000, 1, 1, 1, 1)]:
        assert driver_result(cu.cuLaunchKernel, store, *shape, 0, 0, arguments, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuLaunchKernel, store, 1, 1, 1, 1, 1, 1, 1 << 20, 0, arguments, 0) == "INVALID_VALUE"


def test_function_attributes(context: Any, kernel: Call, driver_call: Call) -> None:
    Attribute = cu.CUfunction_attribute
    function = kernel("sum")
    assert driver_call(cu.cuFuncGetAttribute, Attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, function) == 1024
    assert driver_call(cu.cuFuncGetAttribute, Attribute.CU_FUNC_ATTRIBUTE_NUM_REGS, function) > 0
    assert driver_call(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor, function, 256, 1024) >= 1
    grid, block = driver_call(cu.cuOccupancyMaxPotentialBlockSize, function, None, 0, 0)
    assert grid >= 1
    assert 32 <= block <= 1024


def test_printf_returns_how_many_arguments_it_took(context: Any, driver_call: Call) -> None:
    source = b"""extern "C" __global__ void say(int *to) {
        to[0] = printf("%d %s %f %%\\n", 1, "two", 3.0);
        to[1] = printf("nothing\\n");
        to[2] = printf("%*d\\n", 5, 6);
    }"""
    function = driver_call(cu.cuModuleGetFunction, driver_call(cu.cuModuleLoadData, compile_ptx(source)), b"say")
    to = int(driver_call(cu.cuMemAlloc, 12))
    arguments = ((to,), (ctypes.c_void_p,))
    driver_call(cu.cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0)
    taken = np.zeros(3, np.int32)
    driver_call(cu.cuMemcpyDtoH, taken.ctypes.data, to, 12)
    assert taken.tolist() == [3, 0, 2]


@pytest.mark.parametrize(("name", "expected"), [("store", "ILLEGAL_ADDRESS"), ("trap", "LAUNCH_FAILED")])
def test_failure_is_sticky(
    name: str, expected: str, context: Any, kernel: Call, driver_call: Call, driver_result: Call
) -> None:
    arguments = ((64, 1), (ctypes.c_void_p, ctypes.c_uint32)) if name == "store" else 0
    driver_call(cu.cuLaunchKernel, kernel(name), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0)
    assert driver_result(cu.cuCtxSynchronize) == expected
    assert driver_result(cu.cuCtxSynchronize) == expected
    assert driver_result(cu.cuMemAlloc, 4) == expected
    driver_call(cu.cuDevicePrimaryCtxReset, 0)
    driver_call(cu.cuCtxSetCurrent, context)
    driver_call(cu.cuCtxSynchronize)
    driver_call(cu.cuMemFree, driver_call(cu.cuMemAlloc, 4))


def test_bad_image(context: Any, driver_result: Call) -> None:
    bad = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry k() { frobnicate.u32 1; ret; }\n\0"
    assert driver_result(cu.cuModuleLoadData, bad) == "INVALID_PTX"
