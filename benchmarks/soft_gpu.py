#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast the soft GPU is, on one core: four kernels against the same work as plain C loops (cc -O2).

Sums of blocks are written in C in two ways, as a tree like the kernels and one element after the other; the ratio is to
the faster. Then how long a module takes to load, compiled (cold) and from the cache (warm), and what a launch costs.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness import bench, probes, record

ROUNDS, REPEATS, LOADS = 3, 5, 5
WORKS = {
    "saxpy": ("saxpy of 2^24", ("saxpy",)),
    "reduction": ("shared-memory reduction of 2^24", ("reduce", "sum")),
    "shuffle": ("warp-shuffle reduction of 2^24", ("reduce", "sum")),
    "matmul": ("tiled matmul of 512", ("matmul",)),
}
KERNELS = {"reduction": "reduce"}  # where the kernel has another name
HEADLINE = (*(f"{work}_ratio" for work in WORKS), "cold_load_ms", "warm_load_ms", "launch_us")


@contextmanager
def one_core() -> Iterator[None]:
    """Children that are started meanwhile may use one core only."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def probe(work: bench.Bench, name: str, *command: str, environ: dict[str, str] | None = None) -> Any:
    """What a program of probes/ prints last, started with the soft GPU. Raises ProbeFailed."""
    child = work.children.start(name, command, work.device.environ(environ))
    work.children.wait(child, 60.0)
    return probes.answer(child)


def script(name: str) -> tuple[str, str]:
    """The command of a Python probe."""
    return sys.executable, str(probes.FOLDER / name)


def speeds(work: bench.Bench) -> tuple[dict[str, int], dict[str, int]]:
    """Best time in ns of each kernel and of each loop, measured by turns on one core. Raises ProbeFailed."""
    loops = probes.build("loops", work.scratch)
    soft: dict[str, int] = {}
    plain: dict[str, int] = {}
    with one_core():
        for turn in range(ROUNDS):
            work.say(f"round {turn + 1} of {ROUNDS}")
            for name, times in probe(work, "kernels", *script("soft_gpu_kernels.py"), str(REPEATS)).items():
                soft[name] = min([*times, soft.get(name, sys.maxsize)])
            for name in {loop for _, loops_of_work in WORKS.values() for loop in loops_of_work}:
                plain[name] = min([*probes.plain_c(loops, name, REPEATS), plain.get(name, sys.maxsize)])
    return soft, plain


def loads(work: bench.Bench) -> dict[str, list[float]]:
    """Milliseconds of the first cuModuleLoadData of processes: with an empty cache, and with what that left there."""
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for turn in range(LOADS):
        work.say(f"module load {turn + 1} of {LOADS}")
        cache = {"GPUVIRT_SOFTGPU_CACHE": str(work.scratch / f"cache{turn}")}
        for values in found.values():
            values.append(probe(work, "load", *script("module_load.py"), environ=cache)["load_ns"] / 1e6)
    return found


def measure(work: bench.Bench) -> dict[str, Any]:
    """All of it; prints a table. Raises ProbeFailed."""
    soft, plain = speeds(work)
    load = {name: statistics.median(values) for name, values in loads(work).items()}
    work.say("launches")
    latency = {
        key: statistics.median(values)
        for key, values in probe(work, "launch", str(probes.build("launch", work.scratch)), "200", "100").items()
    }
    rows, results, ratios = [], {}, {}
    for name, (title, loops) in WORKS.items():
        best, reference = soft[KERNELS.get(name, name)], min(plain[loop] for loop in loops)
        rows.append((title, f"{best / 1e6:.1f} ms", f"{reference / 1e6:.1f} ms", f"{best / reference:.2f}x"))
        results[name] = {"soft_gpu_ns": best, "plain_c_ns": {loop: plain[loop] for loop in loops}}
        ratios[f"{name}_ratio"] = best / reference
    print(
        f"Best of {ROUNDS * REPEATS} on one core; soft GPU with launch and wait, plain C: cc {' '.join(probes.FLAGS)}."
    )
    print(record.table(("", "soft GPU", "plain C", "ratio"), rows))
    print(f"load of a module of {len(WORKS)} kernels: cold {load['cold']:.0f} ms, warm {load['warm']:.1f} ms")
    trip = latency["round_trip_ns"] / 1e3
    print(f"launch, asynchronous {latency['launch_ns'] / 1e3:.2f} us; launch and wait {trip:.1f} us")
    return {
        **ratios,
        "cold_load_ms": load["cold"],
        "warm_load_ms": load["warm"],
        "launch_us": latency["launch_ns"] / 1e3,
        "round_trip_us": trip,
        "works": results,
        "plain_c_flags": probes.FLAGS,
        "repeats": ROUNDS * REPEATS,
    }


if __name__ == "__main__":
    sys.exit(bench.run("soft_gpu", record.parser(__doc__), 512 << 20, measure, HEADLINE))
