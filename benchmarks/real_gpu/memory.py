# SPDX-License-Identifier: Apache-2.0
"""Probes of device memory: what VMM calls cost, how fast the link is, what the driver makes of our habits."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from ctypes import addressof, c_char
from pathlib import Path
from typing import Any

from cuda.bindings import driver

from real_gpu.cuda import MIB, CallFailed, check, context, median, memory_property, read_write, timed, total_memory

EXTENTS_MIB = (2, 32, 128, 512)
PIECES_MIB = (2, 32, 128)
HINT = 0x1F0_000_000_000
AGAIN_MOST = 40_000_000_000  # bytes that vmm_again releases and creates


def vmm() -> dict[str, Any]:
    """Microseconds (median) of each VMM call by extent size; fresh handles, 20 at a time as far as they fit."""
    device = context()
    room = total_memory(device) // 4
    wanted, access = memory_property(), read_write()
    granularity = check(
        driver.cuMemGetAllocationGranularity(
            wanted, driver.CUmemAllocationGranularity_flags.CU_MEM_ALLOC_GRANULARITY_MINIMUM
        ),
        "cuMemGetAllocationGranularity",
    )
    found: dict[str, Any] = {"granularity": int(granularity)}
    for mib in EXTENTS_MIB:
        size = mib * MIB
        count = min(20, room // size)
        if count < 1:
            found[f"{mib} MiB"] = "larger than a quarter of the device"
            continue
        base = int(check(driver.cuMemAddressReserve(size * count, 0, 0, 0), "cuMemAddressReserve"))
        times: dict[str, list[float]] = {name: [] for name in ("create", "map", "set_access", "unmap", "release")}
        handles = []
        for place in range(base, base + size * count, size):
            handle, spent = timed(driver.cuMemCreate, size, wanted, 0)
            handles.append(handle)
            times["create"].append(spent)
            times["map"].append(timed(driver.cuMemMap, place, size, 0, handle, 0)[1])
            times["set_access"].append(timed(driver.cuMemSetAccess, place, size, [access], 1)[1])
        for place, handle in zip(range(base, base + size * count, size), handles, strict=True):
            times["unmap"].append(timed(driver.cuMemUnmap, place, size)[1])
            times["release"].append(timed(driver.cuMemRelease, handle)[1])
        check(driver.cuMemAddressFree(base, size * count), "cuMemAddressFree")
        medians = {f"{name}_us": median(values) for name, values in times.items()}
        ceiling = size / (sum(medians.values()) * 1e-6) / 1e9
        found[f"{mib} MiB"] = {**medians, "count": count, "ceiling_gb_per_s": round(ceiling, 1)}
    return found


def vmm_again() -> dict[str, Any]:
    """Microseconds of cuMemCreate of 128 MiB: at first, and right after half of the free memory was released.

    The kernel driver scrubs what is released; who creates at once may meet that.
    """
    context()
    wanted = memory_property()
    free, _ = check(driver.cuMemGetInfo(), "cuMemGetInfo")
    size = 128 * MIB if int(free) > 8 << 30 else 2 * MIB
    count = min(int(free) // 2, AGAIN_MOST) // size

    def create() -> tuple[list[Any], list[float]]:
        made = [timed(driver.cuMemCreate, size, wanted, 0) for _ in range(count)]
        return [handle for handle, _ in made], [spent for _, spent in made]

    handles, first = create()
    for handle in handles:
        timed(driver.cuMemRelease, handle)
    handles, again = create()
    for handle in handles:
        timed(driver.cuMemRelease, handle)
    return {
        "bytes": size * count,
        "handle_mib": size // MIB,
        "first": {"median_us": median(first), "longest_us": max(first), "all_ms": round(sum(first) / 1e3, 2)},
        "again": {"median_us": median(again), "longest_us": max(again), "all_ms": round(sum(again) / 1e3, 2)},
    }


def link() -> dict[str, Any]:
    """GB/s of pinned copies to the device, from it and both at once, by size of the piece."""
    device = context()
    largest = PIECES_MIB[-1] * MIB
    rounds = 8 if total_memory(device) > 1 << 33 else 2
    flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
    streams = [check(driver.cuStreamCreate(flags), "cuStreamCreate") for _ in range(2)]
    hosts = [int(check(driver.cuMemHostAlloc(largest, 0), "cuMemHostAlloc")) for _ in range(2)]
    devices = [int(check(driver.cuMemAlloc(largest), "cuMemAlloc")) for _ in range(2)]

    def run(to_device: bool, from_device: bool, piece: int) -> float:
        pieces = largest // piece * rounds
        best = 0.0
        for _ in range(3):
            began = time.perf_counter()
            for index in range(pieces):
                offset = index * piece % largest
                if to_device:
                    answer = driver.cuMemcpyHtoDAsync(devices[0] + offset, hosts[0] + offset, piece, streams[0])
                    check(answer, "cuMemcpyHtoDAsync")
                if from_device:
                    answer = driver.cuMemcpyDtoHAsync(hosts[1] + offset, devices[1] + offset, piece, streams[1])
                    check(answer, "cuMemcpyDtoHAsync")
            for stream in streams:
                check(driver.cuStreamSynchronize(stream), "cuStreamSynchronize")
            moved = pieces * piece * (to_device + from_device)
            best = max(best, moved / (time.perf_counter() - began) / 1e9)
        return round(best, 2)

    return {
        f"{mib} MiB": {
            "to_device_gb_per_s": run(True, False, mib * MIB),
            "from_device_gb_per_s": run(False, True, mib * MIB),
            "both_sum_gb_per_s": run(True, True, mib * MIB),
        }
        for mib in PIECES_MIB
    }


def reserve_hint() -> dict[str, Any]:
    """Whether cuMemAddressReserve gives the address that it is asked for, small and as large as the shim wants it."""
    device = context()
    found = {}
    for name, size in (("2 MiB", 2 * MIB), ("4x device memory", total_memory(device) * 4 // (2 * MIB) * 2 * MIB)):
        address = int(check(driver.cuMemAddressReserve(size, 0, HINT, 0), "cuMemAddressReserve"))
        found[name] = {"asked": hex(HINT), "got": hex(address), "honoured": address == HINT}
        check(driver.cuMemAddressFree(address, size), "cuMemAddressFree")
    return found


def host_register() -> dict[str, Any]:
    """Seconds per GiB to pin a tmpfs file, with and without its pages touched before; and to let it go again."""
    device = context()
    size = (1 << 30) if total_memory(device) > 1 << 33 else 128 * MIB
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else Path(tempfile.gettempdir())
    per_gib = (1 << 30) / size
    found: dict[str, Any] = {"bytes": size, "file": str(place)}
    for name in ("untouched", "touched before"):
        with tempfile.TemporaryFile(dir=place) as file:
            file.truncate(size)
            with mmap.mmap(file.fileno(), size) as view:
                if name == "touched before":
                    for offset in range(0, size, mmap.PAGESIZE):
                        view[offset] = 1
                window = (c_char * size).from_buffer(view)
                address = addressof(window)
                try:
                    _, spent = timed(driver.cuMemHostRegister, address, size, 1)
                    _, back = timed(driver.cuMemHostUnregister, address)
                finally:
                    del window  # else the mapping cannot be closed, and its complaint would hide the driver's
        found[name] = {
            "register_s_per_gib": round(spent / 1e6 * per_gib, 4),
            "unregister_s_per_gib": round(back / 1e6 * per_gib, 4),
        }
    return found


def legacy_ipc() -> dict[str, Any]:
    """What cuIpcGetMemHandle says to ordinary and to VMM memory, and what IS_LEGACY_CUDA_IPC_CAPABLE says."""
    context()
    size = 2 * MIB
    ordinary = int(check(driver.cuMemAlloc(size), "cuMemAlloc"))
    handle = check(driver.cuMemCreate(size, memory_property(), 0), "cuMemCreate")
    mapped = int(check(driver.cuMemAddressReserve(size, 0, 0, 0), "cuMemAddressReserve"))
    check(driver.cuMemMap(mapped, size, 0, handle, 0), "cuMemMap")
    check(driver.cuMemSetAccess(mapped, size, [read_write()], 1), "cuMemSetAccess")
    attribute = driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
    found = {}
    for name, address in (("cuMemAlloc", ordinary), ("VMM", mapped)):
        try:
            capable = driver.cuPointerGetAttribute(attribute, address)
            text = bool(capable[1]) if int(capable[0]) == 0 else capable[0].name
        except (TypeError, CallFailed) as error:
            text = str(error)
        found[name] = {"cuIpcGetMemHandle": driver.cuIpcGetMemHandle(address)[0].name, "capable": text}
    return found
