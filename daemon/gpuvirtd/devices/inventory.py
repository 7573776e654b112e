# SPDX-License-Identifier: Apache-2.0
"""The GPUs that this daemon serves."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Protocol

from gpuvirt.errors import ConfigError, DriverUnavailable


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU as NVML describes it. Bytes."""

    index: int
    uuid: str  # "GPU-6b1f..."
    name: str
    memory_total: int

    @property
    def uuid_bytes(self) -> bytes:
        return uuid_bytes(self.uuid)


@dataclass(frozen=True, slots=True)
class Usage:
    """What NVML says is in use at one moment."""

    used: int
    pids: tuple[int, ...] = ()


class Inventory(Protocol):
    """Where devices and their use are asked. Every call has a deadline and raises DriverUnavailable."""

    async def open(self) -> None: ...

    @property
    def driver_version(self) -> str: ...

    async def devices(self) -> list[Device]: ...

    async def usage(self, device: Device) -> Usage: ...

    def close(self) -> None: ...


def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of "GPU-<uuid>". Raises DriverUnavailable."""
    try:
        return uuid.UUID(text.removeprefix("GPU-")).bytes
    except ValueError:
        raise DriverUnavailable(f"NVML names a device '{text}', which is no GPU UUID") from None


def select(devices: list[Device], wanted: str | list[int | str]) -> list[Device]:
    """The devices that the configuration names.

    Raises ConfigError for one that is not there, DriverUnavailable for none.
    """
    if not devices:
        raise DriverUnavailable(
            "NVML finds no GPU on this host", "check the driver, or GPUVIRT_SOFTGPU_* for the soft GPU"
        )
    if isinstance(wanted, str):
        return devices
    chosen = []
    for name in wanted:
        found = [device for device in devices if name in (device.index, device.uuid)]
        if not found:
            known = ", ".join(f"{device.index} ({device.uuid})" for device in devices)
            raise ConfigError(f"gpus.devices: there is no GPU {name!r}", f"known: {known}")
        if found[0] not in chosen:
            chosen.append(found[0])
    if not chosen:
        raise ConfigError("gpus.devices is empty", "name at least one GPU, or write all")
    return chosen
