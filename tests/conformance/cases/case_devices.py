# SPDX-License-Identifier: Apache-2.0
"""What can be asked about devices, and what is answered before cuInit."""

from __future__ import annotations

import ctypes
from typing import Any

import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result
from support.peer import Channel

Attribute = cu.CUdevice_attribute
ALWAYS_THERE = {  # attribute: least value, of any device that we may meet
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK: 1024,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X: 1024,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y: 1024,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z: 64,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X: 2**31 - 1,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y: 65535,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z: 65535,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK: 48 << 10,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: 48 << 10,
    Attribute.CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY: 65536,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK: 65536,
    Attribute.CU_DEVICE_ATTRIBUTE_CLOCK_RATE: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_CONCURRENT_KERNELS: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR: 1024,
    Attribute.CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY: 1,
    Attribute.CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR: 16,
    Attribute.CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: 1,
}


@pytest.fixture
def device() -> Any:
    call(cu.cuInit, 0)
    return call(cu.cuDeviceGet, 0)


def ask_too_early(channel: Channel) -> None:
    answers = {
        "count": result(cu.cuDeviceGetCount),
        "get": result(cu.cuDeviceGet, 0),
        "current": result(cu.cuCtxGetCurrent),
        "alloc": result(cu.cuMemAlloc, 16),
        "name": result(cu.cuDeviceGetName, 100, cu.CUdevice(0)),
        "wrong flags": result(cu.cuInit, 1),
        "version": result(cu.cuDriverGetVersion),
        "error name": result(cu.cuGetErrorName, cu.CUresult.CUDA_ERROR_UNKNOWN),
    }
    channel.say(answers)


def test_before_init(peer: Any) -> None:
    answers = peer(ask_too_early).hear()
    assert {answers.pop(name) for name in ("version", "error name")} == {"SUCCESS"}
    assert answers.pop("wrong flags") == "INVALID_VALUE"
    assert set(answers.values()) == {"NOT_INITIALIZED"}, answers


def test_init_again(device: Any) -> None:
    call(cu.cuInit, 0)
    assert call(cu.cuDriverGetVersion) >= 12000


def test_ordinals(device: Any) -> None:
    count = call(cu.cuDeviceGetCount)
    assert result(cu.cuDeviceGet, count) == "INVALID_DEVICE"
    assert result(cu.cuDeviceGet, -1) == "INVALID_DEVICE"
    assert result(cu.cuDeviceTotalMem, cu.CUdevice(count)) == "INVALID_DEVICE"
    assert native("cuDeviceGet")(None, ctypes.c_int(0)) == "INVALID_VALUE"


def test_name_is_cut_to_its_buffer(device: Any) -> None:
    whole = call(cu.cuDeviceGetName, 256, device).split(b"\0")[0]
    assert len(whole) > 3
    room = ctypes.create_string_buffer(b"xxxxxxxx", 8)
    assert native("cuDeviceGetName")(room, ctypes.c_int(4), ctypes.c_int(int(device))) == "SUCCESS"
    assert room.raw == whole[:3] + b"\0xxxx"
    assert native("cuDeviceGetName")(None, ctypes.c_int(4), ctypes.c_int(int(device))) == "INVALID_VALUE"


def test_attributes(device: Any) -> None:
    for attribute, least in ALWAYS_THERE.items():
        assert call(cu.cuDeviceGetAttribute, attribute, device) >= least, attribute.name
    get, value = native("cuDeviceGetAttribute"), ctypes.c_int()
    for number in (0, -1, 100_000):
        assert get(ctypes.byref(value), ctypes.c_int(number), ctypes.c_int(int(device))) == "INVALID_VALUE"
    assert get(None, ctypes.c_int(1), ctypes.c_int(int(device))) == "INVALID_VALUE"
    for attribute in Attribute:  # the bindings may know more than the driver
        if attribute.name != "CU_DEVICE_ATTRIBUTE_MAX":
            assert result(cu.cuDeviceGetAttribute, attribute, device) in ("SUCCESS", "INVALID_VALUE"), attribute.name


def test_capability_and_properties_agree_with_attributes(device: Any) -> None:
    major, minor = call(cu.cuDeviceComputeCapability, device)
    assert major == call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device)
    assert minor == call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device)
    properties = call(cu.cuDeviceGetProperties, device)
    assert properties.maxThreadsPerBlock == 1024
    assert properties.SIMDWidth == 32
    assert list(properties.maxThreadsDim) == [1024, 1024, 64]
    assert properties.sharedMemPerBlock == call(
        cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, device
    )


def test_pci_address(device: Any) -> None:
    address = call(cu.cuDeviceGetPCIBusId, 13, device).split(b"\0")[0]
    assert len(address) == 12
    domain, bus, rest = address.split(b":")
    assert int(bus, 16) == call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_PCI_BUS_ID, device)
    assert int(domain, 16) == call(cu.cuDeviceGetAttribute, Attribute.CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID, device)
    for text in (address, address.lower(), b":".join([bus, rest]), b":".join([domain, bus, rest.split(b".")[0]])):
        assert int(call(cu.cuDeviceGetByPCIBusId, text)) == int(device), text
    assert result(cu.cuDeviceGetByPCIBusId, b"no address") == "INVALID_VALUE"
    assert result(cu.cuDeviceGetByPCIBusId, b"fffe:ee:00.0") == "INVALID_DEVICE"
    room = ctypes.create_string_buffer(8)
    assert native("cuDeviceGetPCIBusId")(room, ctypes.c_int(8), ctypes.c_int(int(device))) == "INVALID_VALUE"


def test_peers(two_devices: tuple[Any, Any]) -> None:
    one, two = two_devices
    assert call(cu.cuDeviceCanAccessPeer, one, one) == 0
    assert call(cu.cuDeviceCanAccessPeer, one, two) in (0, 1)
    which = cu.CUdevice_P2PAttribute.CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED
    assert call(cu.cuDeviceGetP2PAttribute, which, one, two) == call(cu.cuDeviceCanAccessPeer, one, two)
    assert result(cu.cuDeviceGetP2PAttribute, which, one, one) == "INVALID_DEVICE"
    assert result(cu.cuDeviceCanAccessPeer, one, cu.CUdevice(99)) == "INVALID_DEVICE"


def test_execution_affinity(device: Any) -> None:
    kind = cu.CUexecAffinityType.CU_EXEC_AFFINITY_TYPE_SM_COUNT
    assert call(cu.cuDeviceGetExecAffinitySupport, kind, device) in (0, 1)


def test_every_error_has_a_name_and_a_text() -> None:
    for error in cu.CUresult:
        if result(cu.cuGetErrorName, error) == "INVALID_VALUE":
            continue  # the bindings may know more than the driver
        assert call(cu.cuGetErrorName, error).decode() == error.name
        text = call(cu.cuGetErrorString, error).decode()
        assert text and text != error.name, error.name


@pytest.mark.parametrize("function", ["cuGetErrorName", "cuGetErrorString"])
def test_unknown_errors(function: str) -> None:
    text = ctypes.c_char_p(b"before")
    assert native(function)(ctypes.c_int(12345), ctypes.byref(text)) == "INVALID_VALUE"
    assert text.value is None
    assert native(function)(ctypes.c_int(0), None) == "INVALID_VALUE"
