#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast the soft GPU is: three kernels as PTX against the same work as plain C loops on one core (cc -O2)."""

from __future__ import annotations

import os
import statistics
import sys
from typing import Any

from harness import bench, probes, record

REPEATS = 7
WORKS = {"saxpy": "saxpy of 2^24", "reduce": "shared-memory reduction of 2^24", "matmul": "tiled matmul of 512"}


def measure(work: bench.Bench) -> dict[str, Any]:
    """Best of REPEATS of each kernel, and the latency of a launch. Raises ProbeFailed."""
    loops, launch = probes.build("loops", work.scratch), probes.build("launch", work.scratch)
    kernels = [sys.executable, str(probes.FOLDER / "soft_gpu_kernels.py"), str(REPEATS)]
    work.say("kernels on the soft GPU")
    child = work.children.start("kernels", kernels, work.device.environ())
    work.children.wait(child, 60.0)
    soft = probes.answer(child)
    work.say("plain C")
    plain = {name: probes.plain_c(loops, name, REPEATS) for name in WORKS}
    work.say("launches")
    child = work.children.start("launch", [str(launch), "200", "100"], work.device.environ())
    work.children.wait(child, 30.0)
    latency = {key: statistics.median(values) for key, values in probes.answer(child).items()}

    rows, results = [], {}
    for name, title in WORKS.items():
        best, reference = min(soft[name]), min(plain[name])
        rows.append((title, f"{best / 1e6:.1f} ms", f"{reference / 1e6:.1f} ms", f"{best / reference:.1f}x"))
        results[name] = {"soft_gpu_ns": best, "plain_c_ns": reference, "ratio": best / reference}
    cores = len(os.sched_getaffinity(0))
    print(f"Best of {REPEATS}; the soft GPU may use {cores} cores, plain C uses one; time includes launch and wait.")
    print(record.table(("", "soft GPU", "plain C", "ratio"), rows))
    print(
        f"launch, asynchronous {latency['launch_ns']:.0f} ns; launch and wait {latency['round_trip_ns'] / 1e3:.1f} us"
    )
    return {**results, "latency": latency, "repeats": REPEATS}


if __name__ == "__main__":
    sys.exit(bench.run("softgpu", record.parser(__doc__), 512 << 20, measure))
