#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training jobs that do not fit on the GPU together, against the same jobs one after the other.

2, 4 and 8 jobs (programs/train_mlp.py; the network with Adam's state is 70 % of a job's memory and changes in every
step) want 150, 200 and 400 % of the device's memory in all, at gpuvirt's default settings, on the soft GPU's modelled
link. Serial is the sum of the times for which the jobs train alone on the plain driver, in the same run (half of them
before the jobs together and half after: machines drift) and on the same soft GPU; together is from the moment at which
the first begins to train to the end of the last. What a job computes must be the same bits. Then two jobs that fill
the device share it by fixed quanta, as nvshare's authors did; their quanta are scaled by the time that it takes to
move a job's memory once over the link.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpuvirt.units import format_size
from harness import bench, curve, record, sides
from harness.daemon import Daemon
from harness.link import Link
from harness.probes import ProbeFailed
from harness.processes import Children
from harness.softgpu import Device, soft_gpu
from harness.training import Trained, Training, alone, together

DEVICE = 128 << 20
CELLS = ((2, 150), (4, 150), (8, 150), (2, 200), (4, 200), (8, 200), (4, 400), (8, 400))
QUICK_CELLS = ((2, 150),)
IMPOSSIBLE = (2, 400)  # each job alone is twice the device
RESERVE = 0.02  # of the device: what the daemon keeps for newcomers' contexts by default
BESIDE = 4 << 20  # for each job: what its context and modules take, and what the driver rounds its allocations up by
SECONDS, QUICK_SECONDS = 4.0, 1.0  # for which a job trains alone, at least
LEAST = 16.0  # seconds for which all jobs of a cell train alone, together: the last quantum is not the whole story
SWEEP_DEVICE, SWEEP_PART, SWEEP_SECONDS = 64 << 20, 0.84, 5.0
SWEEP, QUICK_SWEEP = (60, 30, 10, 5, 2, 1), (30,)  # nvshare's quanta, seconds
BATCH = 32
LINK = Link.even(1e9, 0.71)


@dataclass(frozen=True)
class Cell:
    """Some jobs together against one after the other. Times in seconds."""

    jobs: int
    percent: int  # of the device's memory, wanted in all; less is had where a job cannot have that much (job_bytes)
    job_bytes: int
    steps: int
    serial_s: float
    serial_spread: float  # of the times that the jobs take alone: largest less smallest, over the smallest
    together_s: float
    total_over_serial: float
    wall_over_serial: float  # the same from the start of the first process to the end of the last, start-up included
    switches: int
    quantum_s: float  # at the end
    out_bytes: int
    in_bytes: int
    equal: bool  # all results are those of the job alone, bit by bit


def job_bytes(count: int, percent: int) -> int:
    """What each of `count` jobs has in its allocations: its share of what is wanted, at most what is left for one job.

    All jobs' contexts are on the device all the time, also while only one job's memory is.
    """
    largest = int(DEVICE * (1 - RESERVE)) - count * BESIDE
    return min(DEVICE * percent // 100 // count, largest) >> 20 << 20


class Oversubscription:
    """One run. A job trains for `seconds` alone, and all jobs of a cell for `least` together."""

    def __init__(self, work: bench.Bench, seconds: float, least: float) -> None:
        self.work, self.seconds, self.least = work, seconds, least
        self.devices: dict[int, Device] = {}
        self._pace: dict[tuple[int, int], float] = {}
        self._runs = 0

    def device(self, memory: int) -> Device:
        """A soft GPU of this size with the link."""
        if memory not in self.devices:
            options = {"GPUVIRT_SOFTGPU_MODEL": LINK.model, **sides.ENVIRON}
            self.devices[memory] = soft_gpu(self.work.scratch, memory, options, f"board-{memory >> 20}")
        return self.devices[memory]

    def jobs(self, memory: int, count: int, each: int, seconds: float) -> list[Training]:
        """`count` jobs of `each` bytes that train for about `seconds` alone."""
        key = (memory, each)
        if key not in self._pace:
            few = alone(self.work.children, self.device(memory), self.work.scratch, Training(each, 0, 4, BATCH))
            self._pace[key] = 4 / few.seconds
        steps = max(4, round(self._pace[key] * seconds))
        return [Training(each, seed, steps, BATCH) for seed in range(1, count + 1)]

    def serial(self, memory: int, jobs: list[Training]) -> list[Trained]:
        """Each alone, one after the other."""
        return [alone(self.work.children, self.device(memory), self.work.scratch, job) for job in jobs]

    def cell(self, memory: int, jobs: list[Training], percent: int, quantum_ms: float | None) -> Cell:
        """The jobs together, against what they do alone: half of them before, half after. Raises ProbeFailed."""
        half = len(jobs) // 2
        solo = self.serial(memory, jobs[:half])
        self._runs += 1
        daemon = Daemon(self.work.scratch / f"run-{self._runs}", self.device(memory), quantum_ms)
        with Children(self.work.children.interrupts) as children:
            daemon.start(children)
            done = together(children, daemon, self.work.scratch, jobs)
            status = daemon.status()
        solo += self.serial(memory, jobs[half:])
        times = [one.seconds for one in solo]
        serial, spread = sum(times), max(times) / min(times) - 1
        total = (max(one.ended for one in done) - min(one.began for one in done)) / 1e9
        wall = max(one.wall for one in done)
        gpu, rows = status["gpus"][0], status["jobs"]
        return Cell(
            len(jobs),
            percent,
            jobs[0].memory,
            jobs[0].steps,
            serial,
            spread,
            total,
            total / serial,
            wall / sum(one.wall for one in solo),
            int(gpu["switches"]),
            float(gpu["quantum_s"]),
            sum(int(row["out_bytes"]) for row in rows),
            sum(int(row["in_bytes"]) for row in rows),
            [one.result for one in done] == [one.result for one in solo],
        )

    def matrix(self, cells: tuple[tuple[int, int], ...]) -> list[Cell]:
        """All numbers of jobs and sizes, at the default settings."""
        found = []
        for count, percent in cells:
            seconds = max(self.seconds, self.least / count)
            jobs = self.jobs(DEVICE, count, job_bytes(count, percent), seconds)
            cell = self.cell(DEVICE, jobs, percent, None)
            self.work.say(f"{count} jobs, {percent} %: {cell.total_over_serial:.3f} of serial {cell.serial_s:.1f} s")
            found.append(cell)
        return found

    def sweep(self, quanta: tuple[int, ...], seconds: float) -> list[dict[str, Any]]:
        """Two jobs that fill the device, by quantum; nvshare's is scaled by the time to move a job's memory one way."""
        each = int(SWEEP_DEVICE * SWEEP_PART) >> 20 << 20
        jobs = self.jobs(SWEEP_DEVICE, 2, each, seconds)
        found = []
        for nvshare in quanta:
            quantum = nvshare * LINK.best(each, 0) / curve.NVSHARE_MOVE
            cell = self.cell(SWEEP_DEVICE, jobs, 200, round(quantum * 1e3, 1))
            self.work.say(f"quantum {quantum:.2f} s (nvshare's {nvshare} s): {cell.total_over_serial:.3f} of serial")
            found.append({"nvshare_quantum_s": nvshare, "quantum": quantum, **asdict(cell)})
        return found

    def refusal(self) -> str:
        """What a job hears that is larger than the device. Raises ProbeFailed when it is not refused."""
        job = Training(DEVICE * IMPOSSIBLE[1] // 100 // IMPOSSIBLE[0], 1, 4, BATCH)
        try:
            alone(self.work.children, self.device(DEVICE), self.work.scratch, job)
        except ProbeFailed as failed:
            return str(failed)
        raise ProbeFailed(f"a job of {format_size(job.memory)} was not refused")


def measure(work: bench.Bench) -> dict[str, Any]:
    """The matrix, the refusal, the sweep. Raises ProbeFailed or GpuvirtError."""
    quick = work.options.quick
    run = Oversubscription(work, QUICK_SECONDS, 0) if quick else Oversubscription(work, SECONDS, LEAST)
    cells = run.matrix(QUICK_CELLS if quick else CELLS)
    refused = run.refusal()
    swept = run.sweep(QUICK_SWEEP if quick else SWEEP, QUICK_SECONDS if quick else SWEEP_SECONDS)
    rows = [
        (
            f"{cell.jobs} jobs, {cell.jobs * cell.job_bytes * 100 // DEVICE} % of the device",
            format_size(cell.job_bytes),
            f"{cell.serial_s:.1f} s",
            f"{cell.serial_spread:.0%}",
            f"{cell.together_s:.1f} s",
            f"{cell.total_over_serial:.3f}",
            f"{cell.switches}",
            f"{cell.quantum_s:.2f} s",
            "equal" if cell.equal else "DIFFERENT",
        )
        for cell in cells
    ]
    print(f"Training jobs on a soft GPU of {format_size(DEVICE)}, link {LINK.out / 1e9:g} GB/s, default settings.")
    header = ("", "each", "one by one", "spread", "together", "ratio", "switches", "quantum", "results")
    print(record.table(header, rows))
    print("spread: how much the times of the jobs alone differ; where it is large the machine was not quiet.\n")
    print(f"{IMPOSSIBLE[0]} jobs, {IMPOSSIBLE[1]} %: each is larger than the device: {refused}\n")
    print(f"Two jobs of {format_size(int(SWEEP_DEVICE * SWEEP_PART))} on {format_size(SWEEP_DEVICE)}, by quantum:")
    by_quantum = [
        (
            f"{row['quantum']:.2f} s (nvshare's {row['nvshare_quantum_s']} s)",
            f"{row['total_over_serial']:.2f}",
            f"{curve.NVSHARE[row['nvshare_quantum_s']] / curve.NVSHARE_SERIAL:.2f}"
            if row["nvshare_quantum_s"] in curve.NVSHARE
            else "-",
            f"{row['switches']}",
        )
        for row in swept
    ]
    print(record.table(("quantum", "together / serial", "nvshare's", "switches"), by_quantum))
    if work.options.plot is not None:
        points = [(row["quantum"], row["total_over_serial"]) for row in swept]
        curve.draw(work.options.plot, points, LINK.best(int(swept[0]["job_bytes"]), 0))
    return {
        "worst_total_over_serial": max(cell.total_over_serial for cell in cells),
        "results_equal": all(cell.equal for cell in cells) and all(row["equal"] for row in swept),
        "cells": [asdict(cell) for cell in cells],
        "larger_than_the_device": refused,
        "sweep": swept,
        "nvshare": {"serial_s": curve.NVSHARE_SERIAL, "total_s_by_quantum_s": curve.NVSHARE},
        "link": LINK.model,
        "device_bytes": DEVICE,
        "sweep_device_bytes": SWEEP_DEVICE,
    }


def parser() -> argparse.ArgumentParser:
    """Options."""
    options = record.parser(__doc__)
    options.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the curve by quantum (.svg or .png; matplotlib)"
    )
    options.add_argument("--quick", action="store_true", help="one cell and one quantum, short jobs")
    return options


if __name__ == "__main__":
    sys.exit(bench.run("oversubscribe", parser(), DEVICE, measure, ("worst_total_over_serial", "results_equal")))
