# SPDX-License-Identifier: Apache-2.0
"""Virtual memory: every wrong argument that the documentation names, reference counts, access."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result

POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
DEVICE_PLACE = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE


def properties(device: int = 0) -> Any:
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type, prop.location.id = DEVICE_PLACE, device
    return prop


def access(flags: str, device: int = 0) -> list[Any]:
    desc = cu.CUmemAccessDesc()
    desc.location.type, desc.location.id = DEVICE_PLACE, device
    desc.flags = getattr(cu.CUmemAccess_flags, f"CU_MEM_ACCESS_FLAGS_PROT_{flags}")
    return [desc]


@pytest.fixture
def grain(context: Any) -> int:
    option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    return int(call(cu.cuMemGetAllocationGranularity, properties(), option))


@pytest.fixture
def area(grain: int) -> Iterator[int]:
    """Four granules of addresses."""
    start = int(call(cu.cuMemAddressReserve, 4 * grain, 0, 0, 0))
    yield start
    cu.cuMemAddressFree(start, 4 * grain)


@pytest.fixture
def handle(grain: int) -> Iterator[Any]:
    """Two granules of memory."""
    made = call(cu.cuMemCreate, 2 * grain, properties(), 0)
    yield made
    cu.cuMemRelease(made)


def test_reservations(grain: int) -> None:
    assert result(cu.cuMemAddressReserve, 0, 0, 0, 0) == "INVALID_VALUE"
    assert result(cu.cuMemAddressReserve, grain + 1, 0, 0, 0) == "INVALID_VALUE"
    assert result(cu.cuMemAddressReserve, grain, 3 * 4096, 0, 0) == "INVALID_VALUE"
    assert result(cu.cuMemAddressReserve, grain, 0, 0, 1) == "INVALID_VALUE"
    big = 64 * grain
    start = int(call(cu.cuMemAddressReserve, grain, big, 0, 0))
    assert start % big == 0
    again = int(call(cu.cuMemAddressReserve, grain, 0, start, 0))  # a hint that cannot be kept
    assert again != start
    for address in (start, again):
        call(cu.cuMemAddressFree, address, grain)


def test_a_free_address_is_given_when_asked_for(grain: int) -> None:
    start = int(call(cu.cuMemAddressReserve, grain, 0, 0, 0))
    call(cu.cuMemAddressFree, start, grain)
    assert int(call(cu.cuMemAddressReserve, grain, 0, start, 0)) == start
    call(cu.cuMemAddressFree, start, grain)


def test_freeing_addresses(grain: int, area: int, handle: Any) -> None:
    assert result(cu.cuMemAddressFree, area, grain) == "INVALID_VALUE"
    assert result(cu.cuMemAddressFree, area + grain, 3 * grain) == "INVALID_VALUE"
    call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)
    assert result(cu.cuMemAddressFree, area, 4 * grain) == "INVALID_VALUE"
    call(cu.cuMemUnmap, area, 2 * grain)
    call(cu.cuMemAddressFree, area, 4 * grain)
    assert result(cu.cuMemAddressFree, area, 4 * grain) == "INVALID_VALUE"


def test_handles(grain: int) -> None:
    assert result(cu.cuMemCreate, 0, properties(), 0) == "INVALID_VALUE"
    assert result(cu.cuMemCreate, grain + 4096, properties(), 0) == "INVALID_VALUE"
    assert result(cu.cuMemCreate, grain, properties(), 1) == "INVALID_VALUE"
    assert result(cu.cuMemCreate, grain, properties(99), 0) in ("INVALID_DEVICE", "INVALID_VALUE")
    wrong = properties()
    wrong.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_INVALID
    assert result(cu.cuMemCreate, grain, wrong, 0) in ("INVALID_VALUE", "NOT_SUPPORTED")
    assert native("cuMemCreate")(None, grain, None, 0) == "INVALID_VALUE"
    assert native("cuMemRelease")(0) == "INVALID_VALUE"


def test_mappings(grain: int, area: int, handle: Any) -> None:
    assert result(cu.cuMemMap, area + 4096, grain, 0, handle, 0) == "INVALID_VALUE"
    assert result(cu.cuMemMap, area, 4096, 0, handle, 0) == "INVALID_VALUE"
    assert result(cu.cuMemMap, area, 4 * grain, 0, handle, 0) == "INVALID_VALUE"  # more than the handle has
    assert result(cu.cuMemMap, area + 3 * grain, 2 * grain, 0, handle, 0) == "INVALID_VALUE"  # beyond the reservation
    assert result(cu.cuMemMap, area, 2 * grain, 0, handle, 1) == "INVALID_VALUE"
    assert result(cu.cuMemMap, 0, 2 * grain, 0, handle, 0) == "INVALID_VALUE"
    call(cu.cuMemMap, area + grain, 2 * grain, 0, handle, 0)
    assert result(cu.cuMemMap, area, 2 * grain, 0, handle, 0) != "SUCCESS"  # overlaps
    assert result(cu.cuMemUnmap, area, 2 * grain) == "INVALID_VALUE"
    assert result(cu.cuMemUnmap, area + grain, grain) == "INVALID_VALUE"
    call(cu.cuMemUnmap, area + grain, 2 * grain)
    assert result(cu.cuMemUnmap, area + grain, 2 * grain) == "INVALID_VALUE"


def test_access(grain: int, area: int, handle: Any) -> None:
    call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)
    place = cu.CUmemLocation()
    place.type, place.id = DEVICE_PLACE, 0
    assert call(cu.cuMemGetAccess, place, area) == 0
    for flags, number in (("READ", 1), ("READWRITE", 3), ("NONE", 0)):
        answer = result(cu.cuMemSetAccess, area, 2 * grain, access(flags), 1)
        assert answer in ("SUCCESS", "NOT_SUPPORTED"), flags
        if answer == "SUCCESS":
            assert call(cu.cuMemGetAccess, place, area) == number
    assert result(cu.cuMemSetAccess, area, 3 * grain, access("READWRITE"), 1) == "INVALID_VALUE"
    assert result(cu.cuMemSetAccess, area, 2 * grain, access("READWRITE", 99), 1) in ("INVALID_DEVICE", "INVALID_VALUE")
    assert result(cu.cuMemGetAccess, place, area + 3 * grain) == "INVALID_VALUE"
    call(cu.cuMemUnmap, area, 2 * grain)


def test_memory_lives_as_long_as_its_last_user(grain: int, area: int) -> None:
    free, _ = call(cu.cuMemGetInfo)
    made = call(cu.cuMemCreate, 2 * grain, properties(), 0)
    call(cu.cuMemMap, area, 2 * grain, 0, made, 0)
    call(cu.cuMemSetAccess, area, 2 * grain, access("READWRITE"), 1)
    call(cu.cuMemsetD8, area, 7, 2 * grain)
    call(cu.cuCtxSynchronize)
    again = call(cu.cuMemRetainAllocationHandle, area)
    call(cu.cuMemRelease, made)
    call(cu.cuMemUnmap, area, 2 * grain)
    call(cu.cuMemMap, area + 2 * grain, 2 * grain, 0, again, 0)
    call(cu.cuMemSetAccess, area + 2 * grain, 2 * grain, access("READWRITE"), 1)
    values: Any = np.zeros(2 * grain, dtype=np.uint8)
    call(cu.cuMemcpyDtoH, values.ctypes.data, area + 2 * grain, values.nbytes)
    assert (values == 7).all()
    call(cu.cuMemUnmap, area + 2 * grain, 2 * grain)
    call(cu.cuMemRelease, again)
    assert call(cu.cuMemGetInfo)[0] >= free


def test_new_memory_is_not_that_of_others(grain: int, area: int) -> None:
    """Undefined by the manual; no driver hands out what another program left."""
    for _ in range(3):
        made = call(cu.cuMemCreate, grain, properties(), 0)
        call(cu.cuMemMap, area, grain, 0, made, 0)
        call(cu.cuMemSetAccess, area, grain, access("READWRITE"), 1)
        values: Any = np.zeros(grain, dtype=np.uint8)
        call(cu.cuMemcpyDtoH, values.ctypes.data, area, values.nbytes)
        assert not (values == 0x5A).any()
        call(cu.cuMemsetD8, area, 0x5A, grain)
        call(cu.cuCtxSynchronize)
        call(cu.cuMemUnmap, area, grain)
        call(cu.cuMemRelease, made)


def test_granularity(grain: int) -> None:
    flags = cu.CUmemAllocationGranularity_flags
    recommended = call(cu.cuMemGetAllocationGranularity, properties(), flags.CU_MEM_ALLOC_GRANULARITY_RECOMMENDED)
    assert recommended % grain == 0
    assert grain & (grain - 1) == 0
    assert native("cuMemGetAllocationGranularity")(None, None, ctypes.c_int(0)) == "INVALID_VALUE"


def test_unmapped_access_is_an_error(grain: int, area: int, handle: Any, kernel: Any) -> None:
    call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)  # but no access
    arguments = ((area, 1), (ctypes.c_void_p, ctypes.c_uint32))
    call(cu.cuLaunchKernel, kernel("store"), 1, 1, 1, 1, 1, 1, 0, 0, arguments, 0)
    assert result(cu.cuCtxSynchronize) == "ILLEGAL_ADDRESS"


def test_export_needs_to_be_asked_for(handle: Any) -> None:
    assert result(cu.cuMemExportToShareableHandle, handle, POSIX, 0) != "SUCCESS"
    assert native("cuMemImportFromShareableHandle")(None, None, ctypes.c_int(1)) == "INVALID_VALUE"
