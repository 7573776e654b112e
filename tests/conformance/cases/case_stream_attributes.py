# SPDX-License-Identifier: Apache-2.0
"""Attributes of streams, and the launch attribute that records an event."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.gate import Gate

NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
ID = cu.CUlaunchAttributeID
PRIORITY = ID.CU_LAUNCH_ATTRIBUTE_PRIORITY
POLICY = ID.CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreateWithPriority, NON_BLOCKING, -1)


def test_reading_and_setting(stream: Any) -> None:
    assert call(cu.cuStreamGetAttribute, stream, PRIORITY).priority == -1
    assert call(cu.cuStreamGetAttribute, stream, POLICY).syncPolicy == cu.CUsynchronizationPolicy.CU_SYNC_POLICY_AUTO
    value = cu.CUstreamAttrValue()
    value.syncPolicy = cu.CUsynchronizationPolicy.CU_SYNC_POLICY_BLOCKING_SYNC
    call(cu.cuStreamSetAttribute, stream, POLICY, value)
    assert call(cu.cuStreamGetAttribute, stream, POLICY).syncPolicy == value.syncPolicy


def test_copying(stream: Any) -> None:
    other = call(cu.cuStreamCreate, NON_BLOCKING)
    value = cu.CUstreamAttrValue()
    value.syncPolicy = cu.CUsynchronizationPolicy.CU_SYNC_POLICY_YIELD
    call(cu.cuStreamSetAttribute, stream, POLICY, value)
    call(cu.cuStreamCopyAttributes, other, stream)
    assert call(cu.cuStreamGetAttribute, other, POLICY).syncPolicy == value.syncPolicy


def test_attributes_of_launches_only(stream: Any) -> None:
    cooperative = ID.CU_LAUNCH_ATTRIBUTE_COOPERATIVE
    assert result(cu.cuStreamGetAttribute, stream, cooperative) == "INVALID_VALUE"


def test_captured_kernels_take_the_priority_along(gate: Gate, stream: Any) -> None:
    call(cu.cuStreamBeginCapture, stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    gate.store(stream, 2, 1)
    graph = call(cu.cuStreamEndCapture, stream)
    nodes, _ = call(cu.cuGraphGetNodes, graph, 1)
    assert call(cu.cuGraphKernelNodeGetAttribute, nodes[0], PRIORITY).priority == -1
    call(cu.cuGraphDestroy, graph)


def test_an_event_recorded_by_the_launch(gate: Gate, stream: Any) -> None:
    event = call(cu.cuEventCreate, cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)
    attribute = cu.CUlaunchAttribute()
    attribute.id = ID.CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT
    attribute.value.launchCompletionEvent.event = event
    config = cu.CUlaunchConfig()
    config.gridDimX = config.gridDimY = config.gridDimZ = 1
    config.blockDimX = config.blockDimY = config.blockDimZ = 1
    config.hStream, config.attrs, config.numAttrs = stream, [attribute], 1
    params = gate.store_params(2, 4)
    gate.wait(stream)
    arguments = ((gate.address + 8, 4), (ctypes.c_void_p, ctypes.c_uint32))
    call(cu.cuLaunchKernelEx, config, params.func, arguments, 0)
    assert result(cu.cuEventQuery, event) == "NOT_READY"
    gate.open()
    call(cu.cuEventSynchronize, event)
    call(cu.cuStreamSynchronize, stream)
    assert gate.word(2).value == 4
