# SPDX-License-Identifier: Apache-2.0
"""Streams, events and their order. A gate is a pinned word that a kernel waits for."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value


class Gate:
    """Words that host and device see."""

    def __init__(self, driver_call: Call, kernel: Call) -> None:
        self._call = driver_call
        self._wait_for = kernel("wait_for")
        self._store = kernel("store")
        flags = cu.CU_MEMHOSTALLOC_DEVICEMAP | cu.CU_MEMHOSTALLOC_PORTABLE
        self.address = int(driver_call(cu.cuMemHostAlloc, 4096, flags))
        ctypes.memset(self.address, 0, 4096)

    def word(self, number: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self.address + 4 * number)

    def wait(self, stream: Any, number: int = 0) -> None:
        arguments = ((self.address + 4 * number,), (ctypes.c_void_p,))
        self._call(cu.cuLaunchKernel, self._wait_for, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)

    def store(self, stream: Any, number: int, value: int) -> None:
        arguments = ((self.address + 4 * number, value), (ctypes.c_void_p, ctypes.c_uint32))
        self._call(cu.cuLaunchKernel, self._store, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)

    def open(self, number: int = 0) -> None:
        self.word(number).value = 1


@pytest.fixture
def gate(context: Any, kernel: Call, driver_call: Call) -> Iterator[Gate]:
    made = Gate(driver_call, kernel)
    yield made
    made.open()
    driver_call(cu.cuCtxSynchronize)


def test_a_launch_does_not_wait(gate: Gate, driver_call: Call, driver_result: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, 0)
    gate.wait(stream)
    assert driver_result(cu.cuStreamQuery, stream) == "NOT_READY"
    gate.open()
    driver_call(cu.cuStreamSynchronize, stream)
    assert driver_result(cu.cuStreamQuery, stream) == "SUCCESS"


def test_legacy_stream_orders_blocking_streams(gate: Gate, driver_call: Call, driver_result: Call) -> None:
    one, two = driver_call(cu.cuStreamCreate, 0), driver_call(cu.cuStreamCreate, 0)
    other = driver_call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(one)
    gate.store(one, 2, 1)
    gate.store(0, 2, 2)
    gate.store(two, 2, 3)
    gate.store(other, 3, 9)
    driver_call(cu.cuStreamSynchronize, other)
    assert gate.word(3).value == 9
    assert driver_result(cu.cuStreamQuery, two) == "NOT_READY"
    gate.open()
    driver_call(cu.cuStreamSynchronize, two)
    assert gate.word(2).value == 3


def test_event_makes_another_stream_wait(gate: Gate, driver_call: Call) -> None:
    one, two = driver_call(cu.cuStreamCreate, NON_BLOCKING), driver_call(cu.cuStreamCreate, NON_BLOCKING)
    event = driver_call(cu.cuEventCreate, cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)
    gate.wait(one)
    driver_call(cu.cuEventRecord, event, one)
    driver_call(cu.cuStreamWaitEvent, two, event, 0)
    gate.store(two, 2, 1)
    time.sleep(0.005)
    assert gate.word(2).value == 0
    gate.open()
    driver_call(cu.cuStreamSynchronize, two)
    assert gate.word(2).value == 1


def test_elapsed_time(gate: Gate, driver_call: Call, driver_result: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, NON_BLOCKING)
    start, end = driver_call(cu.cuEventCreate, 0), driver_call(cu.cuEventCreate, 0)
    assert driver_result(cu.cuEventElapsedTime, start, end) == "INVALID_HANDLE"
    driver_call(cu.cuEventRecord, start, stream)
    gate.wait(stream)
    driver_call(cu.cuEventRecord, end, stream)
    assert driver_result(cu.cuEventElapsedTime, start, end) == "NOT_READY"
    driver_call(cu.cuEventSynchronize, start)
    time.sleep(0.02)
    gate.open()
    driver_call(cu.cuEventSynchronize, end)
    assert 15.0 < driver_call(cu.cuEventElapsedTime, start, end) < 10_000.0


def test_host_function_runs_in_order(gate: Gate, driver_call: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, NON_BLOCKING)
    seen: list[int] = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: seen.append(gate.word(2).value))
    gate.wait(stream)
    gate.store(stream, 2, 5)
    address = ctypes.cast(function, ctypes.c_void_p).value
    driver_call(cu.cuLaunchHostFunc, stream, cu.CUhostFn(address), 0)
    assert seen == []
    gate.open()
    driver_call(cu.cuStreamSynchronize, stream)
    assert seen == [5]


def test_stream_questions(context: Any, driver_call: Call, driver_result: Call) -> None:
    stream = driver_call(cu.cuStreamCreateWithPriority, NON_BLOCKING, -1)
    assert driver_call(cu.cuStreamGetFlags, stream) == NON_BLOCKING
    assert int(driver_call(cu.cuStreamGetCtx, stream)) == int(context)
    status = driver_call(cu.cuStreamIsCapturing, stream)
    assert status == cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
    driver_call(cu.cuStreamDestroy, stream)
