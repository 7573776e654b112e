# SPDX-License-Identifier: Apache-2.0
"""The real daemon in a process of its own, with GPUs that are only figures. Started by conftest.py.

daemon_process.py CONFIG DEVICES_JSON SHIM
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from gpuvirt.errors import GpuvirtError
from gpuvirtd import config as settings
from gpuvirtd.app import App
from gpuvirtd.devices.inventory import Device, Usage
from gpuvirtd.log import configure


class StaticInventory:
    """Devices from the command line; their use from a file USED beside the configuration (bytes), else 0."""

    driver_version = "0.0"

    def __init__(self, devices: list[Device], used: Path) -> None:
        self._devices = devices
        self._used = used

    async def open(self) -> None:
        pass

    async def devices(self) -> list[Device]:
        return self._devices

    async def usage(self, device: Device) -> Usage:
        return Usage(int(self._used.read_text()) if self._used.exists() else 0)

    def close(self) -> None:
        pass


async def serve(config: settings.Config, inventory: StaticInventory, shim: Path) -> None:
    log = configure(config.daemon.log_level, config.daemon.log_format)
    await App(config, log, inventory=inventory, driver=Path("/nonexistent/libcuda.so.1"), shim=shim).run()


def main() -> int:
    path, devices, shim = Path(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
    try:
        config = settings.load(path, os.environ, {})
        inventory = StaticInventory([Device(**device) for device in devices], path.parent / "USED")
        asyncio.run(serve(config, inventory, shim))
    except GpuvirtError as error:
        print(f"gpuvirtd: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
