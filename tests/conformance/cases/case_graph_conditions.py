# SPDX-License-Identifier: Apache-2.0
"""Conditional nodes with the condition's first value (kernels set it in case_graph_builder.py)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.gate import Gate

TYPE = cu.CUgraphNodeType


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)


@pytest.fixture
def graph(context: Any) -> Iterator[Any]:
    made = call(cu.cuGraphCreate, 0)
    yield made
    call(cu.cuGraphDestroy, made)


def store(gate: Gate, graph: Any, number: int, value: int) -> Any:
    return call(cu.cuGraphAddKernelNode, graph, None, 0, gate.store_params(number, value))


def run(graph: Any, stream: Any) -> None:
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphLaunch, executable, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuGraphExecDestroy, executable)


def condition_node(graph: Any, context: Any, kind: Any, value: int, size: int) -> tuple[Any, list[Any]]:
    handle = call(cu.cuGraphConditionalHandleCreate, graph, context, value, cu.CU_GRAPH_COND_ASSIGN_DEFAULT)
    params = cu.CUgraphNodeParams()
    params.type = TYPE.CU_GRAPH_NODE_TYPE_CONDITIONAL
    params.conditional.handle = handle
    params.conditional.type = kind
    params.conditional.size = size
    params.conditional.ctx = context
    node = call(cu.cuGraphAddNode, graph, None, None, 0, params)
    return node, list(params.conditional.phGraph_out)[:size]


@pytest.mark.parametrize(("value", "expected"), [(1, [1, 0]), (0, [0, 1])])
def test_if_else(context: Any, gate: Gate, graph: Any, stream: Any, value: int, expected: list[int]) -> None:
    kind = cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_IF
    _, (then, otherwise) = condition_node(graph, context, kind, value, 2)
    store(gate, then, 2, 1)
    store(gate, otherwise, 3, 1)
    run(graph, stream)
    assert [gate.word(n).value for n in (2, 3)] == expected


@pytest.mark.parametrize(("value", "expected"), [(0, [1, 0, 0]), (2, [0, 0, 1]), (7, [0, 0, 0])])
def test_switch(context: Any, gate: Gate, graph: Any, stream: Any, value: int, expected: list[int]) -> None:
    kind = cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_SWITCH
    _, branches = condition_node(graph, context, kind, value, 3)
    for number, branch in enumerate(branches):
        store(gate, branch, 2 + number, 1)
    run(graph, stream)
    assert [gate.word(n).value for n in (2, 3, 4)] == expected


def test_conditions_belong_to_their_graph(context: Any, graph: Any) -> None:
    other = call(cu.cuGraphCreate, 0)
    handle = call(cu.cuGraphConditionalHandleCreate, other, context, 0, 0)
    params = cu.CUgraphNodeParams()
    params.type = TYPE.CU_GRAPH_NODE_TYPE_CONDITIONAL
    params.conditional.handle = handle
    params.conditional.type = cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_IF
    params.conditional.size = 1
    params.conditional.ctx = context
    assert result(cu.cuGraphAddNode, graph, None, None, 0, params) == "INVALID_VALUE"
    call(cu.cuGraphDestroy, other)


def test_restrictions_of_graphs_with_conditions(context: Any, gate: Gate, graph: Any) -> None:
    kind = cu.CUgraphConditionalNodeType.CU_GRAPH_COND_TYPE_WHILE
    _, (body,) = condition_node(graph, context, kind, 0, 1)
    store(gate, body, 2, 1)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    assert result(cu.cuGraphInstantiate, graph, 0) != "SUCCESS"
    assert result(cu.cuGraphInstantiate, body, 0) != "SUCCESS"
    assert result(cu.cuGraphDestroy, body) != "SUCCESS"
    assert result(cu.cuGraphClone, graph) != "SUCCESS"
    call(cu.cuGraphExecDestroy, executable)


def test_an_unused_handle(context: Any, graph: Any) -> None:
    """Documented: "may cause graph instantiation to fail"; the reason is then this one."""
    call(cu.cuGraphConditionalHandleCreate, graph, context, 0, 0)
    params = cu.CUDA_GRAPH_INSTANTIATE_PARAMS()
    answer, executable = cu.cuGraphInstantiateWithParams(graph, params)
    if answer == cu.CUresult.CUDA_SUCCESS:
        call(cu.cuGraphExecDestroy, executable)
    else:
        assert params.result_out == cu.CUgraphInstantiateResult.CUDA_GRAPH_INSTANTIATE_CONDITIONAL_HANDLE_UNUSED
