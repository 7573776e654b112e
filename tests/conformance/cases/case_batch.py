# SPDX-License-Identifier: Apache-2.0
"""Batches of copies, and copies with attributes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
Order = cu.CUmemcpySrcAccessOrder
Operand = cu.CUmemcpy3DOperandType
STREAM = Order.CU_MEMCPY_SRC_ACCESS_ORDER_STREAM
DURING = Order.CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL
ANY = Order.CU_MEMCPY_SRC_ACCESS_ORDER_ANY
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value


@pytest.fixture
def stream(context: Any, driver_call: Call) -> Iterator[Any]:
    made = driver_call(cu.cuStreamCreate, NON_BLOCKING)
    yield made
    cu.cuStreamDestroy(made)


def attributes(order: Any = STREAM, flags: int = 0) -> Any:
    made = cu.CUmemcpyAttributes()
    made.srcAccessOrder, made.flags = order, flags
    return made


def pointers(*addresses: Any) -> list[Any]:
    return [cu.CUdeviceptr(int(address)) for address in addresses]


def test_batch(stream: Any, driver_call: Call) -> None:
    sources: list[Any] = [np.full(1000, fill, dtype=np.uint32) for fill in (1, 2, 3)]
    middle = [driver_call(cu.cuMemAlloc, 4000) for _ in sources]
    back: Any = np.zeros((3, 1000), dtype=np.uint32)
    froms = pointers(*(s.ctypes.data for s in sources))
    given = [attributes(STREAM), attributes(DURING)]
    driver_call(cu.cuMemcpyBatchAsync, pointers(*middle), froms, [4000] * 3, 3, given, [0, 2], 2, stream)
    tos = pointers(*(back.ctypes.data + 4000 * i for i in range(3)))
    driver_call(cu.cuMemcpyBatchAsync, tos, pointers(*middle), [4000] * 3, 3, [attributes()], [0], 1, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert [(row == row[0]).all() and int(row[0]) for row in back] == [1, 2, 3]


@pytest.mark.parametrize(
    ("given", "first", "count"),
    [
        ([attributes()], [1], 1),  # must begin at 0
        ([attributes(), attributes()], [0, 0], 2),  # must grow
        ([attributes(), attributes()], [0, 2], 2),  # beyond the last copy
        ([attributes(Order.CU_MEMCPY_SRC_ACCESS_ORDER_INVALID)], [0], 1),
        ([attributes(STREAM, 0x80)], [0], 1),
    ],
)
def test_wrong_attributes(
    given: Any, first: Any, count: int, stream: Any, driver_call: Call, driver_result: Call
) -> None:
    one = driver_call(cu.cuMemAlloc, 256)
    two = driver_call(cu.cuMemAlloc, 256)
    arguments = (pointers(one, one), pointers(two, two), [128, 128], 2, given, first, count, stream)
    assert driver_result(cu.cuMemcpyBatchAsync, *arguments) == "INVALID_VALUE"


def test_no_legacy_stream(stream: Any, driver_call: Call, driver_result: Call) -> None:
    one = driver_call(cu.cuMemAlloc, 256)
    two = driver_call(cu.cuMemAlloc, 256)
    arguments = (pointers(one), pointers(two), [128], 1, [attributes()], [0], 1)
    assert driver_result(cu.cuMemcpyBatchAsync, *arguments, 0) == "INVALID_VALUE"
    driver_call(cu.cuMemcpyBatchAsync, *arguments, stream)


def test_source_is_read_during_the_call(stream: Any, driver_call: Call) -> None:
    """Pinned memory may be changed at once, even if the stream is not there yet."""
    pinned = int(driver_call(cu.cuMemHostAlloc, 8192, 0))
    gate = int(driver_call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP))
    ctypes.memset(gate, 0, 64)
    ctypes.memset(pinned, 7, 4096)
    pointer = driver_call(cu.cuMemAlloc, 4096)
    driver_call(cu.cuStreamWaitValue32, stream, gate, 1, cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ.value)
    driver_call(cu.cuMemcpyWithAttributesAsync, pointer, pinned, 4096, attributes(DURING), stream)
    ctypes.memset(pinned, 9, 4096)
    ctypes.c_uint32.from_address(gate).value = 1
    driver_call(cu.cuMemcpyAsync, pinned + 4096, pointer, 4096, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert ctypes.string_at(pinned + 4096, 4096) == b"\x07" * 4096
    driver_call(cu.cuMemFreeHost, pinned)
    driver_call(cu.cuMemFreeHost, gate)


@pytest.mark.parametrize("order", [STREAM, DURING, ANY])
def test_single_copy(order: Any, stream: Any, driver_call: Call) -> None:
    source: Any = np.arange(5000, dtype=np.uint8)
    back: Any = np.zeros_like(source)
    pointer = driver_call(cu.cuMemAlloc, 5000)
    driver_call(cu.cuMemcpyWithAttributesAsync, pointer, source.ctypes.data, 5000, attributes(order), stream)
    driver_call(cu.cuMemcpyWithAttributesAsync, back.ctypes.data, pointer, 5000, attributes(order), stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert np.array_equal(source, back)


def at_pointer(address: Any, row: int = 0, height: int = 0) -> Any:
    operand = cu.CUmemcpy3DOperand()
    operand.type = Operand.CU_MEMCPY_OPERAND_TYPE_POINTER
    operand.op.ptr.ptr = cu.CUdeviceptr(int(address))
    operand.op.ptr.rowLength, operand.op.ptr.layerHeight = row, height
    return operand


def at_array(array: Any, x: int = 0, y: int = 0, z: int = 0) -> Any:
    operand = cu.CUmemcpy3DOperand()
    operand.type = Operand.CU_MEMCPY_OPERAND_TYPE_ARRAY
    operand.op.array.array = array
    operand.op.array.offset.x, operand.op.array.offset.y, operand.op.array.offset.z = x, y, z
    return operand


def solid(src: Any, dst: Any, width: int, height: int, depth: int, order: Any = STREAM) -> Any:
    op = cu.CUDA_MEMCPY3D_BATCH_OP()
    op.src, op.dst, op.srcAccessOrder = src, dst, order
    op.extent.width, op.extent.height, op.extent.depth = width, height, depth
    return op


def test_solids(stream: Any, driver_call: Call) -> None:
    source: Any = np.arange(3 * 4 * 6, dtype=np.float32).reshape(3, 4, 6)
    back: Any = np.zeros_like(source)
    descriptor = cu.CUDA_ARRAY3D_DESCRIPTOR()
    descriptor.Width, descriptor.Height, descriptor.Depth = 6, 4, 3
    descriptor.Format, descriptor.NumChannels = cu.CUarray_format.CU_AD_FORMAT_FLOAT, 1
    array = driver_call(cu.cuArray3DCreate, descriptor)
    pointer = driver_call(cu.cuMemAlloc, source.nbytes)
    fill = [solid(at_pointer(source.ctypes.data), at_array(array), 6, 4, 3)]
    driver_call(cu.cuMemcpy3DBatchAsync, 1, fill, 0, stream)
    both = [
        solid(at_array(array), at_pointer(pointer), 6, 4, 3),
        solid(at_array(array, 2, 1, 1), at_pointer(back.ctypes.data, 6, 4), 3, 2, 2),
    ]
    driver_call(cu.cuMemcpy3DBatchAsync, 2, both, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert np.array_equal(back[:2, :2, :3], source[1:3, 1:3, 2:5])
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, pointer, back.nbytes)
    assert np.array_equal(back, source)


@pytest.mark.parametrize(
    ("width", "row", "order"), [(0, 0, STREAM), (16, 8, STREAM), (16, 0, Order.CU_MEMCPY_SRC_ACCESS_ORDER_INVALID)]
)
def test_wrong_solids(width: int, row: int, order: Any, stream: Any, driver_call: Call, driver_result: Call) -> None:
    one = driver_call(cu.cuMemAlloc, 4096)
    two = driver_call(cu.cuMemAlloc, 4096)
    op = solid(at_pointer(one, row), at_pointer(two), width, 2, 2, order)
    assert driver_result(cu.cuMemcpy3DBatchAsync, 1, [op], 0, stream) == "INVALID_VALUE"
