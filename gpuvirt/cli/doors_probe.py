# SPDX-License-Identifier: Apache-2.0
"""Run as a governed program by `gpuvirt doctor`: which file answers on each way that programs bind to driver and NVML?

Opens the driver (the shim does, to answer cuGetProcAddress) but initialises nothing.

`python -m gpuvirt.cli.doors_probe` prints JSON: door -> path of the library that answers, or "error: ...".
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path

from gpuvirt.cli.preload_probe import file_of_address

_FUNCTION, _VERSION = b"cuMemAlloc", 3020  # one that the shim answers itself


def _file(address: int | None) -> str:
    return file_of_address(address or 0, Path("/proc/self/maps").read_text())


def _symbol(library: str | None, name: str) -> int | None:
    return ctypes.cast(getattr(ctypes.CDLL(library), name), ctypes.c_void_p).value


def _asked(symbol: str, *more: object) -> int | None:
    """The address that cuGetProcAddress gives; `more`: what the ABI has beyond four arguments."""
    find = getattr(ctypes.CDLL("libcuda.so.1"), symbol)
    address = ctypes.c_void_p()
    status = find(_FUNCTION, ctypes.byref(address), _VERSION, ctypes.c_uint64(0), *more)
    if status != 0:
        raise OSError(f"{symbol} gives error {status}")
    return address.value


DOORS: dict[str, Callable[[], int | None]] = {
    "linked with -lcuda": lambda: _symbol(None, "cuInit"),
    "dlopen libcuda.so.1": lambda: _symbol("libcuda.so.1", "cuInit"),
    "dlopen libcuda.so": lambda: _symbol("libcuda.so", "cuInit"),
    "cuGetProcAddress of CUDA 11": lambda: _asked("cuGetProcAddress"),
    "cuGetProcAddress of CUDA 12, cudaGetDriverEntryPoint": lambda: _asked("cuGetProcAddress_v2", None),
    "NVML": lambda: _symbol("libnvidia-ml.so.1", "nvmlInit_v2"),
}


def main() -> int:
    """Prints the answer for each door."""
    answers = {}
    for door, find in DOORS.items():
        try:
            answers[door] = _file(find())
        except (OSError, AttributeError) as error:
            answers[door] = f"error: {error}"
    print(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
