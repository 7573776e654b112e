# SPDX-License-Identifier: Apache-2.0
"""Streams, events and their order. A gate is a pinned word that a kernel waits for."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver as cu

from support.gate import Gate

Call = Callable[..., Any]
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value


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
