# SPDX-License-Identifier: Apache-2.0
"""Graphs: topology, nodes and their parameters, order and concurrency of launches, user objects."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
DISABLE_TIMING = cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
TYPE = cu.CUgraphNodeType
HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


@pytest.fixture
def graph(context: Any) -> Iterator[Any]:
    made = call(cu.cuGraphCreate, 0)
    yield made
    call(cu.cuGraphDestroy, made)


def empty(graph: Any, *before: Any) -> Any:
    return call(cu.cuGraphAddEmptyNode, graph, list(before), len(before))


def store(gate: Gate, graph: Any, number: int, value: int, *before: Any) -> Any:
    return call(cu.cuGraphAddKernelNode, graph, list(before), len(before), gate.store_params(number, value))


def wait(gate: Gate, graph: Any, *before: Any) -> Any:
    return call(cu.cuGraphAddKernelNode, graph, list(before), len(before), gate.wait_params())


def host_params(function: Any) -> Any:
    params = cu.CUDA_HOST_NODE_PARAMS()
    params.fn = cu.CUhostFn(ctypes.cast(function, ctypes.c_void_p).value)
    params.userData = 0
    return params


def host(graph: Any, function: Any, *before: Any) -> Any:
    return call(cu.cuGraphAddHostNode, graph, list(before), len(before), host_params(function))


def ids(nodes: Any, count: int) -> list[int]:
    return [int(node) for node in list(nodes)[:count]]


def neighbours(question: Callable[..., Any], node: Any) -> list[int]:
    nodes, _, count = call(question, node, 16)
    return ids(nodes, int(count))


def run(graph: Any, stream: Any) -> None:
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuGraphExecDestroy, executable)


def test_nodes_roots_and_edges(graph: Any) -> None:
    a = empty(graph)
    b, c = empty(graph, a), empty(graph, a)
    d = empty(graph, b, c)
    assert call(cu.cuGraphGetNodes, graph, 0)[1] == 4
    nodes, count = call(cu.cuGraphGetNodes, graph, 8)
    assert (ids(nodes, int(count)), int(count)) == ([int(a), int(b), int(c), int(d)], 4)
    roots, count = call(cu.cuGraphGetRootNodes, graph, 4)
    assert ids(roots, int(count)) == [int(a)]
    assert neighbours(cu.cuGraphNodeGetDependencies, d) == [int(b), int(c)]
    assert neighbours(cu.cuGraphNodeGetDependentNodes, a) == [int(b), int(c)]
    assert int(call(cu.cuGraphNodeGetContainingGraph, d)) == int(graph)
    assert call(cu.cuGraphNodeGetLocalId, a) != call(cu.cuGraphNodeGetLocalId, b)
    assert call(cu.cuGraphNodeGetToolsId, a) != call(cu.cuGraphNodeGetToolsId, b)


def test_changing_edges(graph: Any) -> None:
    a, b, c = empty(graph), empty(graph), empty(graph)
    call(cu.cuGraphAddDependencies, graph, [a, b], [b, c], None, 2)
    assert result(cu.cuGraphAddDependencies, graph, [a], [b], None, 1) == "INVALID_VALUE"
    assert result(cu.cuGraphAddDependencies, graph, [a], [a], None, 1) == "INVALID_VALUE"
    call(cu.cuGraphRemoveDependencies, graph, [a], [b], None, 1)
    assert result(cu.cuGraphRemoveDependencies, graph, [a], [b], None, 1) == "INVALID_VALUE"
    assert neighbours(cu.cuGraphNodeGetDependencies, b) == []
    call(cu.cuGraphDestroyNode, b)
    assert neighbours(cu.cuGraphNodeGetDependencies, c) == []
    assert call(cu.cuGraphGetNodes, graph, 0)[1] == 2


def test_edges_stay_within_a_graph(graph: Any) -> None:
    other = call(cu.cuGraphCreate, 0)
    a, b = empty(graph), empty(other)
    assert result(cu.cuGraphAddDependencies, graph, [a], [b], None, 1) == "INVALID_VALUE"
    assert result(cu.cuGraphAddEmptyNode, graph, [b], 1) == "INVALID_VALUE"
    assert result(cu.cuGraphAddEmptyNode, graph, [a, a], 2) == "INVALID_VALUE"
    call(cu.cuGraphDestroy, other)


def test_a_cycle_cannot_be_instantiated(graph: Any) -> None:
    a = empty(graph)
    b = empty(graph, a)
    if result(cu.cuGraphAddDependencies, graph, [b], [a], None, 1) == "SUCCESS":
        params = cu.CUDA_GRAPH_INSTANTIATE_PARAMS()
        assert result(cu.cuGraphInstantiateWithParams, graph, params) == "INVALID_VALUE"
        assert params.result_out == cu.CUgraphInstantiateResult.CUDA_GRAPH_INSTANTIATE_INVALID_STRUCTURE
        assert int(params.hErrNode_out) in (int(a), int(b))


def test_order_follows_the_edges(gate: Gate, graph: Any, stream: Any) -> None:
    first = wait(gate, graph)
    second = store(gate, graph, 2, 1, first)
    store(gate, graph, 2, 2, second)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    gate.store(stream, 3, 1)
    assert result(cu.cuStreamQuery, stream) == "NOT_READY"
    assert (gate.word(2).value, gate.word(3).value) == (0, 0)
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert (gate.word(2).value, gate.word(3).value) == (2, 1)
    call(cu.cuGraphExecDestroy, executable)


def test_a_branch_does_not_wait_for_its_sister(gate: Gate, graph: Any, stream: Any) -> None:
    """A host function of one branch lets the other go on."""
    opened = threading.Event()

    def body(_: Any) -> None:
        opened.set()
        gate.open()

    function = HOST_FUNCTION(body)
    root = empty(graph)
    waiting = wait(gate, graph, root)
    opening = host(graph, function, root)
    store(gate, graph, 2, 1, waiting, opening)
    run(graph, stream)
    assert opened.is_set()
    assert gate.word(2).value == 1


def test_launches_of_one_executable_do_not_overlap(gate: Gate, graph: Any, stream: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    store(gate, graph, 2, 1, wait(gate, graph))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuGraphLaunch, executable, other)
    gate.store(other, 3, 1)
    assert result(cu.cuStreamQuery, other) == "NOT_READY"
    gate.open()
    call(cu.cuStreamSynchronize, other)
    assert result(cu.cuStreamQuery, stream) == "SUCCESS"
    assert gate.word(3).value == 1
    call(cu.cuGraphExecDestroy, executable)


def test_a_launch_belongs_to_its_stream(gate: Gate, graph: Any) -> None:
    """The legacy stream waits for a graph in a blocking stream, as for any work there."""
    blocking = call(cu.cuStreamCreate, 0)
    store(gate, graph, 2, 1, wait(gate, graph))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, blocking)
    gate.store(0, 2, 2)
    gate.open()
    call(cu.cuStreamSynchronize, 0)
    assert gate.word(2).value == 2
    call(cu.cuGraphExecDestroy, executable)


def test_an_executable_outlives_graph_and_destruction_in_flight(gate: Gate, stream: Any) -> None:
    graph = call(cu.cuGraphCreate, 0)
    store(gate, graph, 2, 1, wait(gate, graph))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphDestroy, graph)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuGraphExecDestroy, executable)
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 1


def test_copy_and_fill_nodes(context: Any, graph: Any, stream: Any) -> None:
    """A 2-D fill and a 2-D copy of its inner part."""
    address = call(cu.cuMemAlloc, 64 * 8)
    call(cu.cuMemsetD8Async, address, 0, 64 * 8, stream)
    fill = cu.CUDA_MEMSET_NODE_PARAMS()
    fill.dst, fill.pitch, fill.value, fill.elementSize, fill.width, fill.height = address, 64, 0xAB, 1, 16, 4
    filled = call(cu.cuGraphAddMemsetNode, graph, None, 0, fill, context)
    target = (ctypes.c_uint8 * 32)()
    copy = cu.CUDA_MEMCPY3D()
    copy.srcMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice, copy.srcPitch, copy.srcXInBytes, copy.srcY = address, 64, 8, 2
    copy.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_HOST
    copy.dstHost, copy.dstPitch = ctypes.addressof(target), 16
    copy.WidthInBytes, copy.Height, copy.Depth = 16, 2, 1
    copied = call(cu.cuGraphAddMemcpyNode, graph, [filled], 1, copy, context)
    run(graph, stream)
    assert bytes(target) == (b"\xab" * 8 + bytes(8)) * 2
    assert call(cu.cuGraphMemsetNodeGetParams, filled).value == 0xAB
    read = call(cu.cuGraphMemcpyNodeGetParams, copied)
    assert (read.WidthInBytes, read.Height, read.srcXInBytes, read.srcY) == (16, 2, 8, 2)
    assert int(read.srcDevice) == int(address)
    call(cu.cuMemFree, address)


def test_kernel_parameters_are_copied_and_can_be_changed(gate: Gate, graph: Any, stream: Any) -> None:
    node = store(gate, graph, 2, 1)
    params = call(cu.cuGraphKernelNodeGetParams, node)
    assert (params.gridDimX, params.blockDimX, params.sharedMemBytes) == (1, 1, 0)
    run(graph, stream)
    assert gate.word(2).value == 1
    call(cu.cuGraphKernelNodeSetParams, node, gate.store_params(3, 9))
    run(graph, stream)
    assert gate.word(3).value == 9
    wrong = gate.store_params(2, 1)
    wrong.blockDimX = 4096
    assert result(cu.cuGraphKernelNodeSetParams, node, wrong) == "INVALID_VALUE"


def test_kernel_node_attributes(gate: Gate, graph: Any) -> None:
    node, other = store(gate, graph, 2, 1), store(gate, graph, 3, 1)
    priority = cu.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PRIORITY
    value = cu.CUkernelNodeAttrValue()
    value.priority = -1
    call(cu.cuGraphKernelNodeSetAttribute, node, priority, value)
    call(cu.cuGraphKernelNodeCopyAttributes, other, node)
    assert call(cu.cuGraphKernelNodeGetAttribute, other, priority).priority == -1
    assert result(cu.cuGraphKernelNodeGetAttribute, empty(graph), priority) == "INVALID_VALUE"


def test_node_of_any_type(gate: Gate, graph: Any, stream: Any) -> None:
    params = cu.CUgraphNodeParams()
    params.type = TYPE.CU_GRAPH_NODE_TYPE_KERNEL
    kernel = gate.store_params(2, 6)
    for name in ("func", "gridDimX", "gridDimY", "gridDimZ", "blockDimX", "blockDimY", "blockDimZ", "kernelParams"):
        setattr(params.kernel, name, getattr(kernel, name))
    node = call(cu.cuGraphAddNode, graph, None, None, 0, params)
    assert call(cu.cuGraphNodeGetType, node) == TYPE.CU_GRAPH_NODE_TYPE_KERNEL
    run(graph, stream)
    assert gate.word(2).value == 6


def test_child_graphs_are_copies(gate: Gate, graph: Any, stream: Any) -> None:
    child = call(cu.cuGraphCreate, 0)
    store(gate, child, 2, 1)
    node = call(cu.cuGraphAddChildGraphNode, graph, None, 0, child)
    store(gate, child, 3, 1)
    call(cu.cuGraphDestroy, child)
    embedded = call(cu.cuGraphChildGraphNodeGetGraph, node)
    assert call(cu.cuGraphGetNodes, embedded, 0)[1] == 1
    store(gate, graph, 4, 1, node)
    run(graph, stream)
    assert [gate.word(n).value for n in (2, 3, 4)] == [1, 0, 1]


def test_clone(gate: Gate, graph: Any, stream: Any) -> None:
    first = store(gate, graph, 2, 1)
    second = store(gate, graph, 3, 1, first)
    clone = call(cu.cuGraphClone, graph)
    found = call(cu.cuGraphNodeFindInClone, second, clone)
    assert int(found) != int(second)
    assert neighbours(cu.cuGraphNodeGetDependencies, found) == [int(call(cu.cuGraphNodeFindInClone, first, clone))]
    call(cu.cuGraphKernelNodeSetParams, found, gate.store_params(4, 1))
    run(clone, stream)
    assert [gate.word(n).value for n in (2, 3, 4)] == [1, 0, 1]
    call(cu.cuGraphDestroy, clone)


def test_event_nodes(gate: Gate, graph: Any, stream: Any) -> None:
    event, replaced = (call(cu.cuEventCreate, DISABLE_TIMING) for _ in range(2))
    node = call(cu.cuGraphAddEventRecordNode, graph, [wait(gate, graph)], 1, event)
    assert int(call(cu.cuGraphEventRecordNodeGetEvent, node)) == int(event)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    assert result(cu.cuEventQuery, event) == "NOT_READY"
    gate.open()
    call(cu.cuEventSynchronize, event)
    call(cu.cuGraphExecEventRecordNodeSetEvent, executable, node, replaced)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    assert int(call(cu.cuGraphEventRecordNodeGetEvent, node)) == int(event)
    call(cu.cuGraphExecDestroy, executable)


def test_host_functions_see_what_came_before(gate: Gate, graph: Any, stream: Any) -> None:
    seen: list[int] = []
    function = HOST_FUNCTION(lambda _: seen.append(gate.word(2).value))
    host(graph, function, store(gate, graph, 2, 8))
    run(graph, stream)
    assert seen == [8]


def test_memory_operations_are_a_node(context: Any, gate: Gate, graph: Any, stream: Any) -> None:
    address = call(cu.cuMemAlloc, 8)
    call(cu.cuMemsetD32Async, address, 0, 2, stream)
    waits, writes = cu.CUstreamBatchMemOpParams(), cu.CUstreamBatchMemOpParams()
    waits.waitValue.operation = cu.CUstreamBatchMemOpType.CU_STREAM_MEM_OP_WAIT_VALUE_32
    waits.waitValue.address, waits.waitValue.value = address, 0
    waits.waitValue.flags = cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ.value
    writes.writeValue.operation = cu.CUstreamBatchMemOpType.CU_STREAM_MEM_OP_WRITE_VALUE_32
    writes.writeValue.address, writes.writeValue.value = int(address) + 4, 11
    params = cu.CUDA_BATCH_MEM_OP_NODE_PARAMS()
    params.ctx, params.count, params.paramArray, params.flags = context, 2, [waits, writes], 0
    call(cu.cuGraphAddBatchMemOpNode, graph, None, 0, params)
    run(graph, stream)
    target = (ctypes.c_uint32 * 2)()
    call(cu.cuMemcpyDtoH, ctypes.addressof(target), address, 8)
    assert list(target) == [0, 11]
    call(cu.cuMemFree, address)


def test_disabled_nodes_do_nothing(gate: Gate, graph: Any, stream: Any) -> None:
    node = store(gate, graph, 2, 1)
    store(gate, graph, 3, 1, node)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    assert call(cu.cuGraphNodeGetEnabled, executable, node) == 1
    call(cu.cuGraphNodeSetEnabled, executable, node, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    assert (gate.word(2).value, gate.word(3).value) == (0, 1)
    call(cu.cuGraphNodeSetEnabled, executable, node, 1)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 1
    assert result(cu.cuGraphNodeSetEnabled, executable, empty(graph), 0) == "INVALID_VALUE"
    call(cu.cuGraphExecDestroy, executable)


def test_user_objects_live_as_long_as_needed(gate: Gate, stream: Any) -> None:
    ended = threading.Event()
    destructor = HOST_FUNCTION(lambda _: ended.set())
    graph = call(cu.cuGraphCreate, 0)
    wait(gate, graph)
    address = cu.CUhostFn(ctypes.cast(destructor, ctypes.c_void_p).value)
    flags = int(cu.CUuserObject_flags.CU_USER_OBJECT_NO_DESTRUCTOR_SYNC)
    assert result(cu.cuUserObjectCreate, 0, address, 1, 0) == "INVALID_VALUE"
    thing = call(cu.cuUserObjectCreate, 0, address, 1, flags)
    call(cu.cuGraphRetainUserObject, graph, thing, 1, int(cu.CUuserObjectRetain_flags.CU_GRAPH_USER_OBJECT_MOVE))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuGraphDestroy, graph)
    call(cu.cuGraphExecDestroy, executable)
    assert not ended.wait(0.02)
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert ended.wait(10)


def test_instantiation_flags(graph: Any) -> None:
    empty(graph)
    flag = cu.CUgraphInstantiate_flags.CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY.value
    executable = call(cu.cuGraphInstantiate, graph, flag)
    assert int(call(cu.cuGraphExecGetFlags, executable)) == flag
    call(cu.cuGraphExecDestroy, executable)
    assert result(cu.cuGraphInstantiate, graph, 1 << 20) == "INVALID_VALUE"
    assert result(cu.cuGraphLaunch, executable, 0) == "INVALID_VALUE"


def test_picture(gate: Gate, graph: Any, tmp_path: Path) -> None:
    store(gate, graph, 2, 1, empty(graph))
    path = tmp_path / "graph.dot"
    call(cu.cuGraphDebugDotPrint, graph, str(path).encode(), 1)
    text = path.read_text()
    assert text.startswith("digraph")
    assert "->" in text
    assert "store" in text
