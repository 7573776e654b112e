# SPDX-License-Identifier: Apache-2.0
"""The soft GPU's books, read in this process: memory, engine time and traffic of each process."""

from __future__ import annotations

import ctypes
import json
import os
from typing import Any

from harness.softgpu import Device


class Ledger:
    """Of the board that the first one of a process is made for; the library opens no other."""

    def __init__(self, device: Device) -> None:
        assert device.drivers is not None
        os.environ.update({k: v for k, v in device.variables.items() if k.startswith("GPUVIRT_SOFTGPU_")})
        self._describe = ctypes.CDLL(str(device.drivers / "libnvidia-ml.so.1")).gv_softgpu_describe
        self._describe.restype = ctypes.c_size_t
        self._describe.argtypes = [ctypes.c_char_p, ctypes.c_size_t]

    def read(self) -> dict[str, Any]:
        """As native/softgpu/describe.c writes it."""
        text = ctypes.create_string_buffer(1 << 18)
        length = int(self._describe(text, len(text)))
        assert 0 < length < len(text)
        books: dict[str, Any] = json.loads(text.value)
        return books

    def account(self, pid: int) -> dict[str, Any]:
        """What a process did on the first device; empty when it is not there."""
        for process in self.read()["devices"][0]["processes"]:
            if process["pid"] == pid:
                return dict(process)
        return {}
