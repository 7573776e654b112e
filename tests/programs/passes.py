# SPDX-License-Identifier: Apache-2.0
"""passes.py CALLS: calls a function of class pass-through so often, directly and through a pointer, and looks unknown
names up; then prints what this process' client page counts."""

from __future__ import annotations

import ctypes
import re
import sys
import time
from pathlib import Path

from gpuvirt.control._control_block import ffi

calls = int(sys.argv[1])
driver = ctypes.CDLL("libcuda.so.1")
context, pointer, count = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
assert driver.cuInit(0) == 0


def look_up(name: bytes, version: int, flags: int) -> ctypes.c_void_p:
    """Three times, to be counted once."""
    for _ in range(3):
        asked = (name, ctypes.byref(pointer), version, ctypes.c_uint64(flags), None)
        assert driver.cuGetProcAddress_v2(*asked) == 0, (name, version, flags)
    return pointer


for name, version, flags in ((b"cuNewerThing", 12000, 0), (b"cuDeviceGetCount", 13060, 0), (b"cuInit", 12000, 4)):
    if len(sys.argv) > 2:
        assert look_up(name, version, flags).value
found = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(look_up(b"cuDeviceGetCount", 2000, 0).value)
assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
for _ in range(calls):
    assert driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    assert found(ctypes.byref(count)) == 0
time.sleep(0.8)  # longer than a tick of the control thread
(line,) = [line for line in Path("/proc/self/maps").read_text().splitlines() if "gpuvirt-client" in line]
matched = re.match(r"([0-9a-f]+)-", line)
assert matched is not None
page = ffi.cast("struct gv_client *", int(matched[1], 16))
print(f"passed={page.passed_calls} unknown={page.unknown_names}", flush=True)
time.sleep(1.0)  # the daemon looks too
