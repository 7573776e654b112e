# SPDX-License-Identifier: Apache-2.0
"""Reserve, create, map, set access, unmap, release."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR


def properties(exportable: bool = False) -> Any:
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    prop.location.id = 0
    if exportable:
        prop.requestedHandleTypes = POSIX
    return prop


def access(flags: str = "READWRITE") -> list[Any]:
    desc = cu.CUmemAccessDesc()
    desc.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    desc.location.id = 0
    desc.flags = getattr(cu.CUmemAccess_flags, f"CU_MEM_ACCESS_FLAGS_PROT_{flags}")
    return [desc]


@pytest.fixture
def grain(context: Any, driver_call: Call) -> int:
    option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    return int(driver_call(cu.cuMemGetAllocationGranularity, properties(), option))


def write(driver_call: Call, address: int, value: int) -> None:
    data: Any = np.array([value], dtype=np.uint32)
    driver_call(cu.cuMemcpyHtoD, address, data.ctypes.data, 4)


def read(driver_call: Call, address: int) -> int:
    data: Any = np.zeros(1, dtype=np.uint32)
    driver_call(cu.cuMemcpyDtoH, data.ctypes.data, address, 4)
    return int(data[0])


def test_life(grain: int, driver_call: Call, driver_result: Call) -> None:
    area = int(driver_call(cu.cuMemAddressReserve, 4 * grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, 2 * grain, properties(), 0)
    driver_call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)
    driver_call(cu.cuMemSetAccess, area, 2 * grain, access(), 1)
    write(driver_call, area + grain, 17)
    driver_call(cu.cuMemMap, area + 2 * grain, 2 * grain, 0, handle, 0)  # the same memory again
    driver_call(cu.cuMemSetAccess, area + 2 * grain, 2 * grain, access(), 1)
    assert read(driver_call, area + 3 * grain) == 17
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemUnmap, area, 2 * grain)
    assert read(driver_call, area + 3 * grain) == 17
    driver_call(cu.cuMemUnmap, area + 2 * grain, 2 * grain)
    driver_call(cu.cuMemAddressFree, area, 4 * grain)


def test_wrong_arguments(grain: int, driver_call: Call, driver_result: Call) -> None:
    assert driver_result(cu.cuMemCreate, grain // 2, properties(), 0) == "INVALID_VALUE"
    assert driver_result(cu.cuMemCreate, 1 << 50, properties(), 0) == "OUT_OF_MEMORY"
    area = int(driver_call(cu.cuMemAddressReserve, 4 * grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, 2 * grain, properties(), 0)
    assert driver_result(cu.cuMemMap, area, grain, grain, handle, 0) == "INVALID_VALUE"
    driver_call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)
    assert driver_result(cu.cuMemSetAccess, area, 4 * grain, access(), 1) == "INVALID_VALUE"
    assert driver_result(cu.cuMemUnmap, area, grain) == "INVALID_VALUE"
    driver_call(cu.cuMemUnmap, area, 2 * grain)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, 4 * grain)


def test_content_stays_with_the_handle(grain: int, driver_call: Call) -> None:
    area = int(driver_call(cu.cuMemAddressReserve, grain, 0, 0, 0))
    handles = [driver_call(cu.cuMemCreate, grain, properties(), 0) for _ in range(3)]
    for round_ in range(2):
        for number, handle in enumerate(handles):
            driver_call(cu.cuMemMap, area, grain, 0, handle, 0)
            driver_call(cu.cuMemSetAccess, area, grain, access(), 1)
            if round_ == 0:
                write(driver_call, area, 100 + number)
            else:
                assert read(driver_call, area) == 100 + number
            driver_call(cu.cuCtxSynchronize)
            driver_call(cu.cuMemUnmap, area, grain)
    for handle in handles:
        driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, grain)


def test_one_access_call_spans_handles(grain: int, driver_call: Call) -> None:
    area = int(driver_call(cu.cuMemAddressReserve, 3 * grain, 0, 0, 0))
    for number in range(3):
        handle = driver_call(cu.cuMemCreate, grain, properties(), 0)
        driver_call(cu.cuMemMap, area + number * grain, grain, 0, handle, 0)
        driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemSetAccess, area, 3 * grain, access(), 1)
    data: Any = np.arange(3 * grain // 4, dtype=np.uint32)
    back: Any = np.zeros_like(data)
    driver_call(cu.cuMemcpyHtoD, area, data.ctypes.data, data.nbytes)
    driver_call(cu.cuMemcpyDtoH, back.ctypes.data, area, data.nbytes)
    assert np.array_equal(data, back)
    for number in range(3):
        driver_call(cu.cuMemUnmap, area + number * grain, grain)
    driver_call(cu.cuMemAddressFree, area, 3 * grain)


def test_export_and_import(grain: int, driver_call: Call) -> None:
    handle = driver_call(cu.cuMemCreate, grain, properties(exportable=True), 0)
    descriptor = int(driver_call(cu.cuMemExportToShareableHandle, handle, POSIX, 0))
    imported = driver_call(cu.cuMemImportFromShareableHandle, descriptor, POSIX)
    os.close(descriptor)
    area = int(driver_call(cu.cuMemAddressReserve, 2 * grain, 0, 0, 0))
    driver_call(cu.cuMemMap, area, grain, 0, handle, 0)
    driver_call(cu.cuMemMap, area + grain, grain, 0, imported, 0)
    driver_call(cu.cuMemSetAccess, area, 2 * grain, access(), 1)
    write(driver_call, area, 23)
    assert read(driver_call, area + grain) == 23
    driver_call(cu.cuMemUnmap, area, grain)
    driver_call(cu.cuMemUnmap, area + grain, grain)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemRelease, imported)
    driver_call(cu.cuMemAddressFree, area, 2 * grain)


def test_retain_finds_the_handle(grain: int, driver_call: Call) -> None:
    area = int(driver_call(cu.cuMemAddressReserve, grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, grain, properties(), 0)
    driver_call(cu.cuMemMap, area, grain, 0, handle, 0)
    again = driver_call(cu.cuMemRetainAllocationHandle, area)
    prop = driver_call(cu.cuMemGetAllocationPropertiesFromHandle, again)
    assert prop.location.id == 0
    driver_call(cu.cuMemUnmap, area, grain)
    driver_call(cu.cuMemRelease, again)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, grain)


def test_a_part_of_a_handle(grain: int, driver_call: Call, driver_result: Call) -> None:
    area = int(driver_call(cu.cuMemAddressReserve, 4 * grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, 2 * grain, properties(), 0)
    driver_call(cu.cuMemMap, area, 2 * grain, 0, handle, 0)
    driver_call(cu.cuMemMap, area + 2 * grain, grain, 0, handle, 0)  # its first half again
    driver_call(cu.cuMemSetAccess, area, 3 * grain, access(), 1)
    write(driver_call, area, 31)
    assert read(driver_call, area + 2 * grain) == 31
    assert driver_result(cu.cuMemUnmap, area, grain) == "INVALID_VALUE"  # half of a mapping
    driver_call(cu.cuMemUnmap, area, 2 * grain)
    assert read(driver_call, area + 2 * grain) == 31
    driver_call(cu.cuMemUnmap, area + 2 * grain, grain)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, 4 * grain)


def test_exported_again_is_the_same_memory(grain: int, driver_call: Call) -> None:
    handle = driver_call(cu.cuMemCreate, grain, properties(exportable=True), 0)
    descriptors = [int(driver_call(cu.cuMemExportToShareableHandle, handle, POSIX, 0)) for _ in range(2)]
    assert descriptors[0] != descriptors[1]
    area = int(driver_call(cu.cuMemAddressReserve, 2 * grain, 0, 0, 0))
    for number, descriptor in enumerate(descriptors):
        imported = driver_call(cu.cuMemImportFromShareableHandle, descriptor, POSIX)
        os.close(descriptor)
        driver_call(cu.cuMemMap, area + number * grain, grain, 0, imported, 0)
        driver_call(cu.cuMemRelease, imported)
    driver_call(cu.cuMemRelease, handle)  # the mappings hold it
    driver_call(cu.cuMemSetAccess, area, 2 * grain, access(), 1)
    write(driver_call, area, 41)
    assert read(driver_call, area + grain) == 41
    driver_call(cu.cuMemUnmap, area, 2 * grain)
    driver_call(cu.cuMemAddressFree, area, 2 * grain)


def test_always_synchronising(grain: int, driver_call: Call) -> None:
    attribute = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
    area = int(driver_call(cu.cuMemAddressReserve, grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, grain, properties(), 0)
    driver_call(cu.cuMemMap, area, grain, 0, handle, 0)
    driver_call(cu.cuMemSetAccess, area, grain, access(), 1)
    assert not driver_call(cu.cuPointerGetAttribute, attribute, area)
    driver_call(cu.cuPointerSetAttribute, 1, attribute, area)
    assert driver_call(cu.cuPointerGetAttribute, attribute, area + 8)
    driver_call(cu.cuMemUnmap, area, grain)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, grain)
