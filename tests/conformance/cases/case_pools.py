# SPDX-License-Identifier: Apache-2.0
"""Pools: places, properties, attributes, reuse of freed memory, access, other processes."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, result
from support.peer import Channel

Call = Callable[..., Any]
MIB = 1 << 20
Attribute = cu.CUmemPool_attribute
Place = cu.CUmemLocationType
PINNED = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
MANAGED = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_MANAGED
POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
EQUAL = cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_EQ.value
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value


def location(kind: Any = Place.CU_MEM_LOCATION_TYPE_DEVICE, number: int = 0) -> Any:
    made = cu.CUmemLocation()
    made.type, made.id = kind, number
    return made


def properties(kind: Any = Place.CU_MEM_LOCATION_TYPE_DEVICE, number: int = 0, **fields: Any) -> Any:
    made = cu.CUmemPoolProps()
    made.allocType, made.location = PINNED, location(kind, number)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def streams(context: Any, driver_call: Call) -> Iterator[list[Any]]:
    both = [driver_call(cu.cuStreamCreate, NON_BLOCKING) for _ in range(2)]
    yield both
    for stream in both:
        cu.cuStreamSynchronize(stream)
        cu.cuStreamDestroy(stream)


@pytest.fixture
def pool(context: Any, driver_call: Call) -> Iterator[Any]:
    made = driver_call(cu.cuMemPoolCreate, properties())
    driver_call(cu.cuMemPoolSetAttribute, made, Attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, cu.cuuint64_t(1 << 60))
    yield made
    cu.cuMemPoolDestroy(made)


@pytest.fixture
def gate(context: Any, driver_call: Call) -> Iterator[Any]:
    """A word that streams can wait for. Whatever waits is let go at the end."""
    address = int(driver_call(cu.cuMemHostAlloc, 64, cu.CU_MEMHOSTALLOC_DEVICEMAP))
    word = ctypes.c_uint32.from_address(address)
    word.value = 0
    yield word
    word.value = 1
    cu.cuCtxSynchronize()
    cu.cuMemFreeHost(address)


def hold(stream: Any, gate: Any) -> None:
    call(cu.cuStreamWaitValue32, stream, ctypes.addressof(gate), 1, EQUAL)


def number(pool: Any, attribute: Any) -> int:
    return int(call(cu.cuMemPoolGetAttribute, pool, attribute))


def test_places(context: Any, pool: Any, driver_call: Call, driver_result: Call) -> None:
    standard = driver_call(cu.cuMemGetDefaultMemPool, location(), PINNED)
    assert int(standard) == int(driver_call(cu.cuDeviceGetDefaultMemPool, 0))
    driver_call(cu.cuMemSetMemPool, location(), PINNED, pool)
    assert int(driver_call(cu.cuDeviceGetMemPool, 0)) == int(pool)
    assert int(driver_call(cu.cuMemGetMemPool, location(), PINNED)) == int(pool)
    assert int(driver_call(cu.cuMemGetDefaultMemPool, location(), PINNED)) == int(standard)
    driver_call(cu.cuDeviceSetMemPool, 0, standard)
    assert int(driver_call(cu.cuMemGetMemPool, location(), PINNED)) == int(standard)
    host = driver_call(cu.cuMemGetDefaultMemPool, location(Place.CU_MEM_LOCATION_TYPE_HOST), PINNED)
    assert int(host) != int(standard)
    assert driver_result(cu.cuMemSetMemPool, location(), PINNED, host) == "INVALID_VALUE"
    assert driver_result(cu.cuMemPoolDestroy, standard) == "INVALID_VALUE"


def test_the_current_pool_may_be_destroyed(context: Any, driver_call: Call) -> None:
    made = driver_call(cu.cuMemPoolCreate, properties())
    driver_call(cu.cuDeviceSetMemPool, 0, made)
    driver_call(cu.cuMemPoolDestroy, made)
    assert int(driver_call(cu.cuDeviceGetMemPool, 0)) == int(driver_call(cu.cuDeviceGetDefaultMemPool, 0))


@pytest.mark.parametrize(
    "wrong",
    [
        properties(Place.CU_MEM_LOCATION_TYPE_INVALID),
        properties(Place.CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT),
        properties(Place.CU_MEM_LOCATION_TYPE_HOST, handleTypes=POSIX),
        properties(allocType=MANAGED, handleTypes=POSIX),
        properties(allocType=MANAGED, maxSize=MIB),
    ],
)
def test_wrong_properties(wrong: Any, context: Any, driver_result: Call) -> None:
    assert driver_result(cu.cuMemPoolCreate, wrong) == "INVALID_VALUE"


def test_attributes(pool: Any, streams: list[Any], driver_call: Call, driver_result: Call) -> None:
    for which in (
        Attribute.CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES,
        Attribute.CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC,
        Attribute.CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES,
    ):
        assert number(pool, which) == 1
        driver_call(cu.cuMemPoolSetAttribute, pool, which, 0)
        assert number(pool, which) == 0
    pointer = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[0])
    driver_call(cu.cuMemFreeAsync, pointer, streams[0])
    driver_call(cu.cuStreamSynchronize, streams[0])
    high = Attribute.CU_MEMPOOL_ATTR_USED_MEM_HIGH
    assert number(pool, high) >= 4 * MIB
    assert driver_result(cu.cuMemPoolSetAttribute, pool, high, cu.cuuint64_t(5)) == "INVALID_VALUE"
    driver_call(cu.cuMemPoolSetAttribute, pool, high, cu.cuuint64_t(0))
    assert number(pool, high) == 0
    reserved = Attribute.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT
    assert number(pool, reserved) >= 4 * MIB
    assert driver_result(cu.cuMemPoolSetAttribute, pool, reserved, cu.cuuint64_t(0)) == "INVALID_VALUE"


def test_largest_size(context: Any, streams: list[Any], driver_call: Call, driver_result: Call) -> None:
    made = driver_call(cu.cuMemPoolCreate, properties(maxSize=8 * MIB))
    pointer = driver_call(cu.cuMemAllocFromPoolAsync, 6 * MIB, made, streams[0])
    assert driver_result(cu.cuMemAllocFromPoolAsync, 64 * MIB, made, streams[0]) == "OUT_OF_MEMORY"
    driver_call(cu.cuMemFreeAsync, pointer, streams[0])
    driver_call(cu.cuMemPoolDestroy, made)


def test_own_stream_uses_freed_memory_at_once(pool: Any, streams: list[Any], gate: Any, driver_call: Call) -> None:
    first = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[0])
    hold(streams[0], gate)
    driver_call(cu.cuMemFreeAsync, first, streams[0])
    second = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[0])
    assert int(second) == int(first)
    driver_call(cu.cuMemFreeAsync, second, streams[0])


@pytest.mark.parametrize("ordered", [False, True])
def test_other_stream_uses_freed_memory_after_an_event(
    ordered: bool, pool: Any, streams: list[Any], gate: Any, driver_call: Call
) -> None:
    first = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[0])
    hold(streams[0], gate)
    driver_call(cu.cuMemFreeAsync, first, streams[0])
    if ordered:
        event = driver_call(cu.cuEventCreate, cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value)
        driver_call(cu.cuEventRecord, event, streams[0])
        driver_call(cu.cuStreamWaitEvent, streams[1], event, 0)
    second = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[1])
    assert (int(second) == int(first)) == ordered
    driver_call(cu.cuMemFreeAsync, second, streams[1])


@pytest.mark.parametrize("freed_in_legacy", [True, False])
def test_a_free_comes_after_the_work_that_its_stream_waits_for(
    freed_in_legacy: bool, context: Any, streams: list[Any], gate: Any, driver_call: Call
) -> None:
    """Freed in a default stream that has no work of its own, but comes after a blocking stream that uses the memory."""
    legacy, blocking = cu.CUstream(cu.CU_STREAM_LEGACY), driver_call(cu.cuStreamCreate, 0)
    user, freer = (blocking, legacy) if freed_in_legacy else (legacy, blocking)
    first = driver_call(cu.cuMemAllocAsync, 4 * MIB, streams[0])
    driver_call(cu.cuStreamSynchronize, streams[0])
    hold(user, gate)
    driver_call(cu.cuMemsetD8Async, first, 7, 4 * MIB, user)
    driver_call(cu.cuMemFreeAsync, first, freer)
    second = driver_call(cu.cuMemAllocAsync, 4 * MIB, streams[1])
    driver_call(cu.cuMemsetD8Async, second, 1, 4 * MIB, streams[1])
    if int(second) != int(first):  # else it may wait for the gate
        driver_call(cu.cuStreamSynchronize, streams[1])
    gate.value = 1
    driver_call(cu.cuCtxSynchronize)
    values = bytearray(4 * MIB)
    driver_call(cu.cuMemcpyDtoH, values, second, 4 * MIB)
    assert values == b"\1" * (4 * MIB)
    driver_call(cu.cuMemFreeAsync, second, streams[1])


@pytest.mark.parametrize("allowed", [1, 0])
def test_opportunistic_reuse(allowed: int, pool: Any, streams: list[Any], gate: Any, driver_call: Call) -> None:
    import time

    driver_call(cu.cuMemPoolSetAttribute, pool, Attribute.CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC, allowed)
    driver_call(cu.cuMemPoolSetAttribute, pool, Attribute.CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES, 0)
    first = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[0])
    driver_call(cu.cuMemsetD8Async, first, 0, 4 * MIB, streams[0])
    driver_call(cu.cuMemFreeAsync, first, streams[0])
    driver_call(cu.cuStreamWriteValue32, streams[0], ctypes.addressof(gate), 1, 0)
    limit = time.monotonic() + 10
    while gate.value == 0 and time.monotonic() < limit:
        time.sleep(0.001)  # the free has been passed; nobody asked the driver
    second = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[1])
    assert (int(second) == int(first)) == bool(allowed)
    driver_call(cu.cuMemFreeAsync, second, streams[1])
    driver_call(cu.cuStreamSynchronize, streams[0])  # now the program knows
    third = driver_call(cu.cuMemAllocFromPoolAsync, 4 * MIB, pool, streams[1])
    assert int(third) in (int(first), int(second))
    driver_call(cu.cuMemFreeAsync, third, streams[1])


@pytest.mark.parametrize("kind", [Place.CU_MEM_LOCATION_TYPE_HOST, Place.CU_MEM_LOCATION_TYPE_HOST_NUMA])
def test_host_pool(kind: Any, context: Any, streams: list[Any], driver_call: Call) -> None:
    made = driver_call(cu.cuMemPoolCreate, properties(kind))
    assert number(made, Attribute.CU_MEMPOOL_ATTR_LOCATION_TYPE) == int(kind)
    pointer = int(driver_call(cu.cuMemAllocFromPoolAsync, 4096, made, streams[0]))
    driver_call(cu.cuMemsetD8Async, pointer, 0x3C, 4096, streams[0])
    driver_call(cu.cuStreamSynchronize, streams[0])
    assert ctypes.string_at(pointer, 4096) == b"\x3c" * 4096  # the host reaches it
    kind_of = driver_call(cu.cuPointerGetAttribute, cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_MEMORY_TYPE, pointer)
    assert int(kind_of) == int(cu.CUmemorytype.CU_MEMORYTYPE_HOST)
    driver_call(cu.cuMemFreeAsync, pointer, streams[0])
    driver_call(cu.cuMemPoolDestroy, made)


def test_managed_pool(context: Any, streams: list[Any], driver_call: Call) -> None:
    made = driver_call(cu.cuMemPoolCreate, properties(Place.CU_MEM_LOCATION_TYPE_NONE, allocType=MANAGED))
    pointer = int(driver_call(cu.cuMemAllocFromPoolAsync, 4096, made, streams[0]))
    driver_call(cu.cuMemsetD8Async, pointer, 0x3C, 4096, streams[0])
    driver_call(cu.cuStreamSynchronize, streams[0])
    assert ctypes.string_at(pointer, 4096) == b"\x3c" * 4096
    attribute = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_MANAGED
    assert driver_call(cu.cuPointerGetAttribute, attribute, pointer)
    driver_call(cu.cuMemFreeAsync, pointer, streams[0])
    driver_call(cu.cuMemPoolDestroy, made)


def access(device: int, flags: str) -> Any:
    desc = cu.CUmemAccessDesc()
    desc.location = location(number=device)
    desc.flags = getattr(cu.CUmemAccess_flags, f"CU_MEM_ACCESS_FLAGS_PROT_{flags}")
    return desc


def test_access(pool: Any, two_devices: Any, driver_call: Call, driver_result: Call) -> None:
    assert int(driver_call(cu.cuMemPoolGetAccess, pool, location(number=0))) == 3
    assert int(driver_call(cu.cuMemPoolGetAccess, pool, location(number=1))) == 0
    if driver_call(cu.cuDeviceCanAccessPeer, 1, 0):
        driver_call(cu.cuMemPoolSetAccess, pool, [access(1, "READWRITE")], 1)
        assert int(driver_call(cu.cuMemPoolGetAccess, pool, location(number=1))) == 3
        driver_call(cu.cuMemPoolSetAccess, pool, [access(1, "NONE")], 1)
        assert int(driver_call(cu.cuMemPoolGetAccess, pool, location(number=1))) == 0
    assert driver_result(cu.cuMemPoolSetAccess, pool, [access(0, "NONE")], 1) != "SUCCESS"


def importer(channel: Channel, descriptor: int) -> None:
    call(cu.cuInit, 0)
    call(cu.cuCtxSetCurrent, call(cu.cuDevicePrimaryCtxRetain, 0))
    pool = call(cu.cuMemPoolImportFromShareableHandle, descriptor, POSIX, 0)
    stream = call(cu.cuStreamCreate, 0)
    channel.say(
        [
            result(cu.cuMemAllocFromPoolAsync, 4096, pool, stream),
            int(call(cu.cuMemPoolGetAttribute, pool, Attribute.CU_MEMPOOL_ATTR_EXPORT_HANDLE_TYPES)),
        ]
    )
    data = cu.CUmemPoolPtrExportData()
    ctypes.memmove(data.getPtr(), bytes.fromhex(channel.hear()), 64)
    pointer = call(cu.cuMemPoolImportPointer, pool, data)
    back = ctypes.create_string_buffer(4)
    call(cu.cuMemcpyDtoH, ctypes.addressof(back), pointer, 4)
    channel.say(back.raw.hex())
    call(cu.cuMemsetD8Async, pointer, 0x66, 4, stream)
    call(cu.cuMemFreeAsync, pointer, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuMemPoolDestroy, pool)
    channel.say("done")


def test_pool_of_another_process(context: Any, streams: list[Any], driver_call: Call, peer: Call) -> None:
    made = driver_call(cu.cuMemPoolCreate, properties(handleTypes=POSIX))
    pointer = driver_call(cu.cuMemAllocFromPoolAsync, 5000, made, streams[0])
    driver_call(cu.cuMemsetD8Async, pointer, 0x11, 5000, streams[0])
    driver_call(cu.cuStreamSynchronize, streams[0])
    descriptor = int(driver_call(cu.cuMemPoolExportToShareableHandle, made, POSIX, 0))
    other = peer(importer, descriptor, pass_fds=(descriptor,))
    assert other.hear() == ["INVALID_VALUE", 0]
    data = driver_call(cu.cuMemPoolExportPointer, pointer)
    other.say(ctypes.string_at(data.getPtr(), 64).hex())
    assert other.hear() == "11111111"
    assert other.hear() == "done"
    assert other.wait() == 0
    os.close(descriptor)
    back = ctypes.create_string_buffer(4)
    driver_call(cu.cuMemcpyDtoH, ctypes.addressof(back), pointer, 4)
    assert back.raw == b"\x66" * 4
    driver_call(cu.cuMemFreeAsync, pointer, streams[0])


def test_only_pools_made_for_it_are_exported(pool: Any, streams: list[Any], driver_result: Call) -> None:
    assert driver_result(cu.cuMemPoolExportToShareableHandle, pool, POSIX, 0) == "INVALID_VALUE"
    pointer = call(cu.cuMemAllocFromPoolAsync, 5000, pool, streams[0])
    assert driver_result(cu.cuMemPoolExportPointer, pointer) == "INVALID_VALUE"
    call(cu.cuMemFreeAsync, pointer, streams[0])
