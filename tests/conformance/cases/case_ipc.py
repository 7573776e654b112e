# SPDX-License-Identifier: Apache-2.0
"""Memory and events of another process by legacy handles (cuIpc*)."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.peer import Channel

Call = Callable[..., Any]
MIB = 1 << 20
LAZY = cu.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.value
INTERPROCESS = cu.CUevent_flags.CU_EVENT_INTERPROCESS.value | cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value


def start() -> None:
    """A current context in the peer."""
    call(cu.cuInit, 0)
    call(cu.cuCtxSetCurrent, call(cu.cuDevicePrimaryCtxRetain, 0))


def filled(handle: Any, words: str) -> Any:
    ctypes.memmove(handle.getPtr(), bytes.fromhex(words), 64)
    return handle


def memory_handle(words: str) -> Any:
    return filled(cu.CUipcMemHandle(), words)


def event_handle(words: str) -> Any:
    return filled(cu.CUipcEventHandle(), words)


def raw(handle: Any) -> str:
    return ctypes.string_at(handle.getPtr(), 64).hex()


def byte_at(address: int) -> int:
    back = ctypes.create_string_buffer(1)
    call(cu.cuMemcpyDtoH, ctypes.addressof(back), address, 1)
    return back.raw[0]


def reader(channel: Channel) -> None:
    start()
    handle = memory_handle(channel.hear())
    pointer = int(call(cu.cuIpcOpenMemHandle, handle, LAZY))
    assert int(call(cu.cuIpcOpenMemHandle, handle, LAZY)) == pointer  # counted
    base, size = call(cu.cuMemGetAddressRange, pointer + 5)
    channel.say([byte_at(pointer), byte_at(pointer + 999), int(base) == pointer, size])
    call(cu.cuMemsetD8, pointer + 1, 0x77, 1)
    call(cu.cuCtxSynchronize)
    channel.say(result(cu.cuMemFree, pointer))
    call(cu.cuIpcCloseMemHandle, pointer)
    channel.say(byte_at(pointer))  # still open once
    call(cu.cuIpcCloseMemHandle, pointer)
    channel.say([result(cu.cuIpcCloseMemHandle, pointer), result(cu.cuMemcpyDtoH, channel_buffer(), pointer, 1)])


def channel_buffer() -> int:
    return ctypes.addressof(_buffer)


_buffer = ctypes.create_string_buffer(8)


def test_memory_of_another_process(context: Any, driver_call: Call, peer: Call) -> None:
    driver_call(cu.cuMemAlloc, 300)  # so that ours is not the first of its piece of memory
    pointer = driver_call(cu.cuMemAlloc, 1000)
    driver_call(cu.cuMemsetD8, pointer, 0x5A, 1000)
    driver_call(cu.cuCtxSynchronize)
    handle = driver_call(cu.cuIpcGetMemHandle, pointer)
    other = peer(reader)
    other.say(raw(handle))
    first, last, is_base, size = other.hear()
    assert (first, last, is_base) == (0x5A, 0x5A, True)
    assert size >= 1000
    assert other.hear() == "INVALID_VALUE"  # cuMemFree of what was not allocated there
    assert other.hear() == 0x5A
    assert byte_at(int(pointer) + 1) == 0x77
    assert other.hear() == ["INVALID_VALUE", "INVALID_VALUE"]
    assert other.wait() == 0


def test_memory_is_charged_once(context: Any, driver_call: Call, peer: Call) -> None:
    before, _ = driver_call(cu.cuMemGetInfo)
    pointer = driver_call(cu.cuMemAlloc, 16 * MIB)
    handle = driver_call(cu.cuIpcGetMemHandle, pointer)
    other = peer(holder)
    other.say(raw(handle))
    other.hear()
    during, _ = driver_call(cu.cuMemGetInfo)
    assert 16 * MIB <= before - during < 2 * 16 * MIB
    other.say("go")
    assert other.wait() == 0


def holder(channel: Channel) -> None:
    start()
    pointer = call(cu.cuIpcOpenMemHandle, memory_handle(channel.hear()), LAZY)
    channel.say("open")
    channel.hear()
    call(cu.cuIpcCloseMemHandle, pointer)


def closer(channel: Channel) -> None:
    start()
    context = call(cu.cuCtxGetCurrent)
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    pointer = int(call(cu.cuIpcOpenMemHandle, memory_handle(channel.hear()), LAZY))
    call(cu.cuCtxSetCurrent, 0)
    without = result(cu.cuIpcCloseMemHandle, pointer)
    call(cu.cuCtxSetCurrent, context)
    channel.say([without, byte_at(pointer)])
    call(cu.cuMemsetD8, pointer, 0x3C, 1000)
    call(cu.cuStreamBeginCapture, stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED)
    closed = [result(cu.cuIpcCloseMemHandle, pointer), result(cu.cuIpcCloseMemHandle, pointer)]
    channel.say([*closed, result(cu.cuStreamEndCapture, stream)])


def test_closed_without_a_context_and_beside_a_capture(context: Any, driver_call: Call, peer: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 1000)
    driver_call(cu.cuMemsetD8, pointer, 0x5A, 1000)
    driver_call(cu.cuCtxSynchronize)
    other = peer(closer)
    other.say(raw(driver_call(cu.cuIpcGetMemHandle, pointer)))
    assert other.hear() == ["INVALID_CONTEXT", 0x5A]  # it stays open
    assert other.hear() == ["SUCCESS", "INVALID_VALUE", "SUCCESS"]
    assert other.wait() == 0
    assert byte_at(int(pointer) + 999) == 0x3C


def test_arguments(context: Any, driver_call: Call, driver_result: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 1000)
    handle = driver_call(cu.cuIpcGetMemHandle, pointer)
    assert driver_result(cu.cuIpcOpenMemHandle, handle, LAZY) == "INVALID_CONTEXT"  # in the process that made it
    assert driver_result(cu.cuIpcOpenMemHandle, handle, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuIpcCloseMemHandle, pointer) == "INVALID_VALUE"
    second = driver_call(cu.cuIpcGetMemHandle, pointer)
    assert raw(second) == raw(handle)
    capable = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
    assert driver_call(cu.cuPointerGetAttribute, capable, pointer)


def test_other_memory_is_refused(context: Any, driver_call: Call, driver_result: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, 0)
    pool = driver_call(cu.cuMemAllocAsync, 4096, stream)
    managed = driver_call(cu.cuMemAllocManaged, 4096, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)
    for pointer in (pool, managed):
        assert driver_result(cu.cuIpcGetMemHandle, pointer) != "SUCCESS"
        capable = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
        assert not driver_call(cu.cuPointerGetAttribute, capable, pointer)
    driver_call(cu.cuMemFree, managed)


def exporter(channel: Channel) -> None:
    start()
    pointer = call(cu.cuMemAlloc, MIB)
    channel.say(raw(call(cu.cuIpcGetMemHandle, pointer)))
    channel.hear()


def test_exporter_has_gone(context: Any, driver_call: Call, driver_result: Call, peer: Call) -> None:
    other = peer(exporter)
    handle = memory_handle(other.hear())
    other.close()
    assert driver_result(cu.cuIpcOpenMemHandle, handle, LAZY) != "SUCCESS"


def waiter(channel: Channel) -> None:
    start()
    event = call(cu.cuIpcOpenEventHandle, event_handle(channel.hear()))
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    channel.say(result(cu.cuEventQuery, event))
    call(cu.cuStreamWaitEvent, stream, event, 0)
    channel.say(result(cu.cuStreamQuery, stream))
    call(cu.cuStreamSynchronize, stream)
    channel.say(result(cu.cuEventQuery, event))
    call(cu.cuEventSynchronize, event)
    channel.say(result(cu.cuEventElapsedTime, event, event))
    channel.hear()
    call(cu.cuEventRecord, event, stream)
    channel.say("recorded")
    call(cu.cuEventDestroy, event)


def test_event_of_another_process(context: Any, driver_call: Call, driver_result: Call, peer: Call) -> None:
    event = driver_call(cu.cuEventCreate, INTERPROCESS)
    gate = int(driver_call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP))
    ctypes.memset(gate, 0, 64)
    stream = driver_call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    driver_call(cu.cuStreamWaitValue32, stream, gate, 1, cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ.value)
    driver_call(cu.cuEventRecord, event, stream)
    other = peer(waiter)
    other.say(raw(driver_call(cu.cuIpcGetEventHandle, event)))
    assert other.hear() == "NOT_READY"
    assert other.hear() == "NOT_READY"
    assert driver_result(cu.cuEventQuery, event) == "NOT_READY"
    time.sleep(0.02)
    ctypes.c_uint32.from_address(gate).value = 1
    assert other.hear() == "SUCCESS"
    assert other.hear() == "INVALID_HANDLE"  # events without times
    other.say("go")
    assert other.hear() == "recorded"
    driver_call(cu.cuEventSynchronize, event)
    assert other.wait() == 0
    driver_call(cu.cuEventDestroy, event)


def test_event_arguments(context: Any, driver_call: Call, driver_result: Call) -> None:
    flags = cu.CUevent_flags
    assert driver_result(cu.cuEventCreate, flags.CU_EVENT_INTERPROCESS.value) == "INVALID_VALUE"  # with times
    plain = driver_call(cu.cuEventCreate, flags.CU_EVENT_DISABLE_TIMING.value)
    assert driver_result(cu.cuIpcGetEventHandle, plain) == "INVALID_HANDLE"


def recorder(channel: Channel) -> None:
    start()
    event = call(cu.cuIpcOpenEventHandle, event_handle(channel.hear()))
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    gate = call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP)
    ctypes.memset(int(gate), 0, 64)
    call(cu.cuStreamWaitValue32, stream, int(gate), 1, cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ.value)
    call(cu.cuEventRecord, event, stream)
    channel.say("recorded")
    channel.hear()


def test_killed_recorder_holds_nobody_up(
    target: Any, context: Any, driver_call: Call, driver_result: Call, peer: Call
) -> None:
    if target.name == "real":
        pytest.skip("not documented: a real driver may wait for ever")
    event = driver_call(cu.cuEventCreate, INTERPROCESS)
    other = peer(recorder)
    other.say(raw(driver_call(cu.cuIpcGetEventHandle, event)))
    other.hear()
    assert driver_result(cu.cuEventQuery, event) == "NOT_READY"
    other.close()
    driver_call(cu.cuEventSynchronize, event)
