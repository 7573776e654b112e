# SPDX-License-Identifier: Apache-2.0
"""Copies and fills: all directions, planes and volumes with offsets, zero sizes, bad pointers, asynchrony."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.gate import Gate

HOST, DEVICE, UNIFIED = (
    cu.CUmemorytype.CU_MEMORYTYPE_HOST,
    cu.CUmemorytype.CU_MEMORYTYPE_DEVICE,
    cu.CUmemorytype.CU_MEMORYTYPE_UNIFIED,
)
SIZE = 1 << 16


@pytest.fixture
def device(context: Any) -> int:
    pointer = int(call(cu.cuMemAlloc, SIZE))
    call(cu.cuMemsetD8, pointer, 0, SIZE)
    call(cu.cuCtxSynchronize)
    return pointer


@pytest.fixture
def stream(context: Any) -> Any:
    return call(cu.cuStreamCreate, 1)


def put(address: int, values: Any) -> None:
    call(cu.cuMemcpyHtoD, address, values.ctypes.data, values.nbytes)


def fetch(address: int, count: int, kind: Any = np.uint8) -> Any:
    values: Any = np.zeros(count, dtype=kind)
    call(cu.cuMemcpyDtoH, values.ctypes.data, address, values.nbytes)
    return values


def test_zero_bytes(device: int) -> None:
    call(cu.cuMemcpyHtoD, device, 0, 0)
    call(cu.cuMemcpyDtoH, 0, device, 0)
    call(cu.cuMemcpyDtoD, device, device, 0)
    call(cu.cuMemsetD8, device, 1, 0)
    assert not fetch(device, 16).any()


def test_bad_pointers(device: int) -> None:
    host: Any = np.zeros(16, dtype=np.uint8)
    assert result(cu.cuMemcpyHtoD, 0, host.ctypes.data, 16) == "INVALID_VALUE"
    assert result(cu.cuMemcpyDtoH, host.ctypes.data, 0, 16) == "INVALID_VALUE"
    assert result(cu.cuMemcpyDtoD, device, 0, 16) == "INVALID_VALUE"
    assert result(cu.cuMemcpyHtoD, host.ctypes.data, host.ctypes.data, 16) in ("INVALID_VALUE", "SUCCESS")
    assert result(cu.cuMemsetD8, 0, 1, 16) == "INVALID_VALUE"
    call(cu.cuCtxSynchronize)


def test_freed_memory(device: int) -> None:
    host: Any = np.zeros(16, dtype=np.uint8)
    call(cu.cuMemFree, device)
    assert result(cu.cuMemcpyHtoD, device, host.ctypes.data, 16) == "INVALID_VALUE"
    call(cu.cuCtxSynchronize)


def test_beyond_the_end(context: Any) -> None:
    """A range that leaves its allocation, and all others, is refused or fails; it never succeeds."""
    pointer = int(call(cu.cuMemAlloc, 1 << 20))
    host: Any = np.zeros(1 << 20, dtype=np.uint8)
    size = int(call(cu.cuMemGetAddressRange, pointer)[1])
    assert result(cu.cuMemcpyDtoH, host.ctypes.data, pointer + size - 8, 1 << 19) in (
        "INVALID_VALUE",
        "ILLEGAL_ADDRESS",
    )


def test_asynchronous_in_all_directions(device: int, stream: Any) -> None:
    source: Any = np.arange(SIZE // 8, dtype=np.uint32)
    back: Any = np.zeros_like(source)
    half = device + source.nbytes
    call(cu.cuMemcpyHtoDAsync, device, source.ctypes.data, source.nbytes, stream)
    call(cu.cuMemcpyDtoDAsync, half, device, source.nbytes, stream)
    call(cu.cuMemcpyDtoHAsync, back.ctypes.data, half, source.nbytes, stream)
    call(cu.cuStreamSynchronize, stream)
    assert np.array_equal(source, back)
    call(cu.cuMemcpyAsync, half, device, source.nbytes, stream)
    call(cu.cuStreamSynchronize, stream)
    assert np.array_equal(fetch(half, source.size, np.uint32), source)


def test_pageable_source_may_change_at_once(gate: Gate, device: int, stream: Any) -> None:
    """A copy from pageable memory has read it when it returns, be the stream blocked or not."""
    source: Any = np.full(1024, 7, dtype=np.uint8)
    gate.wait(stream)
    call(cu.cuMemcpyHtoDAsync, device, source.ctypes.data, source.nbytes, stream)
    source[:] = 9
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert (fetch(device, 1024) == 7).all()


def test_pinned_copies_do_not_wait(gate: Gate, device: int, stream: Any) -> None:
    pinned = int(call(cu.cuMemAllocHost, 4096))
    ctypes.memset(pinned, 5, 4096)
    gate.wait(stream)
    call(cu.cuMemcpyHtoDAsync, device, pinned, 4096, stream)
    assert result(cu.cuStreamQuery, stream) == "NOT_READY"
    gate.open()
    call(cu.cuStreamSynchronize, stream)
    assert (fetch(device, 4096) == 5).all()
    assert call(cu.cuMemHostGetFlags, pinned) >= 0
    call(cu.cuMemFreeHost, pinned)


def plane_of(kind: Any, address: int, pitch: int, x: int, y: int, plane: Any, side: str) -> None:
    setattr(plane, f"{side}MemoryType", kind)
    setattr(plane, f"{side}Host" if kind == HOST else f"{side}Device", address)
    setattr(plane, f"{side}Pitch", pitch)
    setattr(plane, f"{side}XInBytes", x)
    setattr(plane, f"{side}Y", y)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_part_of_a_plane(device: int, stream: Any, asynchronous: bool) -> None:
    source: Any = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    plane = cu.CUDA_MEMCPY2D()
    plane_of(HOST, source.ctypes.data, 60, 7, 3, plane, "src")
    plane_of(DEVICE, device, 128, 16, 2, plane, "dst")
    plane.WidthInBytes, plane.Height = 21, 10
    if asynchronous:
        call(cu.cuMemcpy2DAsync, plane, stream)
        call(cu.cuStreamSynchronize, stream)
    else:
        call(cu.cuMemcpy2D, plane)
    expected: Any = np.zeros((32, 128), dtype=np.uint8)
    expected[2:12, 16:37] = source[3:13, 7:28]
    assert np.array_equal(fetch(device, 32 * 128).reshape(32, 128), expected)


def test_wrong_planes(device: int) -> None:
    source: Any = np.zeros(4096, dtype=np.uint8)

    def answer(**changes: Any) -> str:
        plane = cu.CUDA_MEMCPY2D()
        plane_of(HOST, source.ctypes.data, 64, 0, 0, plane, "src")
        plane_of(DEVICE, device, 64, 0, 0, plane, "dst")
        plane.WidthInBytes, plane.Height = 32, 4
        for name, value in changes.items():
            setattr(plane, name, value)
        return result(cu.cuMemcpy2D, plane)

    assert answer() == "SUCCESS"
    assert answer(WidthInBytes=0) == "SUCCESS"
    assert answer(Height=0) == "SUCCESS"
    assert answer(srcPitch=16) == "INVALID_VALUE"
    assert answer(dstPitch=16) == "INVALID_VALUE"
    assert answer(dstXInBytes=40) == "INVALID_VALUE"
    assert answer(dstDevice=0) == "INVALID_VALUE"
    assert native("cuMemcpy2D_v2")(None) == "INVALID_VALUE"
    assert native("cuMemcpy3D_v2")(None) == "INVALID_VALUE"


def test_sizes_that_overflow(device: int, stream: Any) -> None:
    """More than there are addresses: refused, never cut to what is left of the number."""
    host: Any = np.zeros(4096, dtype=np.uint8)
    huge = 1 << 63
    for unit, fill in ((2, "16"), (4, "32")):
        count = (1 << 64) // unit + 1  # one unit, by 64 bits
        assert native(f"cuMemsetD{fill}_v2")(device, 1, count) == "INVALID_VALUE"
        assert native(f"cuMemsetD{fill}Async")(device, 1, count, None) == "INVALID_VALUE"
        assert native(f"cuMemsetD2D{fill}_v2")(device, 0, 1, count, 1) == "INVALID_VALUE"
    assert native("cuMemsetD2D8_v2")(device, huge, 1, 16, 3) == "INVALID_VALUE"
    assert native("cuMemsetD2D8_v2")(device, 256, 1, 16, (1 << 56) + 1) == "INVALID_VALUE"
    for side in ("src", "dst"):
        for changes in ({"Depth": (1 << 52) + 1}, {f"{side}Z": 1 << 52}, {f"{side}Y": 1 << 58}):
            volume = cu.CUDA_MEMCPY3D()
            plane_of(HOST if side == "dst" else DEVICE, device, 64, 0, 0, volume, "src")
            plane_of(DEVICE, device, 64, 0, 0, volume, "dst")
            volume.srcHost, volume.srcHeight, volume.dstHeight = host.ctypes.data, 64, 64
            volume.WidthInBytes, volume.Height, volume.Depth = 16, 1, 1
            for name, value in changes.items():
                setattr(volume, name, value)
            assert result(cu.cuMemcpy3DAsync, volume, stream) == "INVALID_VALUE", (side, changes)
    call(cu.cuCtxSynchronize)
    assert not fetch(device, SIZE).any()


def test_half_known_is_not_host_memory(context: Any, stream: Any) -> None:
    """Documented: a range is all registered or allocated, or not at all. What goes beyond is no pageable memory."""
    device, other = (int(call(cu.cuMemAlloc, 4 << 20)) for _ in range(2))
    pinned = int(call(cu.cuMemHostAlloc, 1 << 16, 0))
    beyond = 5 << 20
    host: Any = np.zeros(beyond, dtype=np.uint8)
    assert result(cu.cuMemcpy, device, host.ctypes.data, beyond) == "INVALID_VALUE"
    assert result(cu.cuMemcpy, host.ctypes.data, device, beyond) == "INVALID_VALUE"
    assert result(cu.cuMemcpyAsync, device, other, beyond, stream) == "INVALID_VALUE"
    assert result(cu.cuMemcpyAsync, other, host.ctypes.data, 1 << 40, stream) == "INVALID_VALUE"
    assert result(cu.cuMemcpyHtoD, device, pinned, 1 << 20) == "INVALID_VALUE"
    assert result(cu.cuMemcpyDtoHAsync, pinned, device, 1 << 20, stream) == "INVALID_VALUE"
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuMemFreeHost, pinned)


def test_null_is_no_host_memory(device: int, stream: Any) -> None:
    for size in (16, 4096):
        assert native("cuMemcpyHtoD_v2")(device, None, size) == "INVALID_VALUE"
        assert native("cuMemcpyDtoH_v2")(None, device, size) == "INVALID_VALUE"
        assert result(cu.cuMemcpyHtoDAsync, device, 0, size, stream) == "INVALID_VALUE"
        assert result(cu.cuMemcpyDtoHAsync, 0, device, size, stream) == "INVALID_VALUE"
        assert result(cu.cuMemcpy, device, 0, size) == "INVALID_VALUE"
        assert result(cu.cuMemcpyAsync, 0, device, size, stream) == "INVALID_VALUE"
    call(cu.cuStreamSynchronize, stream)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_part_of_a_volume(device: int, stream: Any, asynchronous: bool) -> None:
    source: Any = np.arange(4 * 6 * 16, dtype=np.uint8).reshape(4, 6, 16)
    volume = cu.CUDA_MEMCPY3D()
    plane_of(HOST, source.ctypes.data, 16, 3, 1, volume, "src")
    plane_of(DEVICE, device, 32, 4, 2, volume, "dst")
    volume.srcHeight, volume.dstHeight = 6, 8
    volume.srcZ, volume.dstZ = 1, 0
    volume.WidthInBytes, volume.Height, volume.Depth = 9, 3, 2
    if asynchronous:
        call(cu.cuMemcpy3DAsync, volume, stream)
        call(cu.cuStreamSynchronize, stream)
    else:
        call(cu.cuMemcpy3D, volume)
    expected: Any = np.zeros((4, 8, 32), dtype=np.uint8)
    expected[0:2, 2:5, 4:13] = source[1:3, 1:4, 3:12]
    assert np.array_equal(fetch(device, 4 * 8 * 32).reshape(4, 8, 32), expected)


def test_unified_addresses_tell_where_they_are(device: int) -> None:
    source: Any = np.arange(256, dtype=np.uint8)
    plane = cu.CUDA_MEMCPY2D()
    plane.srcMemoryType, plane.srcDevice, plane.srcPitch = UNIFIED, source.ctypes.data, 16
    plane.dstMemoryType, plane.dstDevice, plane.dstPitch = UNIFIED, device, 16
    plane.WidthInBytes, plane.Height = 16, 16
    call(cu.cuMemcpy2DUnaligned, plane)
    assert np.array_equal(fetch(device, 256), source)


def test_between_contexts(context: Any, device: int, stream: Any) -> None:
    put(device, np.arange(64, dtype=np.uint32))
    other = call(cu.cuCtxCreate, None, 0, 0)
    there = int(call(cu.cuMemAlloc, 256))
    call(cu.cuMemcpyPeer, there, other, device, context, 256)
    assert fetch(there, 64, np.uint32).tolist() == list(range(64))
    call(cu.cuMemsetD32, there, 3, 64)
    call(cu.cuCtxSynchronize)
    call(cu.cuCtxPopCurrent)
    call(cu.cuMemcpyPeerAsync, device, context, there, other, 256, stream)
    call(cu.cuStreamSynchronize, stream)
    assert (fetch(device, 64, np.uint32) == 3).all()
    call(cu.cuCtxDestroy, other)


@pytest.mark.parametrize(
    ("fill", "later", "plane", "plane_later", "bytes_", "value"),
    [
        ("cuMemsetD8", "cuMemsetD8Async", "cuMemsetD2D8", "cuMemsetD2D8Async", 1, 0xA1),
        ("cuMemsetD16", "cuMemsetD16Async", "cuMemsetD2D16", "cuMemsetD2D16Async", 2, 0xA1B2),
        ("cuMemsetD32", "cuMemsetD32Async", "cuMemsetD2D32", "cuMemsetD2D32Async", 4, 0xA1B2C3D4),
    ],
)
def test_fills(
    device: int, stream: Any, fill: str, later: str, plane: str, plane_later: str, bytes_: int, value: int
) -> None:
    kind = {1: np.uint8, 2: np.uint16, 4: np.uint32}[bytes_]
    expected: Any = np.zeros(1024, dtype=kind)
    call(getattr(cu, fill), device + 4 * bytes_, value, 10)
    expected[4:14] = value
    call(getattr(cu, later), device + 20 * bytes_, value, 3, stream)
    expected[20:23] = value
    call(getattr(cu, plane), device + 256 * bytes_, 64 * bytes_, value, 5, 4)
    call(getattr(cu, plane_later), device + 512 * bytes_, 64 * bytes_, value, 7, 2, stream)
    call(cu.cuStreamSynchronize, stream)
    for start, width, height in ((256, 5, 4), (512, 7, 2)):
        for row in range(height):
            expected[start + 64 * row : start + 64 * row + width] = value
    assert np.array_equal(fetch(device, 1024, kind), expected)
    if bytes_ > 1:
        assert result(getattr(cu, fill), device + 1, value, 4) == "INVALID_VALUE"
        assert result(getattr(cu, plane), device + 1, 64 * bytes_, value, 4, 2) == "INVALID_VALUE"


def test_all_fills_by_name(device: int, stream: Any) -> None:
    """The names again, so that the table of covered functions sees them."""
    for function in (cu.cuMemsetD8, cu.cuMemsetD16, cu.cuMemsetD32):
        call(function, device, 0, 1)
    for function in (cu.cuMemsetD8Async, cu.cuMemsetD16Async, cu.cuMemsetD32Async):
        call(function, device, 0, 1, stream)
    for function in (cu.cuMemsetD2D8, cu.cuMemsetD2D16, cu.cuMemsetD2D32):
        call(function, device, 64, 0, 1, 1)
    for function in (cu.cuMemsetD2D8Async, cu.cuMemsetD2D16Async, cu.cuMemsetD2D32Async):
        call(function, device, 64, 0, 1, 1, stream)


def test_no_context(context: Any, device: int) -> None:
    host: Any = np.zeros(16, dtype=np.uint8)
    call(cu.cuCtxSetCurrent, None)
    assert result(cu.cuMemcpyHtoD, device, host.ctypes.data, 16) == "INVALID_CONTEXT"
    assert result(cu.cuMemsetD8, device, 0, 16) == "INVALID_CONTEXT"
    assert result(cu.cuMemFree, device) == "INVALID_CONTEXT"
    call(cu.cuCtxSetCurrent, context)
