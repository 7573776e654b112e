# SPDX-License-Identifier: Apache-2.0
"""What the driver tells about pointers of every kind; host memory through handles."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
MIB = 1 << 20
A = cu.CUpointer_attribute
Place = cu.CUmemLocationType
TYPE = A.CU_POINTER_ATTRIBUTE_MEMORY_TYPE
DEVICE, HOST = (int(getattr(cu.CUmemorytype, f"CU_MEMORYTYPE_{name}")) for name in ("DEVICE", "HOST"))
GLOBAL = cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value


def properties(kind: Any = Place.CU_MEM_LOCATION_TYPE_DEVICE, number: int = 0) -> Any:
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type, prop.location.id = kind, number
    return prop


def access(kind: Any = Place.CU_MEM_LOCATION_TYPE_DEVICE, number: int = 0) -> Any:
    desc = cu.CUmemAccessDesc()
    desc.location.type, desc.location.id = kind, number
    desc.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return desc


@pytest.fixture
def mapped(context: Any, driver_call: Call) -> Iterator[tuple[int, int]]:
    """A reservation of two granules, the second one mapped: its start and the granularity."""
    option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    grain = int(driver_call(cu.cuMemGetAllocationGranularity, properties(), option))
    area = int(driver_call(cu.cuMemAddressReserve, 2 * grain, 0, 0, 0))
    handle = driver_call(cu.cuMemCreate, grain, properties(), 0)
    driver_call(cu.cuMemMap, area + grain, grain, 0, handle, 0)
    driver_call(cu.cuMemSetAccess, area + grain, grain, [access()], 1)
    driver_call(cu.cuMemRelease, handle)
    yield area, grain
    cu.cuMemUnmap(area + grain, grain)
    cu.cuMemAddressFree(area, 2 * grain)


def test_mapping_in_a_reservation(mapped: tuple[int, int], driver_call: Call, driver_result: Call) -> None:
    area, grain = mapped
    inside = area + grain + 5

    def told(which: Any, at: int = inside) -> Any:
        return driver_call(cu.cuPointerGetAttribute, which, at)

    assert int(told(TYPE)) == DEVICE
    assert int(told(A.CU_POINTER_ATTRIBUTE_RANGE_START_ADDR)) == area  # of the reservation
    assert int(told(A.CU_POINTER_ATTRIBUTE_RANGE_SIZE)) == 2 * grain
    assert int(told(A.CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR)) == area + grain
    assert int(told(A.CU_POINTER_ATTRIBUTE_MAPPING_SIZE)) == grain
    assert told(A.CU_POINTER_ATTRIBUTE_MAPPED)
    assert not told(A.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE)
    base, size = driver_call(cu.cuMemGetAddressRange, inside)
    assert (int(base), size) == (area + grain, grain)
    assert not told(A.CU_POINTER_ATTRIBUTE_MAPPED, area)  # reserved, without memory
    assert driver_result(cu.cuPointerGetAttribute, TYPE, area) == "INVALID_VALUE"


def test_released_handle_is_none(context: Any, driver_call: Call, driver_result: Call) -> None:
    option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    grain = int(driver_call(cu.cuMemGetAllocationGranularity, properties(), option))
    handle = driver_call(cu.cuMemCreate, grain, properties(), 0)
    told = driver_call(cu.cuMemGetAllocationPropertiesFromHandle, handle)
    assert told.location.type == Place.CU_MEM_LOCATION_TYPE_DEVICE
    driver_call(cu.cuMemRelease, handle)
    assert driver_result(cu.cuMemGetAllocationPropertiesFromHandle, handle) == "INVALID_VALUE"
    assert driver_result(cu.cuMemRelease, handle) == "INVALID_VALUE"


@pytest.mark.parametrize("kind", [Place.CU_MEM_LOCATION_TYPE_HOST, Place.CU_MEM_LOCATION_TYPE_HOST_NUMA])
def test_host_memory_by_handle(kind: Any, context: Any, driver_call: Call, driver_result: Call) -> None:
    if not driver_call(
        cu.cuDeviceGetAttribute,
        cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
        0,
    ):
        pytest.skip("the device does not manage host memory")
    free, _ = driver_call(cu.cuMemGetInfo)
    option = cu.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
    grain = int(driver_call(cu.cuMemGetAllocationGranularity, properties(kind), option))
    handle = driver_call(cu.cuMemCreate, grain, properties(kind), 0)
    area = int(driver_call(cu.cuMemAddressReserve, grain, 0, 0, 0))
    driver_call(cu.cuMemMap, area, grain, 0, handle, 0)
    both = [access(kind), access()]
    driver_call(cu.cuMemSetAccess, area, grain, both, 2)
    assert int(driver_call(cu.cuMemGetAccess, both[0].location, area)) == 3
    driver_call(cu.cuMemsetD8, area, 0x3E, grain)
    driver_call(cu.cuCtxSynchronize)
    assert ctypes.string_at(area, grain).count(b"\x3e") == grain
    assert int(driver_call(cu.cuPointerGetAttribute, TYPE, area)) == HOST
    less, _ = driver_call(cu.cuMemGetInfo)
    assert free - less < 64 * MIB  # not the device's
    driver_call(cu.cuMemUnmap, area, grain)
    driver_call(cu.cuMemRelease, handle)
    driver_call(cu.cuMemAddressFree, area, grain)
    current = properties(Place.CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT)
    assert driver_result(cu.cuMemCreate, grain, current, 0) == "INVALID_VALUE"


def test_kinds_of_memory(context: Any, driver_call: Call) -> None:
    stream = driver_call(cu.cuStreamCreate, 0)
    plain = int(driver_call(cu.cuMemAlloc, 5000))
    pool = int(driver_call(cu.cuMemAllocAsync, 5000, stream))
    managed = int(driver_call(cu.cuMemAllocManaged, 5000, GLOBAL))
    pinned = int(driver_call(cu.cuMemHostAlloc, 5000, 0))
    driver_call(cu.cuStreamSynchronize, stream)

    def told(which: Any, at: int) -> int:
        return int(driver_call(cu.cuPointerGetAttribute, which, at))

    assert [told(TYPE, at) for at in (plain, pool, managed, pinned)] == [DEVICE, DEVICE, DEVICE, HOST]
    assert [told(A.CU_POINTER_ATTRIBUTE_IS_MANAGED, at) for at in (plain, pool, managed, pinned)] == [0, 0, 1, 0]
    identities = [told(A.CU_POINTER_ATTRIBUTE_BUFFER_ID, at) for at in (plain, pool, managed, pinned)]
    assert len(set(identities)) == 4
    expected = int(driver_call(cu.cuDeviceGetMemPool, 0))
    assert told(A.CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, pool) == expected
    assert told(A.CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, plain) == 0
    driver_call(cu.cuMemFree, plain)
    again = int(driver_call(cu.cuMemAlloc, 5000))
    assert told(A.CU_POINTER_ATTRIBUTE_BUFFER_ID, again) not in identities
    driver_call(cu.cuMemFreeAsync, pool, stream)
    driver_call(cu.cuMemFree, managed)
    driver_call(cu.cuMemFreeHost, pinned)


def test_many_at_once(context: Any, driver_call: Call, driver_result: Call) -> None:
    pointer = int(driver_call(cu.cuMemAlloc, 5000))
    wanted = [TYPE, A.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, A.CU_POINTER_ATTRIBUTE_HOST_POINTER]
    values = driver_call(cu.cuPointerGetAttributes, 3, wanted, pointer + 9)
    assert int(values[0]) == DEVICE
    assert int(values[1]) == 0
    assert int(values[2]) == 0  # no error here, unlike for the single question
    assert driver_result(cu.cuPointerGetAttribute, wanted[2], pointer) == "INVALID_VALUE"


def test_unknown_pointers(context: Any, driver_call: Call, driver_result: Call) -> None:
    own = ctypes.create_string_buffer(64)
    for which in (TYPE, A.CU_POINTER_ATTRIBUTE_CONTEXT, A.CU_POINTER_ATTRIBUTE_IS_MANAGED):
        assert driver_result(cu.cuPointerGetAttribute, which, ctypes.addressof(own)) == "INVALID_VALUE"
    assert driver_result(cu.cuMemGetAddressRange, ctypes.addressof(own)) in ("INVALID_VALUE", "NOT_FOUND")
    pointer = int(driver_call(cu.cuMemAlloc, 5000))
    driver_call(cu.cuMemFree, pointer)
    assert driver_result(cu.cuPointerGetAttribute, TYPE, pointer) == "INVALID_VALUE"


def test_memory_that_always_synchronises(context: Any, driver_call: Call, driver_result: Call) -> None:
    one, two = (int(driver_call(cu.cuMemAlloc, 16 * MIB)) for _ in range(2))
    driver_call(cu.cuPointerSetAttribute, 1, A.CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, one)
    assert driver_call(cu.cuPointerGetAttribute, A.CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, one)
    for _ in range(3):
        driver_call(cu.cuMemsetD8, one, 1, 16 * MIB)
        assert driver_result(cu.cuStreamQuery, 0) == "SUCCESS"
        driver_call(cu.cuMemcpyDtoD, two, one, 16 * MIB)
        assert driver_result(cu.cuStreamQuery, 0) == "SUCCESS"
    own = ctypes.create_string_buffer(64)
    attribute = A.CU_POINTER_ATTRIBUTE_SYNC_MEMOPS
    assert driver_result(cu.cuPointerSetAttribute, 1, attribute, ctypes.addressof(own)) == "INVALID_VALUE"
    assert driver_result(cu.cuPointerSetAttribute, 1, TYPE, one) == "INVALID_VALUE"


def test_copies_between_devices(two_devices: Any, context: Any, driver_call: Call) -> None:
    first, second = two_devices
    here = int(driver_call(cu.cuMemAlloc, 4096))
    driver_call(cu.cuMemsetD8, here, 0x42, 4096)
    other = driver_call(cu.cuDevicePrimaryCtxRetain, second)
    driver_call(cu.cuCtxPushCurrent, other)
    there = int(driver_call(cu.cuMemAlloc, 4096))
    assert int(driver_call(cu.cuPointerGetAttribute, A.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, there)) == 1
    driver_call(cu.cuMemcpyPeer, there, other, here, context, 4096)
    back = ctypes.create_string_buffer(4096)
    driver_call(cu.cuMemcpyDtoH, ctypes.addressof(back), there, 4096)
    assert back.raw == b"\x42" * 4096
    driver_call(cu.cuMemFree, there)
    driver_call(cu.cuCtxPopCurrent)
    driver_call(cu.cuDevicePrimaryCtxRelease, second)
    link = cu.CUdevice_P2PAttribute.CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED
    assert driver_call(cu.cuDeviceGetP2PAttribute, link, first, second) in (0, 1)


def test_atomic_operations_on_other_memory(context: Any, driver_call: Call, driver_result: Call) -> None:
    kind = cu.CUatomicOperation
    told = driver_call(cu.cuDeviceGetHostAtomicCapabilities, [kind.CU_ATOMIC_OPERATION_INTEGER_ADD], 1, 0)
    assert len(told if isinstance(told, (list, tuple)) else [told]) == 1
    operations = [kind.CU_ATOMIC_OPERATION_CAS]
    assert driver_result(cu.cuDeviceGetP2PAtomicCapabilities, operations, 1, 0, 0) == "INVALID_DEVICE"
