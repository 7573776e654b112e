# SPDX-License-Identifier: Apache-2.0
"""Host functions and stream call-backs: order, data, errors, and that they must not call CUDA."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
CALL_BACK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


def host_function(stream: Any, function: Any, data: int = 0) -> None:
    call(cu.cuLaunchHostFunc, stream, cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value), data)


def call_back(stream: Any, function: Any, data: int = 0) -> None:
    call(cu.cuStreamAddCallback, stream, cu.CUstreamCallback(ctypes.cast(function, ctypes.c_void_p).value), data, 0)


def test_they_run_in_order_and_get_their_data(gate: Gate, stream: Any) -> None:
    seen: list[tuple[int, int]] = []
    function = HOST_FUNCTION(lambda data: seen.append((data or 0, gate.word(2).value)))
    gate.wait(stream)
    for number in range(1, 20):
        gate.store(stream, 2, number)
        host_function(stream, function, number)
    assert seen == []
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert seen == [(number, number) for number in range(1, 20)]


def test_what_follows_waits_for_the_function(gate: Gate, stream: Any) -> None:
    def write(data: Any) -> None:
        gate.word(2).value = 1

    function = HOST_FUNCTION(write)
    host_function(stream, function)
    gate.store(stream, 2, 2)
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 2


def test_call_back_is_told_stream_and_status(gate: Gate, stream: Any) -> None:
    seen: list[tuple[int, int, int]] = []
    function = CALL_BACK(lambda which, status, data: seen.append((which or 0, status, data or 0)))
    call_back(stream, function, 77)
    call(cu.cuStreamSynchronize, stream)
    assert seen == [(int(stream), 0, 77)]


def test_after_an_error_only_the_call_back_runs(context: Any, kernel: Callable[[str], Any], stream: Any) -> None:
    ran: list[str] = []
    function = HOST_FUNCTION(lambda data: ran.append("host function"))
    status: list[int] = []
    told = CALL_BACK(lambda which, error, data: status.append(error))
    store = kernel("store")
    call(cu.cuLaunchKernel, store, 1, 1, 1, 1, 1, 1, 0, stream, ((64, 1), (ctypes.c_void_p, ctypes.c_uint32)), 0)
    # The kernel may have failed before these are given, which then are refused: both are as documented.
    host = result(cu.cuLaunchHostFunc, stream, cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value), 0)
    back = result(cu.cuStreamAddCallback, stream, cu.CUstreamCallback(ctypes.cast(told, ctypes.c_void_p).value), 0, 0)
    assert result(cu.cuStreamSynchronize, stream) == "ILLEGAL_ADDRESS"
    assert ran == []
    assert host in ("SUCCESS", "ILLEGAL_ADDRESS")
    if back == "SUCCESS":
        assert status == [int(cu.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS)]


def test_they_must_not_call_cuda(gate: Gate, stream: Any) -> None:
    """NVIDIA: "may result in CUDA_ERROR_NOT_PERMITTED". It must not deadlock, nor pretend that the stream has ended."""
    synchronise = native("cuStreamSynchronize")
    answers: list[str] = []
    function = HOST_FUNCTION(lambda data: answers.append(synchronise(ctypes.c_void_p(int(stream)))))
    host_function(stream, function)
    call(cu.cuStreamSynchronize, stream)
    assert answers == ["NOT_PERMITTED"]


def test_wrong_arguments(stream: Any) -> None:
    handle = ctypes.c_void_p(int(stream))
    assert native("cuLaunchHostFunc")(handle, None, None) == "INVALID_VALUE"
    assert native("cuStreamAddCallback")(handle, None, None, ctypes.c_uint(0)) == "INVALID_VALUE"
    function = CALL_BACK(lambda which, status, data: None)
    assert native("cuStreamAddCallback")(handle, function, None, ctypes.c_uint(1)) == "INVALID_VALUE"
