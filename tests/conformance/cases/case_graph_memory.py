# SPDX-License-Identifier: Apache-2.0
"""Memory nodes: addresses that stay, who frees, and what a graph with them cannot do."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
AUTO_FREE = cu.CUgraphInstantiate_flags.CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH.value
ATTRIBUTE = cu.CUgraphMem_attribute
MIB = 1 << 20


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, NON_BLOCKING)


@pytest.fixture
def graph(context: Any) -> Iterator[Any]:
    made = call(cu.cuGraphCreate, 0)
    yield made
    call(cu.cuGraphDestroy, made)


def allocation(graph: Any, size: int, *before: Any) -> tuple[Any, int]:
    params = cu.CUDA_MEM_ALLOC_NODE_PARAMS()
    params.poolProps.allocType = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    params.poolProps.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    params.poolProps.location.id = 0
    params.bytesize = size
    node = call(cu.cuGraphAddMemAllocNode, graph, list(before), len(before), params)
    return node, int(params.dptr)


def fill(context: Any, graph: Any, address: int, value: int, size: int, *before: Any) -> Any:
    params = cu.CUDA_MEMSET_NODE_PARAMS()
    params.dst, params.value, params.elementSize, params.width, params.height = address, value, 1, size, 1
    return call(cu.cuGraphAddMemsetNode, graph, list(before), len(before), params, context)


def free(graph: Any, address: int, *before: Any) -> Any:
    return call(cu.cuGraphAddMemFreeNode, graph, list(before), len(before), address)


def launch(executable: Any, stream: Any) -> None:
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)


def content(address: int, size: int) -> bytes:
    target = (ctypes.c_uint8 * size)()
    call(cu.cuMemcpyDtoH, ctypes.addressof(target), address, size)
    return bytes(target)


def attribute(name: str) -> int:
    return int(call(cu.cuDeviceGetGraphMemAttribute, 0, getattr(ATTRIBUTE, f"CU_GRAPH_MEM_ATTR_{name}")))


def test_memory_that_a_graph_uses_and_frees(context: Any, graph: Any, stream: Any) -> None:
    node, address = allocation(graph, 4096)
    other, second = allocation(graph, MIB, node)
    assert second != address
    filled = fill(context, graph, address, 7, 4096, other)
    out = call(cu.cuMemAlloc, 4096)
    copy = cu.CUDA_MEMCPY3D()
    copy.srcMemoryType = copy.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    copy.srcDevice, copy.dstDevice = address, out
    copy.WidthInBytes, copy.Height, copy.Depth = 4096, 1, 1
    copied = call(cu.cuGraphAddMemcpyNode, graph, [filled], 1, copy, context)
    free(graph, address, copied)
    free(graph, second, copied)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    for _ in range(3):
        call(cu.cuMemsetD8Async, out, 0, 4096, stream)
        launch(executable, stream)
        assert content(out, 4096) == b"\x07" * 4096
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuMemFree, out)


def test_parameters(graph: Any) -> None:
    node, address = allocation(graph, 5000)
    freed = free(graph, address, node)
    params = call(cu.cuGraphMemAllocNodeGetParams, node)
    assert (int(params.dptr), params.bytesize) == (address, 5000)
    assert int(call(cu.cuGraphMemFreeNodeGetParams, freed)) == address


def test_memory_that_outlives_the_launch(context: Any, graph: Any, stream: Any) -> None:
    node, address = allocation(graph, 4096)
    fill(context, graph, address, 3, 4096, node)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    launch(executable, stream)
    assert content(address, 4096) == b"\x03" * 4096
    assert result(cu.cuGraphLaunch, executable, stream) == "INVALID_VALUE"
    call(cu.cuMemFreeAsync, address, stream)
    assert result(cu.cuMemFreeAsync, address, stream) == "INVALID_VALUE"
    launch(executable, stream)
    call(cu.cuMemFree, address)
    call(cu.cuGraphExecDestroy, executable)


def test_automatic_free_at_the_next_launch(context: Any, graph: Any, stream: Any) -> None:
    node, address = allocation(graph, 4096)
    fill(context, graph, address, 3, 4096, node)
    executable = call(cu.cuGraphInstantiate, graph, AUTO_FREE)
    launch(executable, stream)
    launch(executable, stream)
    assert content(address, 4096) == b"\x03" * 4096
    call(cu.cuMemFreeAsync, address, stream)
    call(cu.cuGraphExecDestroy, executable)


def test_another_graph_frees(context: Any, graph: Any, stream: Any) -> None:
    _, address = allocation(graph, 4096)
    other = call(cu.cuGraphCreate, 0)
    free(other, address)
    assert result(cu.cuGraphAddMemFreeNode, graph, None, 0, address) == "INVALID_VALUE"
    allocates = call(cu.cuGraphInstantiate, graph, 0)
    frees = call(cu.cuGraphInstantiate, other, 0)
    for _ in range(2):
        launch(allocates, stream)
        launch(frees, stream)
    call(cu.cuGraphExecDestroy, allocates)
    call(cu.cuGraphExecDestroy, frees)
    call(cu.cuGraphDestroy, other)


def test_what_cannot_be_freed(context: Any, graph: Any) -> None:
    plain = call(cu.cuMemAlloc, 4096)
    assert result(cu.cuGraphAddMemFreeNode, graph, None, 0, plain) == "INVALID_VALUE"
    assert result(cu.cuGraphAddMemFreeNode, graph, None, 0, 0) == "INVALID_VALUE"
    node, address = allocation(graph, 4096)
    freed = free(graph, address, node)
    assert result(cu.cuGraphAddMemFreeNode, graph, [freed], 1, address) == "INVALID_VALUE"
    call(cu.cuMemFree, plain)


def test_restrictions_of_graphs_with_memory(graph: Any) -> None:
    node, address = allocation(graph, 4096)
    freed = free(graph, address, node)
    assert result(cu.cuGraphDestroyNode, freed) == "INVALID_VALUE"
    assert result(cu.cuGraphRemoveDependencies, graph, [node], [freed], None, 1) == "INVALID_VALUE"
    executable = call(cu.cuGraphInstantiate, graph, 0)
    assert result(cu.cuGraphInstantiate, graph, 0) != "SUCCESS"
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuGraphExecDestroy, call(cu.cuGraphInstantiate, graph, 0))
    assert result(cu.cuGraphClone, graph) != "SUCCESS"


def test_captured_allocations(context: Any, stream: Any) -> None:
    out = call(cu.cuMemAlloc, 4096)
    call(cu.cuStreamBeginCapture, stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    address = call(cu.cuMemAllocAsync, 4096, stream)
    call(cu.cuMemsetD8Async, address, 9, 4096, stream)
    call(cu.cuMemcpyDtoDAsync, out, address, 4096, stream)
    call(cu.cuMemFreeAsync, address, stream)
    graph = call(cu.cuStreamEndCapture, stream)
    nodes, count = call(cu.cuGraphGetNodes, graph, 8)
    types = [call(cu.cuGraphNodeGetType, node).name.rpartition("TYPE_")[2] for node in list(nodes)[: int(count)]]
    assert types == ["MEM_ALLOC", "MEMSET", "MEMCPY", "MEM_FREE"]
    executable = call(cu.cuGraphInstantiate, graph, 0)
    for _ in range(2):
        call(cu.cuMemsetD8Async, out, 0, 4096, stream)
        launch(executable, stream)
        assert content(out, 4096) == b"\x09" * 4096
    call(cu.cuGraphExecDestroy, executable)
    call(cu.cuGraphDestroy, graph)
    call(cu.cuMemFree, out)


def test_memory_from_outside_is_not_freed_in_a_capture(context: Any, stream: Any) -> None:
    address = call(cu.cuMemAllocAsync, 4096, stream)
    call(cu.cuStreamBeginCapture, stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    assert result(cu.cuMemFreeAsync, address, stream) == "INVALID_VALUE"
    cu.cuStreamEndCapture(stream)
    call(cu.cuMemFreeAsync, address, stream)


def test_attributes_and_trim(context: Any, graph: Any, stream: Any) -> None:
    call(cu.cuDeviceGraphMemTrim, 0)
    before = attribute("RESERVED_MEM_CURRENT")
    node, address = allocation(graph, 8 * MIB)
    free(graph, address, fill(context, graph, address, 1, 8 * MIB, node))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphUpload, executable, stream)
    launch(executable, stream)
    assert attribute("RESERVED_MEM_CURRENT") >= before + 8 * MIB
    assert attribute("RESERVED_MEM_HIGH") >= before + 8 * MIB
    assert attribute("USED_MEM_HIGH") >= 8 * MIB
    call(cu.cuDeviceGraphMemTrim, 0)
    assert attribute("RESERVED_MEM_CURRENT") == before
    launch(executable, stream)
    call(cu.cuGraphExecDestroy, executable)
    for name in ("USED_MEM_HIGH", "RESERVED_MEM_HIGH"):
        high = getattr(ATTRIBUTE, f"CU_GRAPH_MEM_ATTR_{name}")
        call(cu.cuDeviceSetGraphMemAttribute, 0, high, cu.cuuint64_t(0))


def test_graphs_that_take_turns_share_the_memory(context: Any, stream: Any) -> None:
    """More in sum than the conformance device has; each runs alone."""
    _, total = call(cu.cuMemGetInfo)
    size = min(int(total) // 4, 64 * MIB)
    executables = []
    for _ in range(6):
        graph = call(cu.cuGraphCreate, 0)
        node, address = allocation(graph, size)
        free(graph, address, fill(context, graph, address, 1, 64, node))
        executables.append(call(cu.cuGraphInstantiate, graph, 0))
        call(cu.cuGraphDestroy, graph)
    for executable in executables * 2:
        launch(executable, stream)
    for executable in executables:
        call(cu.cuGraphExecDestroy, executable)
