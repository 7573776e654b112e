# SPDX-License-Identifier: Apache-2.0
"""The driver API for probes: status to exception, a context, medians of call times."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver

MIB = 1 << 20


class CallFailed(Exception):
    """A driver call failed; the text names the call and its status."""


def check(answer: tuple[Any, ...], call: str) -> Any:
    """The result of a call without its status. Raises CallFailed."""
    if int(answer[0]) != 0:
        raise CallFailed(f"{call}: {answer[0].name}")
    return answer[1] if len(answer) == 2 else answer[1:]


def context() -> Any:
    """Initialises the driver, makes the primary context of device 0 current, returns the device. Raises CallFailed."""
    check(driver.cuInit(0), "cuInit")
    device = check(driver.cuDeviceGet(0), "cuDeviceGet")
    check(
        driver.cuCtxSetCurrent(check(driver.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")),
        "cuCtxSetCurrent",
    )
    return device


def total_memory(device: Any) -> int:
    """Bytes of the device."""
    return int(check(driver.cuDeviceTotalMem(device), "cuDeviceTotalMem"))


def timed(call: Callable[..., tuple[Any, ...]], *arguments: Any) -> tuple[Any, float]:
    """The result of a driver call without its status, and how long it took in microseconds. Raises CallFailed."""
    began = time.perf_counter_ns()
    answer = call(*arguments)
    spent = (time.perf_counter_ns() - began) / 1e3
    return (check(answer, call.__name__) if len(answer) > 1 else check((*answer, None), call.__name__)), spent


def median(values: list[float]) -> float:
    """Rounded to a tenth."""
    return round(statistics.median(values), 1)


def memory_property() -> Any:
    """Pinned memory of device 0, as the shim asks for it."""
    wanted = driver.CUmemAllocationProp()
    wanted.type = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wanted.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wanted.location.id = 0
    return wanted


def read_write() -> Any:
    """Access of device 0 to memory that it is given."""
    access = driver.CUmemAccessDesc()
    access.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.location.id = 0
    access.flags = driver.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return access
