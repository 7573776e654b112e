# SPDX-License-Identifier: Apache-2.0
"""Memory of other APIs, by a descriptor. Without a graphics API the exporter is the driver itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
MIB = 1 << 20
POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
OPAQUE = cu.CUexternalMemoryHandleType.CU_EXTERNAL_MEMORY_HANDLE_TYPE_OPAQUE_FD


def described(fd: int, size: int, kind: Any = OPAQUE, flags: int = 0) -> Any:
    shape = cu.CUDA_EXTERNAL_MEMORY_HANDLE_DESC()
    shape.type, shape.handle.fd, shape.size, shape.flags = kind, fd, size, flags
    return shape


def piece(offset: int, size: int) -> Any:
    shape = cu.CUDA_EXTERNAL_MEMORY_BUFFER_DESC()
    shape.offset, shape.size = offset, size
    return shape


@pytest.fixture
def descriptor(context: Any, target: Any, driver_call: Call) -> Any:
    """A descriptor of 8 MiB of the device."""
    if target.name == "real":
        pytest.skip("a real driver takes descriptors of other APIs only")
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type, prop.location.id = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE, 0
    prop.requestedHandleTypes = POSIX
    handle = driver_call(cu.cuMemCreate, 8 * MIB, prop, 0)
    fd = int(driver_call(cu.cuMemExportToShareableHandle, handle, POSIX, 0))
    driver_call(cu.cuMemRelease, handle)
    return fd


def test_two_buffers_of_one_memory(descriptor: int, driver_call: Call) -> None:
    memory = driver_call(cu.cuImportExternalMemory, described(descriptor, 8 * MIB))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)  # it is the driver's now
    whole = driver_call(cu.cuExternalMemoryGetMappedBuffer, memory, piece(0, 8 * MIB))
    part = driver_call(cu.cuExternalMemoryGetMappedBuffer, memory, piece(4 * MIB, MIB))
    source: Any = np.arange(MIB // 4, dtype=np.uint32)
    back: Any = np.zeros_like(source)
    driver_call(cu.cuMemcpyHtoD, part, source.ctypes.data, MIB)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, int(whole) + 4 * MIB, MIB)
    assert np.array_equal(source, back)
    base, size = driver_call(cu.cuMemGetAddressRange, int(part) + 100)
    assert (int(base), size) == (int(part), MIB)
    for pointer in (part, whole):
        driver_call(cu.cuMemFree, pointer)
    driver_call(cu.cuDestroyExternalMemory, memory)


def test_wrong_descriptions(descriptor: int, driver_call: Call, driver_result: Call) -> None:
    assert driver_result(cu.cuImportExternalMemory, described(descriptor, 0)) == "INVALID_VALUE"
    assert driver_result(cu.cuImportExternalMemory, described(descriptor, 16 * MIB)) == "INVALID_VALUE"
    assert driver_result(cu.cuImportExternalMemory, described(descriptor, MIB, flags=8)) == "INVALID_VALUE"
    memory = driver_call(cu.cuImportExternalMemory, described(descriptor, 4 * MIB))
    for wrong in (piece(0, 0), piece(0, 5 * MIB), piece(5 * MIB, MIB)):
        assert driver_result(cu.cuExternalMemoryGetMappedBuffer, memory, wrong) == "INVALID_VALUE"
    driver_call(cu.cuDestroyExternalMemory, memory)
    assert driver_result(cu.cuDestroyExternalMemory, memory) == "INVALID_HANDLE"


def test_it_counts_while_it_is_there(descriptor: int, driver_call: Call) -> None:
    before, _ = driver_call(cu.cuMemGetInfo)
    memory = driver_call(cu.cuImportExternalMemory, described(descriptor, 8 * MIB))
    driver_call(cu.cuDestroyExternalMemory, memory)
    after, _ = driver_call(cu.cuMemGetInfo)
    assert after >= before
