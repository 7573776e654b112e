# SPDX-License-Identifier: Apache-2.0
"""A service beside a training: latencies over those of the same arrivals alone, throughput of the training."""

from __future__ import annotations

import random
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness import record, shares
from harness.daemon import command
from harness.loads import Load
from harness.sides import Job, Sides


@dataclass(frozen=True)
class Terms:
    """How the daemon knows which of the two goes first."""

    settings: Mapping[str, Mapping[str, Any]]
    high: tuple[str, ...]
    low: tuple[str, ...]
    words: str


BLOCK_NS, KERNELS, HOST_NS = 200_000, 20, 400_000  # a request: 4 ms of kernels, a tenth of it on the host
LOADS = (0.2, 0.5)
ROUNDS, SECONDS, WARM_S, ALONE_S = 3, 10.0, 1.0, 2.0
CALIBRATION = 200  # requests, one after the other
LIMIT_S = 120.0  # beyond the time that arrivals take
PARTS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
WAYS = ("alone", "bare", "gpuvirt")
PRIORITIES = Terms({"time": {"policy": "priority"}}, ("--priority", "high"), ("--priority", "low"), "by priority")
WEIGHTS = Terms({}, ("--weight", "100"), (), "by weight 100 : 1, for this gpuvirt knows no priorities")
HEADLINE = tuple(f"{name}_{load:g}" for load in LOADS for name in ("hp_p99_ratio", "be_throughput"))


def bounds(results: Mapping[str, Any]) -> dict[str, float]:
    """What must hold, by figure."""
    wanted = {}
    for load in LOADS:
        wanted[f"hp_p99_ratio_{load:g}"] = 1.3
        wanted[f"be_throughput_{load:g}"] = max(0.5 if load == 0.5 else 0.0, 1 - load - 0.05)
    return {name: bound for name, bound in wanted.items() if name in results}


def arrivals(load: float, service_ns: float, seconds: float, seed: int) -> tuple[int, ...]:
    """Times in ns of a Poisson process that keeps the service busy for `load` of the time; at least one."""
    source, now, found = random.Random(seed), 0.0, []
    while True:
        now += source.expovariate(load / service_ns)
        if found and now > seconds * 1e9:
            return tuple(found)
        found.append(round(now))


def calibrate(sides: Sides, program: Job) -> float:
    """Median time of a request in ns with the GPU to itself, one after the other."""
    job = Job(program.program, program.arguments, arrivals=(0,) * CALIBRATION)
    with sides.group([job], gpuvirt=False) as (group, _):
        group.wait(0, LIMIT_S)
        return statistics.median(group.pages[0].services())


def serve(sides: Sides, jobs: list[Job], gpuvirt: bool, seconds: float) -> tuple[list[int], float]:
    """Latencies of the first job in ns; work in ns that the second one, if there is one, did in a second."""
    with sides.group(jobs, gpuvirt) as (group, _):
        before = group.sample()
        group.run(seconds)
        after = group.sample()
        group.wait(0, LIMIT_S)
        latencies = group.pages[0].latencies()
    done = after.done[-1] - before.done[-1] if len(jobs) > 1 else 0
    return latencies, done / ((after.at_ns - before.at_ns) / 1e9)


def terms() -> Terms:
    """Priorities where `gpuvirt run` has them. Raises DaemonUnavailable when gpuvirt is not installed."""
    told = subprocess.run([command("gpuvirt"), "run", "--help"], capture_output=True, text=True, check=False).stdout
    return PRIORITIES if "--priority" in told else WEIGHTS


def measure(sides: Sides, training: Load, quick: bool) -> dict[str, Any]:
    """All loads, way by way in each round; prints a table. Raises ProbeFailed."""
    share, program = sides.work.scratch / "share", sides.work.scratch / "serve"
    rounds, seconds, alone_s = (1, 2.0, 0.5) if quick else (ROUNDS, SECONDS, ALONE_S)
    plain = Job(program, (str(BLOCK_NS), str(KERNELS), str(HOST_NS)))
    service_ns, by = calibrate(sides, plain), terms()
    sides.settings = by.settings
    results: dict[str, Any] = {"service_ms": service_ns / 1e6, "service_first": by.words, "service": {}}
    rows = []
    for load in (0.5,) if quick else LOADS:
        latencies: dict[str, list[float]] = {way: [] for way in WAYS}
        training_rates: dict[str, list[float]] = {way: [] for way in WAYS}
        ratios: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(rounds):
            sides.work.say(f"service at load {load:g}, round {turn + 1} of {rounds}")
            times = arrivals(load, service_ns, seconds, seed=1000 * turn + round(100 * load))
            job = Job(program, plain.arguments, by.high, times)
            trainer = Job.of(share, training, options=by.low)
            training_rates["alone"].append(sides.alone(trainer, WARM_S / 2, alone_s))
            for way in WAYS:
                jobs = [job] if way == "alone" else [job, trainer]
                found, rate = serve(sides, jobs, way == "gpuvirt", seconds)
                latencies[way] += found
                ratios[way].append(shares.percentile(found, 0.99))
                if way != "alone":
                    training_rates[way].append(rate)
        best = statistics.mean(training_rates["alone"])
        cell: dict[str, Any] = {"requests": len(latencies["alone"])}
        for way in WAYS:
            cell[way] = {name: shares.percentile(latencies[way], part) / 1e6 for name, part in PARTS.items()}
            cell[way]["mean"] = statistics.mean(latencies[way]) / 1e6
            cell[way]["be_throughput"] = statistics.mean(training_rates[way]) / best if way != "alone" else 1.0
        for way in WAYS:
            cell[way]["p99_ratio"] = cell[way]["p99"] / cell["alone"]["p99"]
            cell[way]["p99_ratio_by_round"] = [
                mine / base for mine, base in zip(ratios[way], ratios["alone"], strict=True)
            ]
            figures = (*(f"{cell[way][name]:.1f} ms" for name in PARTS), f"{cell[way]['p99_ratio']:.2f}")
            be = f"{cell[way]['be_throughput']:.2f}" if way != "alone" else ""
            rows.append((f"load {load:g}, {way}", *figures, be))
        results["service"][f"{load:g}"] = cell
        results[f"hp_p99_ratio_{load:g}"] = cell["gpuvirt"]["p99_ratio"]
        results[f"be_throughput_{load:g}"] = cell["gpuvirt"]["be_throughput"]
    print(
        f"A service of {service_ns / 1e6:.2f} ms a request, {BLOCK_NS * KERNELS / 1e6:g} ms of it kernels, beside a "
        f"training; {rounds} times {seconds:g} s, the same arrivals each way. Under\ngpuvirt the service goes "
        f"first {by.words}."
    )
    print(record.table(("", *PARTS, "p99 : alone", "training : alone"), rows))
    return results
