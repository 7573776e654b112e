#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the shim costs a job that is alone: launches, allocations, start and memory of a process, by turns three ways:

bare     the program on the soft driver
empty    the same with an LD_PRELOAD library that has nothing in it (built here): the noise of this machine
shim     the same under gpuvirt, attached to a daemon
"""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from gpuvirt import paths
from harness import bench, probes, record
from harness.daemon import Daemon

ROUNDS = 8
LAUNCHES = ("400", "100")  # samples of so many launches each
LIVE, PAIRS = 100_000, 200
SIZES = (512, 2048)  # bytes of each of the live allocations
STARTS = 16
WAYS = ("bare", "empty", "shim")
BOUNDS = {
    "launch_added_ns": 10.0,
    "launch_added_ns_2_threads": 10.0,
    "alloc_free_us_at_100k": 1.0,
    "init_added_ms": 2.0,
    "bytes_per_allocation": 128.0,
}
HEADLINE = tuple(BOUNDS)


class Ways:
    """Starts a probe bare, with an empty preloaded library, and as a job."""

    def __init__(self, work: bench.Bench) -> None:
        self._work = work
        self._program = str(probes.build("gate", work.scratch))
        self._empty = work.scratch / "empty.so"
        source = work.scratch / "empty.c"
        source.write_text("int gpuvirt_benchmark_empty;\n")
        command = ["cc", "-shared", "-fPIC", "-o", str(self._empty), str(source)]
        if subprocess.run(command, check=False).returncode != 0:
            raise probes.ProbeFailed("the empty library does not compile")
        self._daemon = Daemon(work.scratch / "run", work.device, 100)
        self._daemon.start(work.children)

    def run(self, way: str, *arguments: str) -> Mapping[str, Any]:
        """What the probe measured. Raises ProbeFailed."""
        program = [self._program, *arguments]
        if way == "shim":
            child = self._work.children.start("gate", self._daemon.run_command("gate", program), self._daemon.environ())
        else:
            extra = {"LD_PRELOAD": str(self._empty)} if way == "empty" else {}
            child = self._work.children.start("gate", program, self._work.device.environ(extra))
        self._work.children.wait(child, 60.0)
        answer: Mapping[str, Any] = probes.answer(child)
        return answer

    def starts(self) -> Mapping[str, list[float]]:
        """Milliseconds of whole processes by way, one after the other. Raises ProbeFailed."""
        folder = self._work.device.environ()["LD_LIBRARY_PATH"]
        answer: Mapping[str, list[float]] = self.run("shim", "starts", str(STARTS), str(self._empty), folder)
        return answer

    def busy(self) -> float:
        """Seconds of GPU time that the daemon saw."""
        return sum(float(row["busy_s"]) for row in self._daemon.jobs())


def measure(work: bench.Bench) -> dict[str, Any]:
    """ROUNDS times each probe each way. Raises ProbeFailed or GpuvirtError."""
    ways = Ways(work)
    driver = paths.library("softgpu/libcuda.so.1")
    found: dict[str, dict[str, list[float]]] = {way: defaultdict(list) for way in WAYS}
    for turn in range(ROUNDS):
        for step in range(len(WAYS)):
            way = WAYS[(turn + step) % len(WAYS)]  # nobody is always first
            work.say(f"round {turn + 1} of {ROUNDS}: {way}")
            values = found[way]
            for threads in ("1", "2"):
                for key, numbers in ways.run(way, "launch", threads, *LAUNCHES, str(driver)).items():
                    values[f"{key}_{threads}"] += numbers
            for size in SIZES:
                answer = ways.run(way, "memory", str(LIVE), str(size), str(PAIRS))
                values[f"pair_us_{size}"] += answer["pair_us"]
                values[f"bytes_{size}"].append(answer["bytes_per_allocation"])
        for way, numbers in ways.starts().items():
            found[way]["start_ms"] += numbers
    if ways.busy() == 0.0:
        raise probes.ProbeFailed("the shim reported no work: it was not in the way")

    titles = {
        "launch_ns_1": "launch, ns",
        "straight_ns_1": "  the same into the soft driver's file, by turns",
        "launch_ns_2": "launch, ns, two threads on two streams",
        "straight_ns_2": "  the same into the soft driver's file, by turns",
        "round_trip_ns_1": "launch and wait, ns",
        "round_trip_ns_2": "launch and wait, ns, two threads",
        **{f"pair_us_{size}": f"allocate and free, us, {LIVE} x {size} B alive" for size in SIZES},
        "start_ms": "process with a context, start to end, ms",
        **{f"bytes_{size}": f"own memory per allocation of {size} B, bytes" for size in SIZES},
    }
    spreads = {key: {way: record.spread(found[way][key]) for way in WAYS} for key in titles}
    middle = {key: {way: spreads[key][way]["median"] for way in WAYS} for key in titles}
    rows = [
        (title, *(f"{middle[key][way]:.2f}" for way in WAYS), f"{middle[key]['shim'] - middle[key]['bare']:+.2f}")
        for key, title in titles.items()
    ]
    print(f"Medians of {ROUNDS} rounds by turns on a {work.device.name}; the job has the GPU to itself.")
    print(record.table(("", "bare", "empty preload", "shim", "shim - bare"), rows))

    def added(key: str) -> float:
        return middle[key]["shim"] - middle[key]["bare"]

    def gate(way: str, threads: int) -> float:
        """Nanoseconds between two ways of launching in one process: the program's own, and straight into the driver.

        Two processes on the same machine differ by more than the gate costs.
        """
        return middle[f"launch_ns_{threads}"][way] - middle[f"straight_ns_{threads}"][way]

    headline = {
        "launch_added_ns": gate("shim", 1),
        "launch_added_ns_2_threads": gate("shim", 2),
        "alloc_free_us_at_100k": max(middle[f"pair_us_{size}"]["shim"] for size in SIZES),
        "init_added_ms": added("start_ms"),
        "bytes_per_allocation": max(middle[f"bytes_{size}"]["shim"] for size in SIZES),
    }
    noise = {
        "launch_added_ns": gate("empty", 1),
        "launch_added_ns_2_threads": gate("empty", 2),
        "init_added_ms": middle["start_ms"]["empty"] - middle["start_ms"]["bare"],
    }
    print()
    checks = [
        (
            key,
            f"{value:.3f}",
            f"{BOUNDS[key]:g}",
            "holds" if value <= BOUNDS[key] else "FAILS",
            f"{noise[key]:+.3f}" if key in noise else "",
        )
        for key, value in headline.items()
    ]
    print(record.table(("", "measured", "at most", "", "empty preload instead"), checks))
    print("Launches: the program's cuLaunchKernel against the soft driver's own, by turns in one process.")
    print("Start: shim - bare. Allocation and memory: the shim's own figures.")
    return {
        **headline,
        "empty_preload": noise,
        "holds": {key: v <= BOUNDS[key] for key, v in headline.items()},
        **spreads,
    }


if __name__ == "__main__":
    sys.exit(bench.run("gate", record.parser(__doc__), 512 << 20, measure, HEADLINE))
