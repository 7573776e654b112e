# SPDX-License-Identifier: Apache-2.0
"""Finding the driver, naming GPUs, and an NVML that hangs."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid

import pytest

from gpuvirt.errors import ConfigError, DriverUnavailable
from gpuvirtd.devices import driver
from gpuvirtd.devices.inventory import Device, select, uuid_bytes
from gpuvirtd.devices.nvml import NvmlInventory, Worker

DEVICES = [Device(index, f"GPU-{uuid.UUID(int=index + 5)}", "x", 1 << 30) for index in range(3)]


def test_named_driver(tmp_path):
    library = tmp_path / "libcuda.so.1"
    library.touch()
    assert driver.find_driver(str(library), {}, []) == library
    with pytest.raises(DriverUnavailable, match="own shim"):
        driver.find_driver(str(library), {}, [library])
    with pytest.raises(DriverUnavailable, match="does not exist"):
        driver.find_driver(str(tmp_path / "none"), {}, [])


def test_automatic_driver_is_never_our_shim(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "WELL_KNOWN", [])
    monkeypatch.setattr(driver, "_loader_cache", lambda name: [])
    shim = tmp_path / "shim.so"
    shim.touch()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        folder.mkdir()
    (ours / "libcuda.so.1").symlink_to(shim)
    (theirs / "libcuda.so.1").touch()
    environ = {"LD_LIBRARY_PATH": f"relative:{ours}:{theirs}"}
    assert driver.find_driver("auto", environ, [shim]) == theirs / "libcuda.so.1"
    with pytest.raises(DriverUnavailable, match=r"no CUDA driver .* on this host"):
        driver.find_driver("auto", {"LD_LIBRARY_PATH": str(ours)}, [shim])


def test_nvml_beside_the_driver_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(driver, "WELL_KNOWN", [])
    monkeypatch.setattr(driver, "_loader_cache", lambda name: [])
    with pytest.raises(DriverUnavailable, match="no NVML"):
        driver.find_nvml("auto", tmp_path / "libcuda.so.1", {})
    (tmp_path / "libnvidia-ml.so.1").touch()
    assert driver.find_nvml("auto", tmp_path / "libcuda.so.1", {}) == tmp_path / "libnvidia-ml.so.1"
    with pytest.raises(DriverUnavailable, match="does not exist"):
        driver.find_nvml("/none", tmp_path / "libcuda.so.1", {})


def test_selection_of_gpus():
    assert select(DEVICES, "all") == DEVICES
    assert select(DEVICES, [2, DEVICES[0].uuid, 2]) == [DEVICES[2], DEVICES[0]]
    with pytest.raises(ConfigError, match="there is no GPU 7"):
        select(DEVICES, [7])
    with pytest.raises(ConfigError, match="empty"):
        select(DEVICES, [])
    with pytest.raises(DriverUnavailable, match="no GPU"):
        select([], "all")


def test_uuid_of_a_gpu():
    assert uuid_bytes("GPU-00000000-0000-0000-0000-000000000102") == bytes(14) + b"\x01\x02"
    with pytest.raises(DriverUnavailable):
        uuid_bytes("MIG-nonsense")


def test_call_that_hangs_meets_its_deadline_and_the_next_fails_at_once():
    async def scene():
        release = threading.Event()
        worker = Worker(0.05)
        assert await worker.call("fine", lambda: 7) == 7
        with pytest.raises(DriverUnavailable, match="did not answer"):
            await worker.call("hangs", release.wait)
        began = time.monotonic()
        with pytest.raises(DriverUnavailable, match="still hangs"):
            await worker.call("next", lambda: 1)
        assert time.monotonic() - began < 0.04
        release.set()
        for _ in range(1000):
            try:
                assert await worker.call("again", lambda: 2) == 2
                break
            except DriverUnavailable:
                await asyncio.sleep(0.005)
        else:
            raise AssertionError("never recovered")
        worker.close()

    asyncio.run(scene())


def test_library_that_is_none(tmp_path):
    broken = tmp_path / "libnvidia-ml.so.1"
    broken.write_text("not ELF")

    async def scene():
        inventory = NvmlInventory(broken, 5)
        with pytest.raises(DriverUnavailable, match="NVML cannot be started"):
            await inventory.open()
        inventory.close()

    asyncio.run(scene())
