# SPDX-License-Identifier: Apache-2.0
"""Launches: limits, the two ways to pass arguments, attributes, cooperative grids."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, compile_ptx, native, result

Attribute = cu.CUdevice_attribute
SOURCE = b"""
extern "C" __global__ void __launch_bounds__(128) bounded(int *to) { if (threadIdx.x == 0) *to = blockDim.x; }
extern "C" __global__ void bytes(char *to, char a, short b, long long c, double d)
{
    to[0] = a; *(short *)(to + 8) = b; *(long long *)(to + 16) = c; *(double *)(to + 24) = d;
}
struct big { int words[500]; };
extern "C" __global__ void structure(int *to, big value) { to[threadIdx.x] = value.words[threadIdx.x]; }
extern "C" __global__ void dynamic(int *to, int words)
{
    extern __shared__ int part[];
    for (int i = threadIdx.x; i < words; i += blockDim.x) part[i] = i;
    __syncthreads();
    if (threadIdx.x == 0) { int sum = 0; for (int i = 0; i < words; i++) sum += part[i]; *to = sum; }
}
extern "C" __global__ void shape(int *to)
{
    int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    to[block * blockDim.x * blockDim.y * blockDim.z + thread] = 1000 * block + thread;
}
extern "C" __global__ void nothing() { }
"""
BUFFER_POINTER, BUFFER_SIZE, END = 1, 2, 0  # CU_LAUNCH_PARAM_*


@pytest.fixture(scope="module")
def text() -> bytes:
    return compile_ptx(SOURCE)


@pytest.fixture
def made(context: Any, text: bytes) -> Callable[[str], Any]:
    module = call(cu.cuModuleLoadData, text)
    return lambda name: call(cu.cuModuleGetFunction, module, name.encode())


@pytest.fixture
def room(context: Any) -> Any:
    return call(cu.cuMemAlloc, 4096)


def fetch(address: Any, count: int, kind: Any = np.int32) -> Any:
    values: Any = np.zeros(count, dtype=kind)
    call(cu.cuMemcpyDtoH, values.ctypes.data, address, values.nbytes)
    return values


def launch(function: Any, grid: tuple[int, int, int], block: tuple[int, int, int], shared: int, arguments: Any) -> str:
    return result(cu.cuLaunchKernel, function, *grid, *block, shared, 0, arguments, 0)


def test_arguments_of_all_widths(made: Any, room: Any) -> None:
    kinds = (None, ctypes.c_byte, ctypes.c_short, ctypes.c_longlong, ctypes.c_double)
    assert launch(made("bytes"), (1, 1, 1), (1, 1, 1), 0, ((room, -3, -4000, 1 << 60, 0.125), kinds)) == "SUCCESS"
    raw = fetch(room, 32, np.uint8).tobytes()
    assert int.from_bytes(raw[0:1], "little", signed=True) == -3
    assert int.from_bytes(raw[8:10], "little", signed=True) == -4000
    assert int.from_bytes(raw[16:24], "little") == 1 << 60
    assert np.frombuffer(raw[24:32])[0] == 0.125


def test_arguments_in_a_buffer(made: Any, room: Any) -> None:
    """The structure is larger than what fits into registers, and not a power of two."""
    packed = np.zeros(2 + 500, dtype=np.int32)
    packed[:2] = np.frombuffer(int(room).to_bytes(8, "little"), dtype=np.int32)
    packed[2:] = np.arange(500)
    size = ctypes.c_size_t(packed.nbytes)
    address = ctypes.addressof(size)
    extra = (ctypes.c_void_p * 5)(BUFFER_POINTER, packed.ctypes.data, BUFFER_SIZE, address, END)
    unsigned = [ctypes.c_uint(value) for value in (1, 1, 1, 500, 1, 1, 0)]
    function = ctypes.c_void_p(int(made("structure")))
    assert native("cuLaunchKernel")(function, *unsigned, None, None, extra) == "SUCCESS"
    assert fetch(room, 500).tolist() == list(range(500))


def test_both_ways_at_once_are_wrong(made: Any, room: Any) -> None:
    size = ctypes.c_size_t(8)
    data = ctypes.c_uint64(int(room))
    extra = (ctypes.c_void_p * 5)(BUFFER_POINTER, ctypes.addressof(data), BUFFER_SIZE, ctypes.addressof(size), END)
    plain = (ctypes.c_void_p * 1)(ctypes.addressof(data))
    unsigned = [ctypes.c_uint(value) for value in (1, 1, 1, 1, 1, 1, 0)]
    function = ctypes.c_void_p(int(made("bounded")))
    assert native("cuLaunchKernel")(function, *unsigned, None, plain, extra) == "INVALID_VALUE"
    wrong = (ctypes.c_void_p * 3)(77, ctypes.addressof(data), END)
    assert native("cuLaunchKernel")(function, *unsigned, None, None, wrong) == "INVALID_VALUE"
    assert native("cuLaunchKernel")(None, *unsigned, None, plain, None) in ("INVALID_HANDLE", "INVALID_VALUE")


def test_launch_bounds(made: Any, room: Any) -> None:
    bounded = made("bounded")
    assert call(cu.cuFuncGetAttribute, cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, bounded) == 128
    assert launch(bounded, (1, 1, 1), (128, 1, 1), 0, ((room,), (None,))) == "SUCCESS"
    assert fetch(room, 1)[0] == 128
    assert launch(bounded, (1, 1, 1), (129, 1, 1), 0, ((room,), (None,))) in (
        "INVALID_VALUE",
        "LAUNCH_OUT_OF_RESOURCES",
    )
    call(cu.cuCtxSynchronize)  # a refused launch is not sticky


def test_shape_limits(made: Any) -> None:
    nothing = made("nothing")
    wrong = [
        ((0, 1, 1), (1, 1, 1)), ((1, 0, 1), (1, 1, 1)), ((1, 1, 0), (1, 1, 1)),
        ((1, 1, 1), (0, 1, 1)), ((1, 1, 1), (1, 0, 1)), ((1, 1, 1), (1, 1, 0)),
        ((1, 65536, 1), (1, 1, 1)), ((1, 1, 65536), (1, 1, 1)),
        ((1, 1, 1), (1025, 1, 1)), ((1, 1, 1), (1, 1025, 1)), ((1, 1, 1), (1, 1, 65)), ((1, 1, 1), (32, 33, 1)),
    ]  # fmt: skip
    for grid, block in wrong:
        assert launch(nothing, grid, block, 0, 0) == "INVALID_VALUE", (grid, block)
    for grid, block in [((1, 1, 1), (1, 1, 64)), ((1, 1, 1), (8, 8, 16)), ((1, 65535, 1), (1, 1, 1))]:
        assert launch(nothing, grid, block, 0, 0) == "SUCCESS", (grid, block)
    call(cu.cuCtxSynchronize)


def test_every_thread_of_a_grid_of_three_dimensions(made: Any, room: Any) -> None:
    assert launch(made("shape"), (2, 3, 2), (4, 2, 3), 0, ((room,), (None,))) == "SUCCESS"
    expected = [1000 * block + thread for block in range(12) for thread in range(24)]
    assert fetch(room, 12 * 24).tolist() == expected


def test_shared_memory_must_be_asked_for(made: Any, room: Any) -> None:
    dynamic = made("dynamic")
    most = call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 0)
    arguments = ((room, 1000), (None, ctypes.c_int))
    assert launch(dynamic, (1, 1, 1), (32, 1, 1), 48 << 10, arguments) == "SUCCESS"
    assert fetch(room, 1)[0] == 499_500
    assert launch(dynamic, (1, 1, 1), (32, 1, 1), (48 << 10) + 4, arguments) == "INVALID_VALUE"
    which = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    call(cu.cuFuncSetAttribute, dynamic, which, 60 << 10)
    words = 15 << 10
    assert launch(dynamic, (1, 1, 1), (32, 1, 1), 60 << 10, ((room, words), (None, ctypes.c_int))) == "SUCCESS"
    assert fetch(room, 1)[0] == words * (words - 1) // 2
    assert launch(dynamic, (1, 1, 1), (32, 1, 1), most + 1024, arguments) == "INVALID_VALUE"


def test_cooperative_grid(made: Any) -> None:
    if not call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 0):
        pytest.skip("no cooperative launch")
    nothing = made("nothing")
    sms = call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 0)
    per_sm = call(cu.cuOccupancyMaxActiveBlocksPerMultiprocessor, nothing, 32, 0)
    assert result(cu.cuLaunchCooperativeKernel, nothing, sms, 1, 1, 32, 1, 1, 0, 0, 0) == "SUCCESS"
    too_many = sms * per_sm + 1
    answer = result(cu.cuLaunchCooperativeKernel, nothing, too_many, 1, 1, 32, 1, 1, 0, 0, 0)
    assert answer == "COOPERATIVE_LAUNCH_TOO_LARGE"
    call(cu.cuCtxSynchronize)


def test_attributes_of_a_launch(made: Any) -> None:
    config = cu.CUlaunchConfig()
    config.gridDimX = config.gridDimY = config.gridDimZ = 1
    config.blockDimX = config.blockDimY = config.blockDimZ = 1
    attribute = cu.CUlaunchAttribute()
    attribute.id = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PRIORITY
    attribute.value.priority = -1
    config.attrs, config.numAttrs = [attribute], 1
    call(cu.cuLaunchKernelEx, config, made("nothing"), 0, 0)
    call(cu.cuCtxSynchronize)
    assert native("cuLaunchKernelEx")(None, ctypes.c_void_p(int(made("nothing"))), None, None) == "INVALID_VALUE"


def test_a_function_belongs_to_its_context(context: Any, made: Any) -> None:
    nothing = made("nothing")
    other = call(cu.cuCtxCreate, None, 0, 0)
    assert launch(nothing, (1, 1, 1), (1, 1, 1), 0, 0) in ("INVALID_HANDLE", "INVALID_CONTEXT", "INVALID_VALUE")
    call(cu.cuCtxDestroy, other)


def test_no_context(context: Any, made: Any) -> None:
    nothing = made("nothing")
    call(cu.cuCtxSetCurrent, None)
    assert launch(nothing, (1, 1, 1), (1, 1, 1), 0, 0) == "INVALID_CONTEXT"
    call(cu.cuCtxSetCurrent, context)
