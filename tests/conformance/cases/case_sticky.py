# SPDX-License-Identifier: Apache-2.0
"""What an error of a kernel does to its context, what still works, and what heals it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, compile_ptx, result

SOURCE = b"""
extern "C" __global__ void misaligned(char *to) { *(int *)(to + 1) = 1; }
extern "C" __global__ void store(unsigned *to, unsigned value) { *to = value; }
extern "C" __global__ void assertion(int *to) { if (*to == 0) __trap(); *to = 2; }
extern "C" __global__ void deep(int *to, int n) {
    struct Again { __device__ static int f(int *to, int n) {
        volatile int own[64];
        own[n & 63] = n;
        return n == *to ? n : f(to, n + 1) + own[n & 63];
    } };
    *to = Again::f(to, n);
}
extern "C" __global__ void beyond(int *to, long long far) { to[far] = 1; }
"""
ILLEGAL = ((64, 1), (ctypes.c_void_p, ctypes.c_uint32))


@pytest.fixture(scope="module")
def text() -> bytes:
    return compile_ptx(SOURCE)


def launch(text: bytes, name: bytes, arguments: Any, stream: Any = 0) -> None:
    module = call(cu.cuModuleLoadData, text)
    function = call(cu.cuModuleGetFunction, module, name)
    call(cu.cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)


def test_every_call_reports_it(context: Any, text: bytes) -> None:
    pointer = call(cu.cuMemAlloc, 64)
    stream = call(cu.cuStreamCreate, 1)
    event = call(cu.cuEventCreate, 0)
    launch(text, b"store", ILLEGAL)
    host = ctypes.c_uint32()
    questions: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (cu.cuCtxSynchronize, ()),
        (cu.cuMemAlloc, (64,)),
        (cu.cuMemFree, (pointer,)),
        (cu.cuMemcpyDtoH, (ctypes.addressof(host), pointer, 4)),
        (cu.cuMemsetD32, (pointer, 0, 1)),
        (cu.cuStreamSynchronize, (stream,)),
        (cu.cuStreamQuery, (stream,)),
        (cu.cuStreamCreate, (0,)),
        (cu.cuEventRecord, (event, stream)),
        (cu.cuEventQuery, (event,)),
        (cu.cuModuleLoadData, (text,)),
        (cu.cuMemAllocAsync, (64, stream)),
    ]
    for function, arguments in questions:
        assert result(function, *arguments) == "ILLEGAL_ADDRESS", function.__name__


def test_what_needs_no_device_still_works(context: Any, text: bytes) -> None:
    launch(text, b"store", ILLEGAL)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"
    assert int(call(cu.cuCtxGetCurrent)) == int(context)
    assert int(call(cu.cuCtxGetDevice)) == 0
    call(cu.cuDeviceGetCount)
    call(cu.cuDeviceGetAttribute, cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_WARP_SIZE, 0)
    call(cu.cuGetErrorName, cu.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)
    call(cu.cuDriverGetVersion)


def test_a_created_context_is_healed_by_its_end(context: Any, text: bytes) -> None:
    other = call(cu.cuCtxCreate, None, 0, 0)
    launch(text, b"store", ILLEGAL)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"
    call(cu.cuCtxDestroy, other)
    again = call(cu.cuCtxCreate, None, 0, 0)
    call(cu.cuMemFree, call(cu.cuMemAlloc, 64))
    call(cu.cuCtxDestroy, again)


@pytest.mark.differs("real", reason="contexts of one process share a device's fate on hardware")
def test_another_context_does_not_suffer(context: Any, text: bytes) -> None:
    other = call(cu.cuCtxCreate, None, 0, 0)
    launch(text, b"store", ILLEGAL)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"
    call(cu.cuCtxPopCurrent)
    call(cu.cuCtxSynchronize)
    call(cu.cuMemFree, call(cu.cuMemAlloc, 64))
    call(cu.cuCtxDestroy, other)


def test_the_first_error_stays(context: Any, text: bytes) -> None:
    launch(text, b"store", ILLEGAL)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"
    module = result(cu.cuModuleLoadData, text)
    assert module == "ILLEGAL_ADDRESS"
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"


@pytest.mark.differs("soft", reason="misaligned accesses of a kernel work on the CPU")
def test_misaligned_access(context: Any, text: bytes) -> None:
    launch(text, b"misaligned", ((call(cu.cuMemAlloc, 64),), (None,)))
    assert result(cu.cuCtxSynchronize) == "MISALIGNED_ADDRESS"


def test_far_beyond_an_allocation(context: Any, text: bytes) -> None:
    pointer = call(cu.cuMemAlloc, 64)
    launch(text, b"beyond", ((pointer, 1 << 44), (None, ctypes.c_longlong)))
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"


def test_a_trap_depends_on_data(context: Any, text: bytes) -> None:
    pointer = call(cu.cuMemAlloc, 4)
    call(cu.cuMemsetD32, pointer, 1, 1)
    launch(text, b"assertion", ((pointer,), (None,)))
    call(cu.cuCtxSynchronize)
    call(cu.cuMemsetD32, pointer, 0, 1)
    launch(text, b"assertion", ((pointer,), (None,)))
    assert result(cu.cuCtxSynchronize) in ("LAUNCH_FAILED", "ILLEGAL_INSTRUCTION")


def test_wrong_calls_are_not_sticky(context: Any) -> None:
    assert result(cu.cuMemAlloc, 0) == "INVALID_VALUE"
    assert result(cu.cuMemAlloc, 1 << 50) == "OUT_OF_MEMORY"
    assert result(cu.cuModuleLoadData, b"no image\0") != "SUCCESS"
    assert result(cu.cuMemFree, 4096) == "INVALID_VALUE"
    call(cu.cuCtxSynchronize)
    call(cu.cuMemFree, call(cu.cuMemAlloc, 64))


def test_later_work_of_other_streams_does_not_run(gate: Any, text: bytes) -> None:
    """After the error nothing of the context is executed any more."""
    stream = call(cu.cuStreamCreate, 1)
    launch(text, b"store", ILLEGAL)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"
    arguments = ((gate.address + 8, 5), (ctypes.c_void_p, ctypes.c_uint32))
    function = gate._store
    assert result(cu.cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0) == "ILLEGAL_ADDRESS"
    assert gate.word(2).value == 0


def test_recursion_without_end_is_an_error_and_not_the_end(context: Any, text: bytes) -> None:
    pointer = call(cu.cuMemAlloc, 64)
    call(cu.cuMemsetD32, pointer, 0, 16)
    launch(text, b"deep", ((pointer, 1), (ctypes.c_void_p, ctypes.c_int)))
    assert result(cu.cuCtxSynchronize) in ("ILLEGAL_ADDRESS", "HARDWARE_STACK_ERROR", "LAUNCH_FAILED")
