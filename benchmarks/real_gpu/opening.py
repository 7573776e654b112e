# SPDX-License-Identifier: Apache-2.0
"""Probe of what starting costs: the driver's load and initialisation, and a process that has the shims preloaded."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from gpuvirt import paths
from real_gpu.symbols import driver_path

ROUNDS, STARTS = 5, 60
STEPS = """
import ctypes, json, sys, time
found, last = {}, time.perf_counter()
def took(name):
    global last
    now = time.perf_counter(); found[name] = (now - last) * 1e3; last = now
library = ctypes.CDLL(sys.argv[1]); took("dlopen_ms")
if library.cuInit(0) != 0: sys.exit("cuInit fails")
took("cuInit_ms")
context = ctypes.c_void_p()
if library.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) != 0: sys.exit("cuDevicePrimaryCtxRetain fails")
took("context_ms")
print(json.dumps(found))
"""


def opening() -> dict[str, Any]:
    """Milliseconds (median, range) of dlopen, cuInit and the first context in fresh processes, and of /bin/true."""
    driver = str(driver_path())
    runs = []
    for _ in range(ROUNDS):
        done = subprocess.run(
            [sys.executable, "-c", STEPS, driver], capture_output=True, text=True, check=True, timeout=60
        )
        runs.append(json.loads(done.stdout))
    found: dict[str, Any] = {name: spread([run[name] for run in runs]) for name in runs[0]}
    shims = [str(paths.library(name)) for name in ("libgpuvirt-shim.so", "libgpuvirt-nvml.so")]
    preloads = {"true_ms": "", "true_with_shim_ms": shims[0], "true_with_both_shims_ms": ":".join(shims)}
    times: dict[str, list[float]] = {name: [] for name in preloads}
    for _ in range(STARTS):  # by turns, so that the machine is the same for all
        for name, preload in preloads.items():
            times[name].append(timed(lambda preload=preload: start(preload)))  # type: ignore[misc]
    return found | {name: spread(values) for name, values in times.items()}


def start(preload: str) -> None:
    """/bin/true with (or without) libraries preloaded."""
    environ = {**os.environ, "LD_PRELOAD": preload} if preload else dict(os.environ)
    subprocess.run(["/bin/true"], env=environ, check=True)


def timed(call: Callable[[], None]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1e3


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {
        "median": round(statistics.median(values), 3), "low": round(min(values), 3), "high": round(max(values), 3)
    }  # fmt: skip
