# SPDX-License-Identifier: Apache-2.0
"""Pinned memory, allocated and registered: flags, errors, what is told about its pointers."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
Pointer = cu.CUpointer_attribute
PAGE = mmap.PAGESIZE
PORTABLE, MAPPED = cu.CU_MEMHOSTALLOC_PORTABLE, cu.CU_MEMHOSTALLOC_DEVICEMAP
COMBINED = cu.CU_MEMHOSTALLOC_WRITECOMBINED


@pytest.fixture
def own() -> Iterator[int]:
    """Eight pages of the program's own."""
    area = mmap.mmap(-1, 8 * PAGE)
    view = (ctypes.c_uint8 * (8 * PAGE)).from_buffer(area)
    yield ctypes.addressof(view)
    del view
    area.close()


@pytest.mark.parametrize("flags", [0, PORTABLE, MAPPED, COMBINED, PORTABLE | MAPPED | COMBINED])
def test_flags_are_told(flags: int, context: Any, driver_call: Call, driver_result: Call) -> None:
    pinned = int(driver_call(cu.cuMemHostAlloc, 3 * PAGE, flags))
    told = driver_call(cu.cuMemHostGetFlags, pinned + PAGE)
    assert told & ~MAPPED == flags & ~MAPPED  # all is mapped where addresses are unified
    driver_call(cu.cuMemFreeHost, pinned)
    assert driver_result(cu.cuMemHostGetFlags, pinned) == "INVALID_VALUE"


def test_wrong_arguments(context: Any, own: int, driver_call: Call, driver_result: Call) -> None:
    assert driver_result(cu.cuMemHostAlloc, 0, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuMemHostAlloc, PAGE, 0x100) == "INVALID_VALUE"
    assert driver_result(cu.cuMemFreeHost, own) == "INVALID_VALUE"
    assert driver_result(cu.cuMemHostRegister, own, 0, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuMemHostRegister, own, PAGE, 0x100) == "INVALID_VALUE"
    assert driver_result(cu.cuMemHostRegister, 0, PAGE, 0) == "INVALID_VALUE"
    assert driver_result(cu.cuMemHostUnregister, own) == "HOST_MEMORY_NOT_REGISTERED"
    pinned = int(driver_call(cu.cuMemHostAlloc, 3 * PAGE, 0))
    assert driver_result(cu.cuMemFreeHost, pinned + PAGE) == "INVALID_VALUE"
    driver_call(cu.cuMemFreeHost, pinned)


def test_registered_twice(context: Any, own: int, driver_call: Call, driver_result: Call) -> None:
    driver_call(cu.cuMemHostRegister, own, 4 * PAGE, cu.CU_MEMHOSTREGISTER_PORTABLE)
    for at, size in ((own, 4 * PAGE), (own + PAGE, PAGE), (own + 3 * PAGE, 2 * PAGE)):
        assert driver_result(cu.cuMemHostRegister, at, size, 0) == "HOST_MEMORY_ALREADY_REGISTERED"
    driver_call(cu.cuMemHostRegister, own + 4 * PAGE, 4 * PAGE, 0)  # the next pages are others
    assert driver_result(cu.cuMemHostUnregister, own + PAGE) == "HOST_MEMORY_NOT_REGISTERED"  # not its start
    driver_call(cu.cuMemHostUnregister, own)
    driver_call(cu.cuMemHostUnregister, own + 4 * PAGE)
    assert driver_result(cu.cuMemHostUnregister, own) == "HOST_MEMORY_NOT_REGISTERED"


def test_pages_that_are_not_there(context: Any, driver_result: Call) -> None:
    area = mmap.mmap(-1, 4 * PAGE)
    view = (ctypes.c_uint8 * (4 * PAGE)).from_buffer(area)
    address = ctypes.addressof(view)
    del view
    area.close()
    assert driver_result(cu.cuMemHostRegister, address, PAGE, 0) == "INVALID_VALUE"


def test_read_only_pages(context: Any, driver_call: Call, driver_result: Call) -> None:
    attribute = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    address = libc.mmap(None, 4 * PAGE, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    assert driver_result(cu.cuMemHostRegister, address, 4 * PAGE, 0) != "SUCCESS"
    flags = cu.CU_MEMHOSTREGISTER_READ_ONLY
    if driver_call(cu.cuDeviceGetAttribute, attribute, 0):
        driver_call(cu.cuMemHostRegister, address, 4 * PAGE, flags)
        driver_call(cu.cuMemHostUnregister, address)
    else:
        assert driver_result(cu.cuMemHostRegister, address, 4 * PAGE, flags) == "NOT_SUPPORTED"
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(4 * PAGE))


def test_registered_memory_is_no_allocation(context: Any, own: int, driver_call: Call, driver_result: Call) -> None:
    driver_call(cu.cuMemHostRegister, own, 4 * PAGE, 0)
    assert driver_result(cu.cuMemHostGetFlags, own) == "INVALID_VALUE"
    assert driver_result(cu.cuMemFreeHost, own) == "INVALID_VALUE"
    driver_call(cu.cuMemHostUnregister, own)


@pytest.mark.parametrize("registered", [False, True])
def test_pointers(registered: bool, context: Any, own: int, driver_call: Call, driver_result: Call) -> None:
    if registered:
        address = own
        driver_call(cu.cuMemHostRegister, own, 4 * PAGE, cu.CU_MEMHOSTREGISTER_DEVICEMAP)
    else:
        address = int(driver_call(cu.cuMemHostAlloc, 4 * PAGE, MAPPED))
    device = int(driver_call(cu.cuMemHostGetDevicePointer, address, 0))

    def told(which: Any, at: int = device) -> Any:
        return driver_call(cu.cuPointerGetAttribute, which, at)

    assert int(told(Pointer.CU_POINTER_ATTRIBUTE_MEMORY_TYPE)) == int(cu.CUmemorytype.CU_MEMORYTYPE_HOST)
    assert int(told(Pointer.CU_POINTER_ATTRIBUTE_HOST_POINTER)) == address
    assert int(told(Pointer.CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address)) == device
    assert not told(Pointer.CU_POINTER_ATTRIBUTE_IS_MANAGED)
    assert int(told(Pointer.CU_POINTER_ATTRIBUTE_CONTEXT)) == int(context)
    assert driver_result(cu.cuMemHostGetDevicePointer, address, 1) == "INVALID_VALUE"
    if registered:
        driver_call(cu.cuMemHostUnregister, own)
    else:
        driver_call(cu.cuMemFreeHost, address)
    kind = Pointer.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
    assert driver_result(cu.cuPointerGetAttribute, kind, address) == "INVALID_VALUE"
