# SPDX-License-Identifier: Apache-2.0
"""Memory operations of streams: write a value, wait for a value, batches."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
Wait = cu.CUstreamWaitValue_flags
Op = cu.CUstreamBatchMemOpType
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value


@pytest.fixture
def streams(context: Any, driver_call: Call) -> Iterator[list[Any]]:
    both = [driver_call(cu.cuStreamCreate, NON_BLOCKING) for _ in range(2)]
    yield both
    for stream in both:
        cu.cuStreamDestroy(stream)


@pytest.fixture
def words(context: Any, driver_call: Call) -> Iterator[Any]:
    """Eight 64-bit words of pinned memory, zero; their address is a device pointer."""
    address = int(driver_call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP))
    ctypes.memset(address, 0, 64)
    yield (ctypes.c_uint64 * 8).from_address(address)
    cu.cuMemFreeHost(address)


def at(words: Any, index: int) -> int:
    return ctypes.addressof(words) + 8 * index


def is_busy(stream: Any) -> bool:
    return bool(cu.cuStreamQuery(stream)[0] == cu.CUresult.CUDA_ERROR_NOT_READY)


def settles(stream: Any, seconds: float = 10.0) -> bool:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if not is_busy(stream):
            return True
        time.sleep(0.001)
    return False


def test_write(words: Any, streams: list[Any], driver_call: Call) -> None:
    driver_call(cu.cuStreamWriteValue32, streams[0], at(words, 0), 0xFFFFFFFF, 0)
    driver_call(cu.cuStreamWriteValue64, streams[0], at(words, 1), 1 << 40, 0)
    driver_call(cu.cuStreamSynchronize, streams[0])
    assert words[0] == 0xFFFFFFFF
    assert words[1] == 1 << 40


def test_write_to_device_memory(streams: list[Any], driver_call: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 64)
    driver_call(cu.cuMemsetD8Async, pointer, 0, 64, streams[0])
    driver_call(cu.cuStreamWriteValue32, streams[0], int(pointer) + 4, 77, 0)
    driver_call(cu.cuStreamSynchronize, streams[0])
    back = ctypes.create_string_buffer(12)
    driver_call(cu.cuMemcpyDtoH, ctypes.addressof(back), pointer, 12)
    assert list((ctypes.c_uint32 * 3).from_buffer(back)) == [0, 77, 0]


@pytest.mark.parametrize(
    ("flags", "value", "wrong", "right"),
    [
        (Wait.CU_STREAM_WAIT_VALUE_GEQ, 5, 4, 6),
        (Wait.CU_STREAM_WAIT_VALUE_GEQ, 0xFFFFFFF0, 0xFFFFFFE0, 3),  # cyclic
        (Wait.CU_STREAM_WAIT_VALUE_EQ, 5, 6, 5),
        (Wait.CU_STREAM_WAIT_VALUE_AND, 0b0110, 0b1001, 0b0010),
        (Wait.CU_STREAM_WAIT_VALUE_NOR, 0xFFFF0000, 0x0000FFFF, 0x00007FFF),
    ],
)
def test_wait_until_the_host_writes(
    flags: Any, value: int, wrong: int, right: int, words: Any, streams: list[Any], driver_call: Call
) -> None:
    word = ctypes.c_uint32.from_address(at(words, 0))
    word.value = wrong
    driver_call(cu.cuStreamWaitValue32, streams[0], at(words, 0), value, flags.value)
    driver_call(cu.cuStreamWriteValue32, streams[0], at(words, 1), 1, 0)
    time.sleep(0.03)
    assert is_busy(streams[0])
    assert words[1] == 0
    word.value = right
    assert settles(streams[0])
    assert words[1] == 1


def test_wait_on_64_bits(words: Any, streams: list[Any], driver_call: Call) -> None:
    words[0] = 3
    driver_call(
        cu.cuStreamWaitValue64, streams[0], at(words, 0), 1 << 33, Wait.CU_STREAM_WAIT_VALUE_GEQ.value
    )  # a 32-bit look would see 3 >= 0
    time.sleep(0.02)
    assert is_busy(streams[0])
    words[0] = (1 << 33) + 1
    assert settles(streams[0])


def test_wait_for_another_stream(words: Any, streams: list[Any], driver_call: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 4)
    driver_call(cu.cuMemsetD32, pointer, 0, 1)
    driver_call(cu.cuCtxSynchronize)
    driver_call(cu.cuStreamWaitValue32, streams[0], pointer, 9, Wait.CU_STREAM_WAIT_VALUE_EQ.value)
    driver_call(cu.cuStreamWriteValue32, streams[0], at(words, 0), 1, 0)
    assert is_busy(streams[0])
    driver_call(cu.cuStreamWriteValue32, streams[1], pointer, 9, 0)
    assert settles(streams[0])
    assert words[0] == 1


def operation(kind: Any, **fields: Any) -> Any:
    params = cu.CUstreamBatchMemOpParams()
    params.operation = kind
    part = "waitValue" if "WAIT" in kind.name else "writeValue"
    for name, value in {"operation": kind, **fields}.items():
        setattr(getattr(params, part), name, value)
    return params


def test_batch_in_order(words: Any, streams: list[Any], driver_call: Call) -> None:
    equal = Wait.CU_STREAM_WAIT_VALUE_EQ.value
    batch = [
        operation(Op.CU_STREAM_MEM_OP_WRITE_VALUE_32, address=at(words, 0), value=cu.cuuint32_t(1)),
        operation(Op.CU_STREAM_MEM_OP_WAIT_VALUE_32, address=at(words, 1), value=cu.cuuint32_t(1), flags=equal),
        operation(Op.CU_STREAM_MEM_OP_WRITE_VALUE_64, address=at(words, 2), value64=cu.cuuint64_t(1 << 35)),
    ]
    driver_call(cu.cuStreamBatchMemOp, streams[0], 3, batch, 0)
    limit = time.monotonic() + 10
    while words[0] == 0 and time.monotonic() < limit:
        time.sleep(0.001)
    assert words[0] == 1
    assert words[2] == 0
    words[1] = 1
    assert settles(streams[0])
    assert words[2] == 1 << 35


def test_arguments(words: Any, streams: list[Any], driver_call: Call, driver_result: Call) -> None:
    stream = streams[0]
    assert driver_result(cu.cuStreamWriteValue32, stream, at(words, 0) + 2, 1, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamWriteValue64, stream, at(words, 0) + 4, 1, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamWaitValue32, stream, 0, 1, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamWaitValue32, stream, at(words, 0), 1, 1 << 20) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamBatchMemOp, stream, 0, [], 0) == "INVALID_VALUE"
    write = operation(Op.CU_STREAM_MEM_OP_WRITE_VALUE_32, address=at(words, 0), value=cu.cuuint32_t(1))
    assert driver_result(cu.cuStreamBatchMemOp, stream, 1, [write], 1) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamBatchMemOp, stream, 256, [write] * 256, 0) == "INVALID_VALUE"
    driver_call(cu.cuStreamBatchMemOp, stream, 255, [write] * 255, 0)
    driver_call(cu.cuStreamSynchronize, stream)


def test_managed_memory_is_refused(streams: list[Any], driver_call: Call, driver_result: Call) -> None:
    pointer = driver_call(cu.cuMemAllocManaged, 64, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)
    assert driver_result(cu.cuStreamWriteValue32, streams[0], pointer, 1, 0) == "INVALID_VALUE"
    driver_call(cu.cuMemFree, pointer)


def test_flush_as_the_attribute_says(words: Any, streams: list[Any], driver_call: Call, driver_result: Call) -> None:
    words[0] = 1
    attribute = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CAN_FLUSH_REMOTE_WRITES
    expected = "SUCCESS" if driver_call(cu.cuDeviceGetAttribute, attribute, 0) else "NOT_SUPPORTED"
    flags = Wait.CU_STREAM_WAIT_VALUE_FLUSH.value | Wait.CU_STREAM_WAIT_VALUE_EQ.value
    assert driver_result(cu.cuStreamWaitValue32, streams[0], at(words, 0), 1, flags) == expected
