# SPDX-License-Identifier: Apache-2.0
"""cuda.core's graphs: its builder (stream capture), its definitions (explicit nodes), conditions set by kernels."""

from __future__ import annotations

import ctypes
import gc
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu
from cuda.core import Device, GraphMemoryResource, LaunchConfig, Program, ProgramOptions, launch
from cuda.core.graph import GraphBuilder, GraphCompleteOptions, GraphDefinition

from support.driver_calls import call

SOURCE = """
extern "C" __device__ __cudart_builtin__ void CUDARTAPI
cudaGraphSetConditional(cudaGraphConditionalHandle handle, unsigned int value);
extern "C" __global__ void add(int *word, int value) { *word += value; }
extern "C" __global__ void affine(int *word, int factor, int summand) { *word = *word * factor + summand; }
extern "C" __global__ void combine(int *to, const int *high, const int *low) { *to = (*high << 16) | *low; }
extern "C" __global__ void set(cudaGraphConditionalHandle handle, unsigned value)
{
    cudaGraphSetConditional(handle, value);
}
extern "C" __global__ void count_to(int *word, int end, cudaGraphConditionalHandle handle)
{
    if (++*word >= end) cudaGraphSetConditional(handle, 0);
}
"""
ONE = LaunchConfig(grid=1, block=1)


class Rig:
    """A device with a stream, the kernels, and words that both sides see."""

    def __init__(self) -> None:
        self.device = Device()
        self.device.set_current()
        major, minor = self.device.compute_capability
        if major < 9:
            pytest.skip("conditional nodes need compute capability 9.0")
        program = Program(SOURCE, "c++", ProgramOptions(std="c++17", arch=f"sm_{major}{minor}"))
        self._code = program.compile("ptx")
        self.stream = self.device.create_stream()
        self.address = int(call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP))
        ctypes.memset(self.address, 0, 64)

    def kernel(self, name: str) -> Any:
        return self._code.get_kernel(name)

    def at(self, number: int) -> int:
        return self.address + 4 * number

    def word(self, number: int) -> int:
        return ctypes.c_int32.from_address(self.at(number)).value

    def run(self, graph: Any) -> None:
        graph.launch(self.stream)
        self.stream.sync()


@pytest.fixture
def rig(context: Any) -> Iterator[Rig]:
    made = Rig()
    yield made
    made.stream.close()
    call(cu.cuMemFreeHost, made.address)


def test_split_and_join(rig: Rig) -> None:
    builder = rig.device.create_graph_builder().begin_building()
    launch(builder, ONE, rig.kernel("add"), rig.at(0), 1)
    left, right = builder.split(2)
    launch(left, ONE, rig.kernel("add"), rig.at(1), 2)
    launch(right, ONE, rig.kernel("add"), rig.at(2), 3)
    joined = GraphBuilder.join(left, right)
    launch(joined, ONE, rig.kernel("add"), rig.at(0), 4)
    graph = joined.end_building().complete()
    for _ in range(3):
        rig.run(graph)
    assert [rig.word(n) for n in range(3)] == [15, 6, 9]


def test_embedded_builders(rig: Rig) -> None:
    child = rig.device.create_graph_builder().begin_building()
    launch(child, ONE, rig.kernel("add"), rig.at(1), 1)
    launch(child, ONE, rig.kernel("add"), rig.at(1), 1)
    child.end_building()
    parent = rig.device.create_graph_builder().begin_building()
    launch(parent, ONE, rig.kernel("add"), rig.at(0), 1)
    parent.embed(child)
    launch(parent, ONE, rig.kernel("add"), rig.at(0), 1)
    rig.run(parent.end_building().complete())
    assert (rig.word(0), rig.word(1)) == (2, 2)


def test_a_definition_runs_in_the_order_of_its_edges(rig: Rig) -> None:
    definition = GraphDefinition()
    high: Any = definition
    for factor, summand in ((2, 1), (3, 2), (5, 3)):
        high = high.launch(ONE, rig.kernel("affine"), rig.at(0), factor, summand)
    low: Any = definition
    for factor, summand in ((2, 7), (3, 1)):
        low = low.launch(ONE, rig.kernel("affine"), rig.at(1), factor, summand)
    joined = definition.join(high, low)
    joined.launch(ONE, rig.kernel("combine"), rig.at(2), rig.at(0), rig.at(1))
    assert len(definition.nodes()) == 7
    assert len(definition.edges()) == 6
    rig.run(definition.instantiate())
    assert rig.word(2) == (28 << 16) | 22


def test_if_set_by_a_kernel(rig: Rig) -> None:
    builder = rig.device.create_graph_builder().begin_building()
    condition = builder.create_condition(default_value=0)
    launch(builder, ONE, rig.kernel("set"), condition, 1)
    then = builder.if_then(condition).begin_building()
    launch(then, ONE, rig.kernel("add"), rig.at(0), 5)
    then.end_building()
    rig.run(builder.end_building().complete())
    assert rig.word(0) == 5


def test_while_until_a_kernel_ends_it(rig: Rig) -> None:
    definition = GraphDefinition()
    condition = definition.create_condition(default_value=1)
    loop = definition.while_loop(condition)
    loop.body.launch(ONE, rig.kernel("count_to"), rig.at(0), 10, condition)
    graph = definition.instantiate()
    rig.run(graph)
    assert rig.word(0) == 10
    rig.run(graph)
    assert rig.word(0) == 11


def test_update_with_another_switch(rig: Rig) -> None:
    def build(value: int) -> Any:
        builder = rig.device.create_graph_builder().begin_building()
        branches = builder.switch(builder.create_condition(default_value=value), 2)
        for number, branch in enumerate(branches):
            branch.begin_building()
            launch(branch, ONE, rig.kernel("add"), rig.at(number), 1)
            branch.end_building()
        return builder.end_building()

    first, second = build(0), build(1)
    graph = first.complete()
    rig.run(graph)
    assert (rig.word(0), rig.word(1)) == (1, 0)
    graph.update(second)
    rig.run(graph)
    assert (rig.word(0), rig.word(1)) == (1, 1)


def test_python_call_backs_live_as_long_as_the_graph(rig: Rig) -> None:
    called = threading.Event()
    builder = rig.stream.create_graph_builder().begin_building()
    builder.callback(lambda: called.set())
    graph = builder.end_building().complete()
    del builder
    gc.collect()
    rig.run(graph)
    assert called.is_set()


def test_graph_memory(rig: Rig) -> None:
    resource = GraphMemoryResource(rig.device)
    builder = rig.device.create_graph_builder().begin_building("relaxed")
    buffer = resource.allocate(64, stream=builder)
    buffer.fill(3, stream=builder)
    graph = builder.end_building().complete(GraphCompleteOptions(auto_free_on_launch=True))
    for _ in range(2):
        graph.upload(rig.stream)
        rig.run(graph)
    target = (ctypes.c_uint8 * 64)()
    call(cu.cuMemcpyDtoH, ctypes.addressof(target), int(buffer.handle), 64)
    assert bytes(target) == b"\x03" * 64
    assert resource.attributes.used_mem_high > 0
    buffer.close(stream=rig.stream)
    rig.stream.sync()
    resource.trim()
