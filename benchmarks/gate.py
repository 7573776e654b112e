#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the gate costs a job that is alone: launches of an empty kernel with and without the shim, by turns."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from harness import bench, probes, record
from harness.daemon import Daemon

ROUNDS, SAMPLES, PER_SAMPLE = 6, 300, 200


def measure(work: bench.Bench) -> dict[str, Any]:
    """ROUNDS times one process without the shim and one with it. Raises ProbeFailed or GpuvirtError."""
    program = [str(probes.build("launch", work.scratch)), str(SAMPLES), str(PER_SAMPLE)]
    daemon = Daemon(work.scratch / "run", work.device, 100)
    daemon.start(work.children)
    found: dict[str, dict[str, list[float]]] = {
        way: {"launch_ns": [], "round_trip_ns": []} for way in ("without shim", "with shim")
    }
    for turn in range(ROUNDS):
        for way, values in found.items():
            work.say(f"round {turn + 1} of {ROUNDS}: {way}")
            if way == "with shim":
                child = work.children.start("launch", daemon.run_command("launch", program), daemon.environ())
            else:
                child = work.children.start("launch", program, work.device.environ())
            work.children.wait(child, 30.0)
            for key, numbers in probes.answer(child).items():
                values[key] += numbers

    busy = sum(float(row["busy_s"]) for row in daemon.jobs())
    if busy == 0.0:
        raise probes.ProbeFailed("the shim reported no work: it was not in the way")
    rows, results = [], {}
    for key, title in (("launch_ns", "launch, asynchronous"), ("round_trip_ns", "launch and wait")):
        without, governed = (record.spread(found[way][key]) for way in ("without shim", "with shim"))
        difference = governed["median"] - without["median"]
        cells = (f"{without['median']:.0f} ns", f"{governed['median']:.0f} ns", f"{difference:+.0f} ns")
        rows.append((title, *cells, f"{governed['median'] / without['median']:.3f}"))
        results[key] = {"without_shim": without, "with_shim": governed, "difference_ns": difference}
    print(f"Medians of {ROUNDS} x {SAMPLES} samples on a {work.device.name}; the job has the GPU to itself.")
    print(record.table(("", "without shim", "with shim", "difference", "ratio"), rows))
    noise = statistics.median(found["without shim"]["launch_ns"][SAMPLES:]) - statistics.median(
        found["without shim"]["launch_ns"][:SAMPLES]
    )
    print(f"first round against the others, without shim: {noise:+.0f} ns (the noise of this machine)")
    return {
        **results,
        "noise_ns": noise,
        "busy_s_seen_by_shim": busy,
        "rounds": ROUNDS,
        "samples_per_round": SAMPLES,
    }


if __name__ == "__main__":
    sys.exit(bench.run("gate", record.parser(__doc__), 512 << 20, measure))
