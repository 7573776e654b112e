# SPDX-License-Identifier: Apache-2.0
"""Changes of executable graphs: whole graphs and single nodes, and what is refused."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
UPDATE = cu.CUgraphExecUpdateResult


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


@pytest.fixture
def made(context: Any) -> Iterator[list[Any]]:
    """Graphs to destroy at the end."""
    graphs: list[Any] = []
    yield graphs
    for graph in graphs:
        call(cu.cuGraphDestroy, graph)


def chain(gate: Gate, made: list[Any], *words: tuple[int, int]) -> tuple[Any, list[Any]]:
    """A graph of kernels one after the other, each storing a value in a word."""
    graph = call(cu.cuGraphCreate, 0)
    made.append(graph)
    nodes: list[Any] = []
    for number, value in words:
        nodes.append(
            call(cu.cuGraphAddKernelNode, graph, nodes[-1:], len(nodes[-1:]), gate.store_params(number, value))
        )
    return graph, nodes


def launch(executable: Any, stream: Any) -> None:
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)


class Info(ctypes.Structure):
    """CUgraphExecUpdateResultInfo; cuda.bindings hands none out when the call fails."""

    _fields_ = (("result", ctypes.c_int), ("errorNode", ctypes.c_void_p), ("errorFromNode", ctypes.c_void_p))


def update(executable: Any, graph: Any) -> tuple[str, Info]:
    info = Info()
    answer = native("cuGraphExecUpdate_v2")(int(executable), int(graph), ctypes.byref(info))
    return answer, info


def test_parameters_from_another_graph(gate: Gate, made: list[Any], stream: Any) -> None:
    graph, _ = chain(gate, made, (2, 1), (3, 1))
    other, _ = chain(gate, made, (4, 5), (5, 6))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    answer, info = update(executable, other)
    assert (answer, info.result) == ("SUCCESS", UPDATE.CU_GRAPH_EXEC_UPDATE_SUCCESS)
    launch(executable, stream)
    assert [gate.word(n).value for n in (2, 3, 4, 5)] == [0, 0, 5, 6]
    call(cu.cuGraphExecDestroy, executable)


def test_other_topology(gate: Gate, made: list[Any], stream: Any) -> None:
    graph, _ = chain(gate, made, (2, 1), (3, 1))
    longer, _ = chain(gate, made, (2, 2), (3, 2), (4, 2))
    apart, nodes = chain(gate, made, (2, 2), (3, 2))
    call(cu.cuGraphRemoveDependencies, apart, [nodes[0]], [nodes[1]], None, 1)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    for other in (longer, apart):
        answer, info = update(executable, other)
        assert answer == "GRAPH_EXEC_UPDATE_FAILURE"
        assert info.result == UPDATE.CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED
    launch(executable, stream)
    assert [gate.word(n).value for n in (2, 3, 4)] == [1, 1, 0]
    call(cu.cuGraphExecDestroy, executable)


def test_other_type_of_node(gate: Gate, made: list[Any], stream: Any) -> None:
    graph, _ = chain(gate, made, (2, 1))
    other = call(cu.cuGraphCreate, 0)
    made.append(other)
    empty = call(cu.cuGraphAddEmptyNode, other, None, 0)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    answer, info = update(executable, other)
    assert answer == "GRAPH_EXEC_UPDATE_FAILURE"
    assert info.result == UPDATE.CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED
    assert info.errorNode == int(empty)
    call(cu.cuGraphExecDestroy, executable)


def test_one_kernel_node(gate: Gate, made: list[Any], stream: Any) -> None:
    graph, nodes = chain(gate, made, (2, 1), (3, 1))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphExecKernelNodeSetParams, executable, nodes[1], gate.store_params(4, 7))
    launch(executable, stream)
    assert [gate.word(n).value for n in (2, 3, 4)] == [1, 0, 7]
    call(cu.cuGraphKernelNodeSetParams, nodes[0], gate.store_params(5, 8))
    launch(executable, stream)
    assert gate.word(5).value == 0
    call(cu.cuGraphExecDestroy, executable)


def test_queued_launches_keep_what_they_had(gate: Gate, made: list[Any], stream: Any) -> None:
    graph, nodes = chain(gate, made, (2, 1))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    gate.wait(stream)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuGraphExecKernelNodeSetParams, executable, nodes[0], gate.store_params(3, 1))
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert [gate.word(n).value for n in (2, 3)] == [1, 0]
    launch(executable, stream)
    assert gate.word(3).value == 1
    call(cu.cuGraphExecDestroy, executable)


def test_nodes_of_another_graph_are_refused(gate: Gate, made: list[Any]) -> None:
    graph, _ = chain(gate, made, (2, 1))
    _, strangers = chain(gate, made, (3, 1))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    params = gate.store_params(4, 1)
    assert result(cu.cuGraphExecKernelNodeSetParams, executable, strangers[0], params) == "INVALID_VALUE"
    call(cu.cuGraphExecDestroy, executable)


def test_copies_and_fills(context: Any, made: list[Any], stream: Any) -> None:
    graph = call(cu.cuGraphCreate, 0)
    made.append(graph)
    address = call(cu.cuMemAlloc, 256)
    fill = cu.CUDA_MEMSET_NODE_PARAMS()
    fill.dst, fill.value, fill.elementSize, fill.width, fill.height = address, 1, 1, 64, 1
    node = call(cu.cuGraphAddMemsetNode, graph, None, 0, fill, context)
    target = (ctypes.c_uint8 * 64)()
    copy = cu.CUDA_MEMCPY3D()
    copy.srcMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice = address
    copy.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_HOST
    copy.dstHost = ctypes.addressof(target)
    copy.WidthInBytes, copy.Height, copy.Depth = 64, 1, 1
    copied = call(cu.cuGraphAddMemcpyNode, graph, [node], 1, copy, context)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    launch(executable, stream)
    assert bytes(target) == b"\x01" * 64
    fill.value = 2
    call(cu.cuGraphExecMemsetNodeSetParams, executable, node, fill, context)
    other = (ctypes.c_uint8 * 64)()
    copy.dstHost = ctypes.addressof(other)
    call(cu.cuGraphExecMemcpyNodeSetParams, executable, copied, copy, context)
    launch(executable, stream)
    assert (bytes(target), bytes(other)) == (b"\x01" * 64, b"\x02" * 64)
    copy.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.dstDevice = int(address) + 128
    assert result(cu.cuGraphExecMemcpyNodeSetParams, executable, copied, copy, context) == "INVALID_VALUE"
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuMemFree, address)


def test_child_graph(gate: Gate, made: list[Any], stream: Any) -> None:
    child, _ = chain(gate, made, (2, 1))
    graph = call(cu.cuGraphCreate, 0)
    made.append(graph)
    node = call(cu.cuGraphAddChildGraphNode, graph, None, 0, child)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    other, _ = chain(gate, made, (3, 1))
    call(cu.cuGraphExecChildGraphNodeSetParams, executable, node, other)
    launch(executable, stream)
    assert [gate.word(n).value for n in (2, 3)] == [0, 1]
    longer, _ = chain(gate, made, (4, 1), (5, 1))
    assert result(cu.cuGraphExecChildGraphNodeSetParams, executable, node, longer) == "INVALID_VALUE"
    launch(executable, stream)
    assert gate.word(4).value == 0
    call(cu.cuGraphExecDestroy, executable)


def test_host_node(context: Any, made: list[Any], stream: Any) -> None:
    graph = call(cu.cuGraphCreate, 0)
    made.append(graph)
    seen: list[str] = []
    functions = [
        ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda _, name=name: seen.append(name)) for name in ("one", "two")
    ]
    params = cu.CUDA_HOST_NODE_PARAMS()
    params.fn = cu.CUhostFn(ctypes.cast(functions[0], ctypes.c_void_p).value)
    node = call(cu.cuGraphAddHostNode, graph, None, 0, params)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    launch(executable, stream)
    params.fn = cu.CUhostFn(ctypes.cast(functions[1], ctypes.c_void_p).value)
    call(cu.cuGraphExecHostNodeSetParams, executable, node, params)
    launch(executable, stream)
    assert seen == ["one", "two"]
    call(cu.cuGraphExecDestroy, executable)
