# SPDX-License-Identifier: Apache-2.0
"""Allocations, copies, pools, pinned memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
MIB = 1 << 20
Pointer = cu.CUpointer_attribute
Pool = cu.CUmemPool_attribute


def test_allocation(context: Any, driver_call: Call, driver_result: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 1000)
    assert int(pointer) % 256 == 0
    base, size = driver_call(cu.cuMemGetAddressRange, int(pointer) + 500)
    assert int(base) == int(pointer)
    assert size >= 1000
    assert driver_result(cu.cuMemAlloc, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuMemAlloc, 1 << 50) == "OUT_OF_MEMORY"
    driver_call(cu.cuMemFree, pointer)
    assert driver_result(cu.cuMemFree, pointer) == "INVALID_VALUE"
    driver_call(cu.cuMemFree, 0)


def test_free_memory_is_counted(context: Any, driver_call: Call) -> None:
    free, _ = driver_call(cu.cuMemGetInfo)
    pointer = driver_call(cu.cuMemAlloc, 32 * MIB)
    less, _ = driver_call(cu.cuMemGetInfo)
    assert free - less >= 32 * MIB
    driver_call(cu.cuMemFree, pointer)
    again, _ = driver_call(cu.cuMemGetInfo)
    assert again > less


def test_copies(context: Any, driver_call: Call, driver_result: Call) -> None:
    source: Any = np.arange(100_000, dtype=np.uint32)
    back: Any = np.zeros_like(source)
    one = driver_call(cu.cuMemAlloc, source.nbytes)
    two = driver_call(cu.cuMemAlloc, source.nbytes)
    driver_call(cu.cuMemcpyHtoD, one, source.ctypes.data, source.nbytes)
    driver_call(cu.cuMemcpyDtoD, two, one, source.nbytes)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, two, source.nbytes)
    assert np.array_equal(source, back)
    driver_call(cu.cuMemsetD32, two, 0xDEADBEEF, 10)
    driver_call(cu.cuMemsetD8, int(two) + 40, 0x11, 4)
    driver_call(cu.cuMemcpy, back.ctypes.data, two, source.nbytes)
    assert (back[:10] == 0xDEADBEEF).all()
    assert back[10] == 0x11111111
    assert back[11] == 11
    assert driver_result(cu.cuMemsetD32, int(two) + 1, 0, 1) == "INVALID_VALUE"


def test_plane(context: Any, driver_call: Call) -> None:
    source: Any = np.arange(50 * 37, dtype=np.uint8).reshape(50, 37)
    back: Any = np.zeros_like(source)
    pointer, pitch = driver_call(cu.cuMemAllocPitch, 37, 50, 4)
    assert pitch >= 37
    plane = cu.CUDA_MEMCPY2D()
    plane.srcMemoryType, plane.srcHost, plane.srcPitch = cu.CUmemorytype.CU_MEMORYTYPE_HOST, source.ctypes.data, 37
    plane.dstMemoryType, plane.dstDevice, plane.dstPitch = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE, pointer, pitch
    plane.WidthInBytes, plane.Height = 37, 50
    driver_call(cu.cuMemcpy2D, plane)
    plane = cu.CUDA_MEMCPY2D()
    plane.srcMemoryType, plane.srcDevice, plane.srcPitch = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE, pointer, pitch
    plane.dstMemoryType, plane.dstHost, plane.dstPitch = cu.CUmemorytype.CU_MEMORYTYPE_HOST, back.ctypes.data, 37
    plane.WidthInBytes, plane.Height = 37, 50
    driver_call(cu.cuMemcpy2D, plane)
    assert np.array_equal(source, back)


def test_pinned_memory(context: Any, driver_call: Call, driver_result: Call) -> None:
    pinned = driver_call(cu.cuMemHostAlloc, 4096, cu.CU_MEMHOSTALLOC_PORTABLE | cu.CU_MEMHOSTALLOC_DEVICEMAP)
    driver_call(cu.cuMemHostGetDevicePointer, pinned, 0)
    kind = driver_call(cu.cuPointerGetAttribute, Pointer.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, int(pinned))
    assert int(kind) == int(cu.CUmemorytype.CU_MEMORYTYPE_HOST)
    driver_call(cu.cuMemFreeHost, pinned)
    own: Any = np.zeros(1 << 16, dtype=np.uint8)
    driver_call(cu.cuMemHostRegister, own.ctypes.data, own.nbytes, 0)
    assert driver_result(cu.cuMemHostRegister, own.ctypes.data, own.nbytes, 0) == "HOST_MEMORY_ALREADY_REGISTERED"
    driver_call(cu.cuMemHostUnregister, own.ctypes.data)
    assert driver_result(cu.cuMemHostUnregister, own.ctypes.data) == "HOST_MEMORY_NOT_REGISTERED"


def test_pointer_attributes(context: Any, driver_call: Call, driver_result: Call) -> None:
    pointer = driver_call(cu.cuMemAlloc, 5000)

    def attribute(which: Any) -> Any:
        return driver_call(cu.cuPointerGetAttribute, which, int(pointer) + 100)

    assert int(attribute(Pointer.CU_POINTER_ATTRIBUTE_MEMORY_TYPE)) == int(cu.CUmemorytype.CU_MEMORYTYPE_DEVICE)
    assert int(attribute(Pointer.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)) == int(pointer)
    assert int(attribute(Pointer.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL)) == 0
    assert not attribute(Pointer.CU_POINTER_ATTRIBUTE_IS_MANAGED)
    plain: Any = np.zeros(4)
    kind = Pointer.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    assert driver_result(cu.cuPointerGetAttribute, kind, plain.ctypes.data) == "INVALID_VALUE"


def test_managed_memory(context: Any, kernel: Call, driver_call: Call) -> None:
    import ctypes

    flag = cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
    pointer = driver_call(cu.cuMemAllocManaged, 4096, flag)
    word = ctypes.c_uint32.from_address(int(pointer))
    word.value = 4
    arguments = ((pointer, 9), (None, ctypes.c_uint32))
    driver_call(cu.cuLaunchKernel, kernel("store"), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0)
    driver_call(cu.cuCtxSynchronize)
    assert word.value == 9
    driver_call(cu.cuMemFree, pointer)


def test_pool_keeps_what_the_threshold_says(context: Any, driver_call: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    pool = driver_call(cu.cuDeviceGetDefaultMemPool, 0)

    def value(which: Any) -> int:
        return int(driver_call(cu.cuMemPoolGetAttribute, pool, which))

    driver_call(cu.cuMemPoolTrimTo, pool, 0)
    pointer = driver_call(cu.cuMemAllocAsync, 8 * MIB, stream)
    assert value(Pool.CU_MEMPOOL_ATTR_USED_MEM_CURRENT) >= 8 * MIB
    assert value(Pool.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 8 * MIB
    driver_call(cu.cuMemPoolSetAttribute, pool, Pool.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, cu.cuuint64_t(1 << 60))
    driver_call(cu.cuMemFreeAsync, pointer, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert value(Pool.CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 0
    assert value(Pool.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 8 * MIB
    driver_call(cu.cuMemPoolSetAttribute, pool, Pool.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, cu.cuuint64_t(0))
    driver_call(cu.cuMemPoolTrimTo, pool, 0)
    assert value(Pool.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) == 0


@pytest.mark.parametrize("managed", [False, True])
def test_memset_without_a_stream_waits_for_memory_that_the_host_sees(
    managed: bool, context: Any, driver_call: Call
) -> None:
    size = 4 * MIB
    if managed:
        pointer = driver_call(cu.cuMemAllocManaged, size, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)
        address = int(pointer)
    else:
        address = int(driver_call(cu.cuMemHostAlloc, size, cu.CU_MEMHOSTALLOC_DEVICEMAP))
        pointer = driver_call(cu.cuMemHostGetDevicePointer, address, 0)
    driver_call(cu.cuMemsetD8, pointer, 0xAB, size)
    assert ctypes.string_at(address, size).count(b"\xab") == size
    driver_call(cu.cuMemFree if managed else cu.cuMemFreeHost, pointer if managed else address)


@pytest.mark.parametrize("less", [1, 256, 511, 512, 4096])
def test_sizes_at_the_end_of_numbers(less: int, context: Any, driver_result: Call) -> None:
    size = (1 << 64) - less
    own = ctypes.create_string_buffer(1 << 16)
    assert driver_result(cu.cuMemAlloc, size) == "OUT_OF_MEMORY"
    assert driver_result(cu.cuMemAllocPitch, size, 1, 4) in ("OUT_OF_MEMORY", "INVALID_VALUE")
    assert driver_result(cu.cuMemAllocPitch, 512, size, 4) in ("OUT_OF_MEMORY", "INVALID_VALUE")
    assert driver_result(cu.cuMemHostRegister, ctypes.addressof(own), size, 0) in ("OUT_OF_MEMORY", "INVALID_VALUE")
    assert driver_result(cu.cuMemHostUnregister, ctypes.addressof(own)) == "HOST_MEMORY_NOT_REGISTERED"
