#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Shares of the soft GPU's engine between two processes, counted from its ledger.

Equal kernels get equal shares whatever the length of their blocks; one that waits after each short kernel gets little,
as under the time slices of real hardware.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from harness import bench, probes, record
from harness.ledger import Ledger

DEVICE = 64 << 20
ENGINE_S = 2.0  # of engine time that is counted in each case
LIMIT_S = 60.0
LONG, SHORT = ("100000", "1000"), ("100000", "1")  # ns of a block, blocks of a kernel
# name, the two loads, bounds of the first one's share in percent
CASES = (
    ("equal kernels of many blocks", (*LONG, "queued"), (*LONG, "queued"), (48.0, 52.0)),
    ("equal kernels of one block", (*SHORT, "queued"), (*SHORT, "queued"), (48.0, 52.0)),
    ("blocks of 5 ms : of 0.1 ms", ("5000000", "100", "queued"), (*LONG, "queued"), (48.0, 52.0)),
    ("long : short kernels, both queued", (*LONG, "queued"), (*SHORT, "queued"), (45.0, 65.0)),
    ("long : short kernels with a wait each", (*LONG, "queued"), (*SHORT, "waiting"), (88.0, 99.0)),
)


def share(work: bench.Bench, ledger: Ledger, program: Path, loads: tuple[tuple[str, ...], ...]) -> dict[str, float]:
    """Runs both for ENGINE_S of engine time. Raises ProbeFailed."""
    environ = work.device.environ({"GPUVIRT_SOFTGPU_WORKERS": "1"})
    running = [work.children.start("load", [str(program), *load], environ, quiet=True) for load in loads]
    for child in running:
        if not work.children.wait(child, 30, until="ready"):
            raise probes.ProbeFailed(f"a load does not start: {list(child.lines)[-1:]}")

    def engine() -> list[int]:
        return [int(ledger.account(child.pid).get("engine_ns", 0)) for child in running]

    before, start = engine(), time.monotonic()
    had = [0, 0]
    while sum(had) < ENGINE_S * 1e9:
        time.sleep(0.02)
        had = [now - then for now, then in zip(engine(), before, strict=True)]
        if time.monotonic() - start > LIMIT_S:
            raise probes.ProbeFailed("the engine is hardly used; is this machine overloaded?")
    took = time.monotonic() - start
    for child in running:
        child.stop()
    return {"first_percent": 100 * had[0] / sum(had), "engine_s": sum(had) / 1e9, "wall_s": took}


def measure(work: bench.Bench) -> dict[str, Any]:
    """All cases. Raises ProbeFailed, and GpuvirtError when a share is out of bounds."""
    program, ledger = probes.build("load", work.scratch), Ledger(work.device)
    slice_us = int(ledger.read()["slice_us"])
    found, rows, out = {}, [], []
    for name, first, second, (low, high) in CASES:
        work.say(name)
        result = share(work, ledger, program, (first, second))
        found[name] = result
        kept = low <= result["first_percent"] <= high
        use = 100 * result["engine_s"] / result["wall_s"]
        rows.append((name, f"{result['first_percent']:.1f} %", f"{low:.0f} to {high:.0f} %", f"{use:.0f} %"))
        if not kept:
            out.append(name)
    print(f"Two processes on one {work.device.name}, slices of {slice_us / 1000:g} ms, {ENGINE_S:g} s of engine time.")
    print(record.table(("", "share of the first", "expected", "engine in use"), rows))
    if out:
        raise GpuvirtError(f"out of bounds: {', '.join(out)}")
    return {"slice_us": slice_us, "cases": found}


if __name__ == "__main__":
    sys.exit(bench.run("engine", record.parser(__doc__), DEVICE, measure))
