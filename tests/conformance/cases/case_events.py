# SPDX-License-Identifier: Apache-2.0
"""Events: what they capture, how they end, and their errors."""

from __future__ import annotations

import ctypes
import itertools
import time
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
DISABLE_TIMING = cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
BLOCKING_SYNC = cu.CUevent_flags.CU_EVENT_BLOCKING_SYNC.value
INTERPROCESS = cu.CUevent_flags.CU_EVENT_INTERPROCESS.value


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


@pytest.fixture
def event(context: Any) -> Any:
    return call(cu.cuEventCreate, 0)


def test_an_event_that_was_never_recorded_is_an_empty_set_of_work(gate: Gate, event: Any, stream: Any) -> None:
    gate.wait(stream)
    assert result(cu.cuEventQuery, event) == "SUCCESS"
    call(cu.cuEventSynchronize, event)
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamWaitEvent, other, event, 0)
    call(cu.cuStreamSynchronize, other)


def test_only_work_before_the_record_counts(gate: Gate, event: Any, stream: Any) -> None:
    call(cu.cuEventRecord, event, stream)
    gate.wait(stream)
    call(cu.cuEventSynchronize, event)
    assert result(cu.cuStreamQuery, stream) == "NOT_READY"


def test_a_later_record_replaces_the_earlier(gate: Gate, event: Any, stream: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuEventRecord, event, other)
    call(cu.cuEventSynchronize, event)
    gate.wait(stream)
    call(cu.cuEventRecord, event, stream)
    assert result(cu.cuEventQuery, event) == "NOT_READY"
    gate.open()
    call(cu.cuEventSynchronize, event)
    assert result(cu.cuEventQuery, event) == "SUCCESS"


def test_waiting_is_for_the_record_at_the_time_of_the_call(gate: Gate, event: Any, stream: Any) -> None:
    one, two = call(cu.cuStreamCreate, NON_BLOCKING), call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuEventRecord, event, one)  # empty stream: done at once
    call(cu.cuStreamWaitEvent, two, event, 0)
    gate.wait(stream)
    call(cu.cuEventRecord, event, stream)
    gate.store(two, 2, 7)
    call(cu.cuStreamSynchronize, two)
    assert gate.word(2).value == 7


def test_a_destroyed_event_still_orders(gate: Gate, event: Any, stream: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(stream)
    gate.store(stream, 2, 1)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuStreamWaitEvent, other, event, 0)
    call(cu.cuEventDestroy, event)
    gate.store(other, 2, 2)
    gate.open()
    call(cu.cuStreamSynchronize, other)
    assert gate.word(2).value == 2


@pytest.mark.parametrize("destroyed", [False, True])
def test_a_later_record_lets_no_earlier_wait_go(gate: Gate, event: Any, stream: Any, destroyed: bool) -> None:
    """The later record is reached first, in a stream that has nothing to do."""
    waits, idle = call(cu.cuStreamCreate, NON_BLOCKING), call(cu.cuStreamCreate, NON_BLOCKING)
    gate.wait(stream)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuStreamWaitEvent, waits, event, 0)
    if destroyed:
        call(cu.cuEventDestroy, event)
        event = call(cu.cuEventCreate, 0)  # perhaps in the same place
    call(cu.cuEventRecord, event, idle)
    call(cu.cuEventSynchronize, event)
    call(cu.cuStreamSynchronize, idle)
    time.sleep(0.05)
    assert result(cu.cuStreamQuery, waits) == "NOT_READY"
    gate.open()
    call(cu.cuStreamSynchronize, waits)


def test_a_chain_through_many_streams(gate: Gate, stream: Any) -> None:
    streams = [stream] + [call(cu.cuStreamCreate, NON_BLOCKING) for _ in range(7)]
    gate.wait(stream)
    for number, (before, after) in enumerate(itertools.pairwise(streams)):
        link = call(cu.cuEventCreate, DISABLE_TIMING)
        gate.store(before, 2, number + 1)
        call(cu.cuEventRecord, link, before)
        call(cu.cuStreamWaitEvent, after, link, 0)
    gate.store(streams[-1], 2, 100)
    assert gate.word(2).value == 0
    gate.open()
    call(cu.cuStreamSynchronize, streams[-1])
    assert gate.word(2).value == 100


def test_wait_for_an_event_of_another_context(gate: Gate, event: Any, stream: Any) -> None:
    gate.wait(stream)
    gate.store(stream, 2, 1)
    call(cu.cuEventRecord, event, stream)
    other = call(cu.cuCtxCreate, None, 0, 0)
    there = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamWaitEvent, there, event, 0)
    assert result(cu.cuStreamQuery, there) == "NOT_READY"
    gate.open()
    call(cu.cuStreamSynchronize, there)
    assert gate.word(2).value == 1
    call(cu.cuCtxDestroy, other)


def test_record_needs_a_stream_of_its_context(event: Any) -> None:
    other = call(cu.cuCtxCreate, None, 0, 0)
    there = call(cu.cuStreamCreate, NON_BLOCKING)
    assert result(cu.cuEventRecord, event, there) == "INVALID_HANDLE"
    call(cu.cuCtxDestroy, other)


def test_time_passes(gate: Gate, stream: Any) -> None:
    first, second, third = (call(cu.cuEventCreate, BLOCKING_SYNC) for _ in range(3))
    for event in (first, second, third):
        call(cu.cuEventRecord, event, stream)
        gate.store(stream, 2, 1)
    call(cu.cuEventSynchronize, third)
    one, two, both = (call(cu.cuEventElapsedTime, *pair) for pair in ((first, second), (second, third), (first, third)))
    assert one >= 0 and two >= 0
    assert abs(one + two - both) < 0.01
    assert call(cu.cuEventElapsedTime, second, first) == pytest.approx(-one, abs=1e-3)


def test_no_time_without_timing(stream: Any, event: Any) -> None:
    untimed = call(cu.cuEventCreate, DISABLE_TIMING)
    for made in (untimed, event):
        call(cu.cuEventRecord, made, stream)
    call(cu.cuStreamSynchronize, stream)
    assert result(cu.cuEventElapsedTime, event, untimed) == "INVALID_HANDLE"
    assert (
        native("cuEventElapsedTime")(None, ctypes.c_void_p(int(event)), ctypes.c_void_p(int(event))) == "INVALID_VALUE"
    )


def test_wrong_events(context: Any, stream: Any) -> None:
    assert result(cu.cuEventCreate, 0x80) == "INVALID_VALUE"
    assert result(cu.cuEventCreate, INTERPROCESS) == "INVALID_VALUE"  # needs DISABLE_TIMING
    assert native("cuEventCreate")(None, ctypes.c_uint(0)) == "INVALID_VALUE"
    assert native("cuEventRecord")(None, ctypes.c_void_p(int(stream))) == "INVALID_HANDLE"
    assert native("cuEventSynchronize")(None) == "INVALID_HANDLE"
    assert native("cuEventQuery")(None) == "INVALID_HANDLE"
    assert native("cuEventDestroy_v2")(None) == "INVALID_HANDLE"
    assert native("cuStreamWaitEvent")(ctypes.c_void_p(int(stream)), None, ctypes.c_uint(0)) == "INVALID_HANDLE"


def test_wrong_flags(stream: Any, event: Any) -> None:
    assert result(cu.cuEventRecordWithFlags, event, stream, 0x40) == "INVALID_VALUE"
    assert result(cu.cuStreamWaitEvent, stream, event, 0x40) == "INVALID_VALUE"
    call(cu.cuEventRecordWithFlags, event, stream, 0)


def test_a_new_event_knows_nothing_of_a_destroyed_one(gate: Gate, event: Any, stream: Any) -> None:
    gate.wait(stream)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuEventDestroy, event)
    event = call(cu.cuEventCreate, 0)  # perhaps in the same place
    assert result(cu.cuEventQuery, event) == "SUCCESS"
    call(cu.cuEventSynchronize, event)
    gate.open()
