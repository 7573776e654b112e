# SPDX-License-Identifier: Apache-2.0
"""Stream capture: what is recorded, how it spreads over events, and what is forbidden beside it."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
DISABLE_TIMING = cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
GLOBAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
THREAD_LOCAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
NONE = cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
ACTIVE = cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_ACTIVE
INVALIDATED = cu.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_INVALIDATED
KERNEL = cu.CUgraphNodeType.CU_GRAPH_NODE_TYPE_KERNEL


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


@pytest.fixture
def event(context: Any) -> Any:
    return call(cu.cuEventCreate, DISABLE_TIMING)


def nodes_of(graph: Any) -> list[Any]:
    _, count = call(cu.cuGraphGetNodes, graph, 0)
    nodes, _ = call(cu.cuGraphGetNodes, graph, count)
    return list(nodes)[: int(count)]


def run(graph: Any, stream: Any) -> None:
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuGraphExecDestroy, executable)


def spoiled(stream: Any) -> None:
    """The capture has been invalidated, and ends with that."""
    assert call(cu.cuStreamIsCapturing, stream) == INVALIDATED
    assert result(cu.cuStreamEndCapture, stream) == "STREAM_CAPTURE_INVALIDATED"
    assert call(cu.cuStreamIsCapturing, stream) == NONE


def in_thread(function: Any) -> None:
    failed: list[BaseException] = []

    def body() -> None:
        try:
            function()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def test_captured_work_runs_at_launch_and_each_time(gate: Gate, stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    assert call(cu.cuStreamIsCapturing, stream) == ACTIVE
    gate.store(stream, 2, 7)
    graph = call(cu.cuStreamEndCapture, stream)
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 0
    executable = call(cu.cuGraphInstantiate, graph, 0)
    for _ in range(3):
        gate.word(2).value = 0
        call(cu.cuGraphLaunch, executable, stream)
        call(cu.cuStreamSynchronize, stream)
        assert gate.word(2).value == 7
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuGraphDestroy, graph)


def test_each_kind_of_work_is_a_node(gate: Gate, stream: Any) -> None:
    address = call(cu.cuMemAlloc, 4096)
    seen: list[int] = []
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda data: seen.append(gate.word(9).value))
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    gate.store(stream, 8, 5)
    call(cu.cuMemsetD32Async, address, 0x0102, 16, stream)
    call(cu.cuMemcpyDtoHAsync, gate.address + 36, address, 4, stream)
    call(cu.cuLaunchHostFunc, stream, cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value), 0)
    graph = call(cu.cuStreamEndCapture, stream)
    types = [call(cu.cuGraphNodeGetType, node).name.rpartition("TYPE_")[2] for node in nodes_of(graph)]
    assert types == ["KERNEL", "MEMSET", "MEMCPY", "HOST"]
    assert seen == []
    run(graph, stream)
    assert seen == [0x0102]
    assert gate.word(8).value == 5
    call(cu.cuGraphDestroy, graph)
    call(cu.cuMemFree, address)


def test_fork_and_join_over_events(gate: Gate, stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    joined = call(cu.cuEventCreate, DISABLE_TIMING)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    gate.store(stream, 2, 1)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuStreamWaitEvent, other, event, 0)
    assert call(cu.cuStreamIsCapturing, other) == ACTIVE
    gate.store(other, 3, 1)
    gate.store(stream, 4, 1)
    call(cu.cuEventRecord, joined, other)
    call(cu.cuStreamWaitEvent, stream, joined, 0)
    gate.store(stream, 5, 1)
    graph = call(cu.cuStreamEndCapture, stream)
    assert call(cu.cuStreamIsCapturing, other) == NONE
    first, left, right, last = nodes_of(graph)
    edges = call(cu.cuGraphGetEdges, graph, 8)
    found = {(int(a), int(b)) for a, b in zip(edges[0][:4], edges[1][:4], strict=True)}
    assert int(edges[-1]) == 4
    assert found == {(int(first), int(left)), (int(first), int(right)), (int(left), int(last)), (int(right), int(last))}
    run(graph, stream)
    assert [gate.word(n).value for n in (2, 3, 4, 5)] == [1, 1, 1, 1]
    call(cu.cuGraphDestroy, graph)


def test_a_fork_must_be_joined(gate: Gate, stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuStreamWaitEvent, other, event, 0)
    gate.store(other, 2, 1)
    assert result(cu.cuStreamEndCapture, stream) == "STREAM_CAPTURE_UNJOINED"
    assert call(cu.cuStreamIsCapturing, stream) == NONE
    assert call(cu.cuStreamIsCapturing, other) == NONE


def test_a_forked_stream_cannot_end_the_capture(stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuStreamWaitEvent, other, event, 0)
    assert result(cu.cuStreamEndCapture, other) == "STREAM_CAPTURE_UNMATCHED"
    cu.cuStreamEndCapture(stream)
    assert call(cu.cuStreamIsCapturing, stream) == NONE


def test_beginning_and_ending_out_of_turn(stream: Any) -> None:
    assert result(cu.cuStreamEndCapture, stream) == "ILLEGAL_STATE"
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    assert result(cu.cuStreamBeginCapture, stream, GLOBAL) == "ILLEGAL_STATE"
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))
    assert result(cu.cuStreamBeginCapture, 0, GLOBAL) == "STREAM_CAPTURE_UNSUPPORTED"


def test_another_thread_cannot_end_it_unless_relaxed(stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, THREAD_LOCAL)
    in_thread(lambda: _expect("STREAM_CAPTURE_WRONG_THREAD", cu.cuStreamEndCapture, stream))
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    in_thread(lambda: call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream)))
    assert call(cu.cuStreamIsCapturing, stream) == NONE


def _expect(name: str, function: Any, *arguments: Any) -> None:
    assert result(function, *arguments) == name


@pytest.mark.parametrize("function", [cu.cuStreamSynchronize, cu.cuStreamQuery])
def test_a_capturing_stream_cannot_be_waited_for(stream: Any, function: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    assert result(function, stream) == "STREAM_CAPTURE_UNSUPPORTED"
    spoiled(stream)


def test_a_captured_event_cannot_be_waited_for(stream: Any, event: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    call(cu.cuEventRecord, event, stream)
    assert result(cu.cuEventQuery, event) == "CAPTURED_EVENT"
    cu.cuStreamEndCapture(stream)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    call(cu.cuEventRecord, event, stream)
    assert result(cu.cuEventSynchronize, event) == "CAPTURED_EVENT"
    cu.cuStreamEndCapture(stream)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuEventSynchronize, event)


def test_work_outside_is_not_waited_for_inside(gate: Gate, stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuEventRecord, event, other)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    assert result(cu.cuStreamWaitEvent, stream, event, 0) == "STREAM_CAPTURE_ISOLATION"
    assert result(gate.try_store, stream, 2, 1) == "STREAM_CAPTURE_INVALIDATED"
    spoiled(stream)


def test_two_captures_do_not_merge(stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    call(cu.cuStreamBeginCapture, other, RELAXED)
    call(cu.cuEventRecord, event, stream)
    assert result(cu.cuStreamWaitEvent, other, event, 0) == "STREAM_CAPTURE_MERGE"
    spoiled(stream)
    spoiled(other)


def test_the_legacy_stream_beside_a_blocking_capture(gate: Gate) -> None:
    blocking = call(cu.cuStreamCreate, 0)
    call(cu.cuStreamBeginCapture, blocking, RELAXED)
    assert result(cu.cuStreamIsCapturing, 0) == "STREAM_CAPTURE_IMPLICIT"
    assert call(cu.cuStreamIsCapturing, blocking) == ACTIVE
    assert result(gate.try_store, 0, 2, 1) == "STREAM_CAPTURE_IMPLICIT"
    spoiled(blocking)


def test_the_legacy_stream_beside_a_non_blocking_capture(gate: Gate, stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    gate.store(0, 2, 1)
    call(cu.cuStreamSynchronize, 0)
    assert gate.word(2).value == 1
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))


def test_context_synchronise_beside_a_capture(stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    assert result(cu.cuCtxSynchronize) == "STREAM_CAPTURE_UNSUPPORTED"
    spoiled(stream)


@pytest.mark.parametrize("mode", [GLOBAL, THREAD_LOCAL])
def test_unsafe_calls_are_forbidden_to_the_capturing_thread(stream: Any, mode: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, mode)
    refused = result(cu.cuMemAlloc, 4096)
    cu.cuStreamEndCapture(stream)
    assert refused == "STREAM_CAPTURE_UNSUPPORTED"


def test_unsafe_event_query_in_another_thread(context: Any, stream: Any, event: Any) -> None:
    def query(expected: str, mode: Any) -> None:
        call(cu.cuCtxSetCurrent, context)
        old = call(cu.cuThreadExchangeStreamCaptureMode, mode)
        _expect(expected, cu.cuEventQuery, event)
        call(cu.cuThreadExchangeStreamCaptureMode, old)

    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    in_thread(lambda: query("SUCCESS", RELAXED))
    in_thread(lambda: query("SUCCESS", THREAD_LOCAL))
    assert call(cu.cuStreamIsCapturing, stream) == ACTIVE
    in_thread(lambda: query("STREAM_CAPTURE_UNSUPPORTED", GLOBAL))
    spoiled(stream)
    call(cu.cuStreamBeginCapture, stream, THREAD_LOCAL)
    in_thread(lambda: query("SUCCESS", GLOBAL))
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))


def test_relaxed_capture_allows_unsafe_calls(stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    address = call(cu.cuMemAlloc, 4096)
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))
    call(cu.cuMemFree, address)


def test_exchanging_the_mode(context: Any) -> None:
    assert call(cu.cuThreadExchangeStreamCaptureMode, RELAXED) == GLOBAL
    assert call(cu.cuThreadExchangeStreamCaptureMode, THREAD_LOCAL) == RELAXED
    assert call(cu.cuThreadExchangeStreamCaptureMode, GLOBAL) == THREAD_LOCAL


def test_call_backs_are_not_captured(stream: Any) -> None:
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)(lambda *_: None)
    address = cu.CUstreamCallback(ctypes.cast(function, ctypes.c_void_p).value)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    assert result(cu.cuStreamAddCallback, stream, address, 0, 0) == "STREAM_CAPTURE_UNSUPPORTED"
    spoiled(stream)


def test_information_and_dependencies(gate: Gate, stream: Any) -> None:
    status = call(cu.cuStreamGetCaptureInfo, stream)[0]
    assert status == NONE
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    gate.store(stream, 2, 1)
    status, number, graph, dependencies, _, count = call(cu.cuStreamGetCaptureInfo, stream)
    assert (status, int(count)) == (ACTIVE, 1)
    assert int(number) > 0
    assert int(dependencies[0]) == int(nodes_of(graph)[0])
    empty = call(cu.cuGraphAddEmptyNode, graph, dependencies, count)
    call(cu.cuStreamUpdateCaptureDependencies, stream, [empty], None, 1, 1)
    gate.store(stream, 3, 1)
    ended = call(cu.cuStreamEndCapture, stream)
    assert int(ended) == int(graph)
    last = nodes_of(ended)[2]
    before = call(cu.cuGraphNodeGetDependencies, last, 4)
    assert [int(node) for node in before[0][:1]] == [int(empty)]
    assert result(cu.cuStreamUpdateCaptureDependencies, stream, [empty], None, 1, 1) == "ILLEGAL_STATE"
    run(ended, stream)
    assert [gate.word(n).value for n in (2, 3)] == [1, 1]
    call(cu.cuGraphDestroy, ended)


def test_capture_into_a_graph(gate: Gate, stream: Any) -> None:
    graph = call(cu.cuGraphCreate, 0)
    root = call(cu.cuGraphAddEmptyNode, graph, None, 0)
    call(cu.cuStreamBeginCaptureToGraph, stream, graph, [root], None, 1, RELAXED)
    gate.store(stream, 2, 3)
    assert result(cu.cuGraphInstantiate, graph, 0) == "INVALID_VALUE"
    assert int(call(cu.cuStreamEndCapture, stream)) == int(graph)
    edges = call(cu.cuGraphGetEdges, graph, 1)
    assert int(edges[0][0]) == int(root)
    run(graph, stream)
    assert gate.word(2).value == 3
    call(cu.cuGraphDestroy, graph)


def test_external_events_are_nodes(gate: Gate, stream: Any, event: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    external = int(cu.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
    assert result(cu.cuEventRecordWithFlags, event, stream, external) == "INVALID_VALUE"
    waited = call(cu.cuEventCreate, DISABLE_TIMING)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    call(cu.cuStreamWaitEvent, stream, waited, int(cu.CUevent_wait_flags.CU_EVENT_WAIT_EXTERNAL))
    gate.store(stream, 2, 1)
    call(cu.cuEventRecordWithFlags, event, stream, external)
    graph = call(cu.cuStreamEndCapture, stream)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    gate.wait(other)
    call(cu.cuEventRecord, waited, other)
    call(cu.cuGraphLaunch, executable, stream)
    assert result(cu.cuEventQuery, event) == "NOT_READY"
    assert gate.word(2).value == 0
    gate.open()
    call(cu.cuEventSynchronize, event)
    assert gate.word(2).value == 1
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuGraphDestroy, graph)


def test_a_launch_while_the_stream_captures(stream: Any) -> None:
    graph = call(cu.cuGraphCreate, 0)
    call(cu.cuGraphAddEmptyNode, graph, None, 0)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    call(cu.cuGraphLaunch, executable, other)
    call(cu.cuStreamSynchronize, other)
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, stream))
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuGraphDestroy, graph)
