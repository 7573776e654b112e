# SPDX-License-Identifier: Apache-2.0
"""Managed memory: advice, prefetch, discard, and the questions about them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
MIB = 1 << 20
GLOBAL = cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
HOST, SINGLE = cu.CUmemAttach_flags.CU_MEM_ATTACH_HOST.value, cu.CUmemAttach_flags.CU_MEM_ATTACH_SINGLE.value
Advice = cu.CUmem_advise
Attribute = cu.CUmem_range_attribute
Place = cu.CUmemLocationType
NOWHERE, CPU = -2, -1


def location(kind: Any, number: int = 0) -> Any:
    made = cu.CUmemLocation()
    made.type, made.id = kind, number
    return made


DEVICE = location(Place.CU_MEM_LOCATION_TYPE_DEVICE)
ON_HOST = location(Place.CU_MEM_LOCATION_TYPE_HOST)


@pytest.fixture
def area(context: Any, driver_call: Call) -> Iterator[int]:
    if not driver_call(cu.cuDeviceGetAttribute, concurrent(), 0):
        pytest.skip("the device has no concurrent managed access")
    pointer = int(driver_call(cu.cuMemAllocManaged, 8 * MIB, GLOBAL))
    yield pointer
    cu.cuMemFree(pointer)


@pytest.fixture
def stream(context: Any, driver_call: Call) -> Iterator[Any]:
    made = driver_call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
    yield made
    cu.cuStreamDestroy(made)


def concurrent() -> Any:
    return cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS


def pointers(*addresses: int) -> list[Any]:
    return [cu.CUdeviceptr(address) for address in addresses]


def test_allocation(context: Any, driver_call: Call, driver_result: Call) -> None:
    for flags in (0, SINGLE, GLOBAL | HOST):
        assert driver_result(cu.cuMemAllocManaged, 4096, flags) == "INVALID_VALUE"
    assert driver_result(cu.cuMemAllocManaged, 0, GLOBAL) == "INVALID_VALUE"
    assert driver_result(cu.cuMemAllocManaged, 1 << 50, GLOBAL) == "OUT_OF_MEMORY"
    pointer = int(driver_call(cu.cuMemAllocManaged, 5000, HOST))
    ctypes.memset(pointer, 3, 5000)
    driver_call(cu.cuMemFree, pointer)
    assert driver_result(cu.cuMemFree, pointer) == "INVALID_VALUE"


def test_advice(area: int, driver_call: Call) -> None:
    def told(attribute: Any, size: int = 8 * MIB) -> Any:
        return driver_call(cu.cuMemRangeGetAttribute, 4, attribute, area, size)

    read_mostly, preferred = (
        Attribute.CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY,
        Attribute.CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION,
    )
    assert told(read_mostly) == 0
    assert told(preferred) == NOWHERE
    driver_call(cu.cuMemAdvise, area, 4 * MIB, Advice.CU_MEM_ADVISE_SET_READ_MOSTLY, DEVICE)
    assert told(read_mostly) == 0  # not all of it
    assert told(read_mostly, 4 * MIB) == 1
    driver_call(cu.cuMemAdvise, area, 8 * MIB, Advice.CU_MEM_ADVISE_SET_PREFERRED_LOCATION, DEVICE)
    assert told(preferred) == 0
    driver_call(cu.cuMemAdvise, area, MIB, Advice.CU_MEM_ADVISE_SET_PREFERRED_LOCATION, ON_HOST)
    assert told(preferred) == NOWHERE
    assert told(preferred, MIB) == CPU
    driver_call(cu.cuMemAdvise, area, 8 * MIB, Advice.CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, DEVICE)
    assert told(preferred) == NOWHERE
    driver_call(cu.cuMemAdvise, area, 4 * MIB, Advice.CU_MEM_ADVISE_UNSET_READ_MOSTLY, DEVICE)
    assert told(read_mostly, 4 * MIB) == 0


def test_accessed_by(area: int, driver_call: Call) -> None:
    attribute = Attribute.CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY
    driver_call(cu.cuMemAdvise, area, 8 * MIB, Advice.CU_MEM_ADVISE_SET_ACCESSED_BY, DEVICE)
    assert list(driver_call(cu.cuMemRangeGetAttribute, 12, attribute, area, 8 * MIB)) == [0, NOWHERE, NOWHERE]
    driver_call(cu.cuMemAdvise, area, MIB, Advice.CU_MEM_ADVISE_SET_ACCESSED_BY, ON_HOST)
    both = list(driver_call(cu.cuMemRangeGetAttribute, 12, attribute, area, MIB))
    assert sorted(both) == [NOWHERE, CPU, 0]
    driver_call(cu.cuMemAdvise, area, 8 * MIB, Advice.CU_MEM_ADVISE_UNSET_ACCESSED_BY, DEVICE)
    assert list(driver_call(cu.cuMemRangeGetAttribute, 4, attribute, area, 8 * MIB)) == [NOWHERE]


def test_prefetch(area: int, stream: Any, driver_call: Call) -> None:
    last = Attribute.CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION
    kind = Attribute.CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE

    def told(attribute: Any, size: int = 8 * MIB) -> int:
        return int(driver_call(cu.cuMemRangeGetAttribute, 4, attribute, area, size))

    ctypes.memset(area, 0x21, 8 * MIB)
    assert told(last) == NOWHERE
    driver_call(cu.cuMemPrefetchAsync, area, 8 * MIB, DEVICE, 0, stream)
    assert told(last) == 0
    assert told(kind) == int(Place.CU_MEM_LOCATION_TYPE_DEVICE)
    driver_call(cu.cuMemPrefetchAsync, area, MIB, ON_HOST, 0, stream)
    assert told(last) == NOWHERE
    assert told(last, MIB) == CPU
    driver_call(cu.cuStreamSynchronize, stream)
    assert ctypes.string_at(area, 8 * MIB).count(b"\x21") == 8 * MIB


@pytest.mark.differs("shim", reason="managed memory is charged to the job when it is allocated, wherever it lies")
def test_prefetched_memory_counts_on_the_device(area: int, stream: Any, driver_call: Call) -> None:
    ctypes.memset(area, 1, 8 * MIB)
    driver_call(cu.cuMemPrefetchAsync, area, 8 * MIB, ON_HOST, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    before, _ = driver_call(cu.cuMemGetInfo)
    driver_call(cu.cuMemPrefetchAsync, area, 8 * MIB, DEVICE, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    during, _ = driver_call(cu.cuMemGetInfo)
    assert before - during >= 8 * MIB
    driver_call(cu.cuMemPrefetchAsync, area, 8 * MIB, ON_HOST, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    after, _ = driver_call(cu.cuMemGetInfo)
    assert after > during


def test_batches(area: int, stream: Any, driver_call: Call, driver_result: Call) -> None:
    last = Attribute.CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION
    both = (pointers(area, area + 4 * MIB), [MIB, MIB], 2)
    driver_call(cu.cuMemPrefetchBatchAsync, *both, [DEVICE, ON_HOST], [0, 1], 2, 0, stream)
    assert driver_call(cu.cuMemRangeGetAttribute, 4, last, area, MIB) == 0
    assert driver_call(cu.cuMemRangeGetAttribute, 4, last, area + 4 * MIB, MIB) == CPU
    driver_call(cu.cuMemDiscardBatchAsync, *both, 0, stream)
    driver_call(cu.cuMemDiscardAndPrefetchBatchAsync, *both, [ON_HOST], [0], 1, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    ctypes.memset(area, 9, 2 * MIB)
    assert ctypes.string_at(area, 2 * MIB).count(b"\x09") == 2 * MIB
    assert driver_result(cu.cuMemDiscardBatchAsync, *both, 1, stream) == "INVALID_VALUE"
    assert driver_result(cu.cuMemDiscardBatchAsync, *both, 0, 0) == "INVALID_VALUE"  # not in the legacy stream
    assert driver_result(cu.cuMemPrefetchBatchAsync, *both, [DEVICE], [1], 1, 0, stream) == "INVALID_VALUE"


def test_discard_keeps_what_is_beside(area: int, stream: Any, driver_call: Call) -> None:
    ctypes.memset(area, 5, 8 * MIB)
    driver_call(cu.cuMemDiscardBatchAsync, pointers(area + 2 * MIB), [2 * MIB], 1, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    assert ctypes.string_at(area, 2 * MIB).count(b"\x05") == 2 * MIB
    assert ctypes.string_at(area + 4 * MIB, 4 * MIB).count(b"\x05") == 4 * MIB


def test_arguments(area: int, stream: Any, driver_call: Call, driver_result: Call) -> None:
    plain = driver_call(cu.cuMemAlloc, 4096)
    assert driver_result(cu.cuMemPrefetchAsync, plain, 4096, DEVICE, 0, stream) == "INVALID_VALUE"
    assert driver_result(cu.cuMemPrefetchAsync, area, 0, DEVICE, 0, stream) == "INVALID_VALUE"
    assert driver_result(cu.cuMemPrefetchAsync, area, MIB, DEVICE, 1, stream) == "INVALID_VALUE"
    assert driver_result(cu.cuMemPrefetchAsync, area, 9 * MIB, DEVICE, 0, stream) == "INVALID_VALUE"
    nowhere = location(Place.CU_MEM_LOCATION_TYPE_DEVICE, 99)
    assert driver_result(cu.cuMemPrefetchAsync, area, MIB, nowhere, 0, stream) == "INVALID_DEVICE"
    numa = location(Place.CU_MEM_LOCATION_TYPE_HOST_NUMA)
    accessed = Advice.CU_MEM_ADVISE_SET_ACCESSED_BY
    assert driver_result(cu.cuMemAdvise, area, MIB, accessed, numa) == "INVALID_VALUE"
    mostly = Attribute.CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY
    assert driver_result(cu.cuMemRangeGetAttribute, 8, mostly, area, MIB) == "INVALID_VALUE"
    assert driver_result(cu.cuMemRangeGetAttribute, 4, mostly, plain, 4096) == "INVALID_VALUE"


def test_attach(area: int, stream: Any, driver_call: Call, driver_result: Call) -> None:
    for flags in (GLOBAL, HOST, SINGLE):
        driver_call(cu.cuStreamAttachMemAsync, stream, area, 0, flags)
    assert driver_result(cu.cuStreamAttachMemAsync, 0, area, 0, SINGLE) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamAttachMemAsync, stream, area, MIB, GLOBAL) == "INVALID_VALUE"
    assert driver_result(cu.cuStreamAttachMemAsync, stream, area, 0, 8) == "INVALID_VALUE"


@pytest.mark.differs("shim", reason="managed memory is charged to the job in full: beyond its limit it is refused")
def test_more_than_the_device_has(context: Any, target: Any, stream: Any, driver_call: Call) -> None:
    """Managed memory may be larger than the device, and gives way to what cannot."""
    if target.name == "real":
        pytest.skip("would take all memory of a real device")
    free, total = driver_call(cu.cuMemGetInfo)
    areas = [int(driver_call(cu.cuMemAllocManaged, total // 2, GLOBAL)) for _ in range(3)]
    for pointer in areas:
        driver_call(cu.cuMemPrefetchAsync, pointer, total // 2, DEVICE, 0, stream)
    driver_call(cu.cuStreamSynchronize, stream)
    plain = driver_call(cu.cuMemAlloc, 64 * MIB)
    driver_call(cu.cuMemFree, plain)
    for pointer in areas:
        driver_call(cu.cuMemFree, pointer)
    after, _ = driver_call(cu.cuMemGetInfo)
    assert after >= free - 4 * MIB
