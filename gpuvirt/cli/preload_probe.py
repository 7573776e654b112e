# SPDX-License-Identifier: Apache-2.0
"""Run as a governed program by `gpuvirt doctor`: which file answers cuInit on each way to the driver?

Makes no CUDA call.

`python -m gpuvirt.cli.preload_probe` prints JSON: way -> path of the library, or "error: ...".
"""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

WAYS = ("libcuda.so.1", "libcuda.so")


def file_of_address(address: int, maps: str) -> str:
    """The mapped file that holds `address`, from the text of /proc/PID/maps; "" when none does."""
    for line in maps.splitlines():
        fields = line.split(None, 5)
        start, end = (int(part, 16) for part in fields[0].split("-"))
        if start <= address < end:
            return fields[5] if len(fields) > 5 else ""
    return ""


def resolve(way: str) -> str:
    """The file whose cuInit a program gets that opens the driver by this name."""
    try:
        function = ctypes.CDLL(way).cuInit
    except (OSError, AttributeError) as error:
        return f"error: {error}"
    address = ctypes.cast(function, ctypes.c_void_p).value or 0
    return file_of_address(address, Path("/proc/self/maps").read_text())


def main() -> int:
    """Prints the answer for each way."""
    print(json.dumps({way: resolve(way) for way in WAYS}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
