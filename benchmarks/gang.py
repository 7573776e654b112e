#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two jobs of four processes each on two GPUs: what one rank has given to its GPU ends only when all ranks have.

Do they come to an end, and does each have its share of both GPUs? With --beside a third job wants one of the GPUs.
The program is tests/programs/collective.py.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from harness import bench, probes, record, shares
from harness.daemon import Daemon
from harness.processes import Child
from harness.softgpu import soft_gpu

MEMORY = 256 << 20
SECONDS, QUICK_SECONDS, WARM_S = 60.0, 2.0, 3.0
PROGRAMS = Path(__file__).resolve().parents[1] / "tests" / "programs"
BOUNDS = {"share_error_pp": 2.0, "hangs": 0.0}
LEFT_S = 60.0  # for jobs to end after their time


def case(work: bench.Bench, weights: tuple[int, int], seconds: float, beside: bool) -> dict[str, Any]:
    """Two gangs of these weights; `beside`: and a job on the first GPU. Raises ProbeFailed or GpuvirtError."""
    name = f"{weights[0]}-{weights[1]}{'-beside' if beside else ''}"
    device = soft_gpu(work.scratch, MEMORY, {"GPUVIRT_SOFTGPU_DEVICES": "2"}, f"two-{name}")
    daemon = Daemon(work.scratch / name, device, None)
    started = daemon.start(work.children)
    length = str(WARM_S + seconds + 1)
    collective = [sys.executable, str(PROGRAMS / "collective.py"), "--seconds", length]
    jobs: dict[str, Child] = {}
    for index, weight in enumerate(weights):
        command = daemon.run_command(f"gang{index}", collective, "--weight", str(weight))
        jobs[f"gang{index}"] = work.children.start(f"gang{index}", command, daemon.environ(), quiet=True)
    if beside:
        mixer = [sys.executable, str(PROGRAMS / "mixer.py"), "--memory", "16", "--seconds", length]
        command = daemon.run_command("single", mixer)
        jobs["single"] = work.children.start("single", command, daemon.environ(), quiet=True)
    work.children.wait(started, WARM_S)
    before = daemon.accounts()
    work.children.wait(started, seconds)
    after = daemon.accounts()
    if not jobs.keys() <= before.keys():
        raise probes.ProbeFailed(f"not all jobs came to their GPUs: {', '.join(before) or 'none'}")
    hangs = sum(not work.children.wait(child, LEFT_S, "result: OK") for child in jobs.values())
    stuck = sum("drain_stuck" in line for line in daemon.log_lines())
    held = {name: float(after[name]["held_s"] - before[name]["held_s"]) for name in jobs}
    found = {
        "weights": weights,
        "held_s": held,
        "share_error_pp": shares.share_error_pp([held["gang0"], held["gang1"]], weights),
        "turns": {name: after[name]["switches"] - before[name]["switches"] for name in jobs},
        "stuck_drains": stuck,
        "hangs": hangs,
    }
    for child in jobs.values():
        child.stop()
    started.stop()
    return found


def measure(work: bench.Bench) -> dict[str, Any]:
    """Raises ProbeFailed or GpuvirtError."""
    quick = work.options.quick
    seconds = QUICK_SECONDS if quick else SECONDS
    cases, rows = {}, []
    weighted = [(1, 1)] if quick else [(1, 1), (1, 3)]
    wanted = [(weights, False) for weights in weighted] + ([((1, 1), True)] if work.options.beside else [])
    for weights, beside in wanted:
        name = f"{weights[0]} : {weights[1]}{', and a job on one GPU' if beside else ''}"
        work.say(name)
        found = cases[name] = case(work, weights, seconds, beside)
        held = ", ".join(f"{key} {value:.1f}" for key, value in found["held_s"].items())
        turns = ", ".join(str(count) for count in found["turns"].values())
        rows.append(
            (name, f"{found['share_error_pp']:.2f}", held, turns, str(found["stuck_drains"]), str(found["hangs"]))
        )
    print(
        f"Two jobs of four ranks on two GPUs of a {work.device.name}, {seconds:g} s each; held: GPU seconds, both GPUs"
    )
    print(record.table(("weights", "share error (pp)", "held", "turns", "drains given back", "hangs"), rows))
    worst = max(found["share_error_pp"] for found in cases.values())
    results = {"share_error_pp": worst, "hangs": sum(found["hangs"] for found in cases.values()), "cases": cases}
    checks = [
        (name, f"{results[name]:.2f}", f"{bound:g}", "holds" if results[name] <= bound else "FAILS")
        for name, bound in BOUNDS.items()
    ]
    print(record.table(("", "measured", "at most", ""), checks))
    return results


def options() -> Any:
    """The command line."""
    parser = record.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one short case: for tests")
    parser.add_argument("--beside", action="store_true", help="also with a third job that wants one of the GPUs")
    return parser


if __name__ == "__main__":
    sys.exit(bench.run("gang", options(), MEMORY, measure, tuple(BOUNDS)))
