# SPDX-License-Identifier: Apache-2.0
"""Devices and contexts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver as cu

from support.driver_calls import call
from support.peer import Channel

Call = Callable[..., Any]
Attribute = cu.CUdevice_attribute


def test_device(context: Any, driver_call: Call, driver_result: Call) -> None:
    assert driver_call(cu.cuDeviceGetCount) >= 1
    assert driver_result(cu.cuDeviceGet, 999) == "INVALID_DEVICE"
    device = driver_call(cu.cuCtxGetDevice)
    assert int(device) == 0
    assert driver_call(cu.cuDeviceGetName, 100, device).rstrip(b"\0")
    total = driver_call(cu.cuDeviceTotalMem, device)
    free, all_bytes = driver_call(cu.cuMemGetInfo)
    assert 0 < free <= all_bytes <= total
    assert len(driver_call(cu.cuDeviceGetUuid, device).bytes) == 16

    def attribute(which: Any) -> int:
        return int(driver_call(cu.cuDeviceGetAttribute, which, device))

    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_WARP_SIZE) == 32
    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK) == 1024
    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING) == 1
    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) == 1
    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) >= 1
    assert attribute(Attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) >= 7


def test_pci_address_leads_back(context: Any, driver_call: Call) -> None:
    device = driver_call(cu.cuCtxGetDevice)
    address = driver_call(cu.cuDeviceGetPCIBusId, 32, device)
    assert int(driver_call(cu.cuDeviceGetByPCIBusId, address)) == int(device)


def test_stack_of_contexts(context: Any, driver_call: Call, driver_result: Call) -> None:
    assert int(driver_call(cu.cuCtxGetCurrent)) == int(context)
    other = driver_call(cu.cuCtxCreate, None, 0, 0)
    assert int(driver_call(cu.cuCtxGetCurrent)) == int(other)
    assert int(driver_call(cu.cuCtxPopCurrent)) == int(other)
    assert int(driver_call(cu.cuCtxGetCurrent)) == int(context)
    driver_call(cu.cuCtxPushCurrent, other)
    driver_call(cu.cuCtxDestroy, other)
    assert int(driver_call(cu.cuCtxGetCurrent)) == int(context)
    driver_call(cu.cuCtxSetCurrent, None)
    assert driver_result(cu.cuCtxGetDevice) == "INVALID_CONTEXT"
    assert driver_result(cu.cuMemAlloc, 4) == "INVALID_CONTEXT"


def test_current_context_is_of_the_thread(context: Any, driver_call: Call) -> None:
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(int(driver_call(cu.cuCtxGetCurrent))))
    thread.start()
    thread.join()
    assert seen == [0]


def test_primary_context(context: Any, driver_call: Call) -> None:
    again = driver_call(cu.cuDevicePrimaryCtxRetain, 0)
    assert int(again) == int(context)
    driver_call(cu.cuDevicePrimaryCtxRelease, 0)
    _, active = driver_call(cu.cuDevicePrimaryCtxGetState, 0)
    assert active == 1


def test_limits_and_priorities(context: Any, driver_call: Call) -> None:
    driver_call(cu.cuCtxSetLimit, cu.CUlimit.CU_LIMIT_STACK_SIZE, 4096)
    assert driver_call(cu.cuCtxGetLimit, cu.CUlimit.CU_LIMIT_STACK_SIZE) == 4096
    least, greatest = driver_call(cu.cuCtxGetStreamPriorityRange)
    assert greatest <= least == 0


def test_error_texts(driver_call: Call) -> None:
    assert driver_call(cu.cuGetErrorName, cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY) == b"CUDA_ERROR_OUT_OF_MEMORY"
    assert driver_call(cu.cuGetErrorString, cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY) == b"out of memory"


def look_at_device(channel: Channel, expected: str) -> None:
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    channel.say({"uuid": call(cu.cuDeviceGetUuid, device).bytes.hex(), "expected": expected})
    assert channel.hear() == "end"


def test_another_process_sees_the_same_device(context: Any, peer: Call, driver_call: Call) -> None:
    uuid = driver_call(cu.cuDeviceGetUuid, 0).bytes.hex()
    other = peer(look_at_device, uuid)
    assert other.hear() == {"uuid": uuid, "expected": uuid}
    other.say("end")
    assert other.wait() == 0


def test_two_devices_are_two(two_devices: tuple[Any, Any], driver_call: Call) -> None:
    one, two = two_devices
    assert driver_call(cu.cuDeviceGetUuid, one).bytes != driver_call(cu.cuDeviceGetUuid, two).bytes
    assert driver_call(cu.cuDeviceGetPCIBusId, 32, one) != driver_call(cu.cuDeviceGetPCIBusId, 32, two)
