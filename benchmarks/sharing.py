#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who gets how much of a GPU that several want: under gpuvirt, and under the soft GPU's bare hardware time slices.

Shares: 2 to 8 jobs, equal and by weight, long against short kernels, one and many streams, graphs. They are shares of
the time for which jobs had the GPU, checked by the soft GPU's own books. What a job gets done is compared with what the
same job does alone, measured before and after it, without gpuvirt.

Service: requests at random times (Poisson) beside a training. Latency is from arrival to answer, and is compared with
that of the very same arrivals with the GPU to itself; the training with itself alone.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

from harness import bench, cpu, probes, record, service, shares
from harness.ledger import Ledger
from harness.loads import Load
from harness.sides import Job, Sides, Stretch

MEMORY = 256 << 20
WINDOW_S, WINDOWS, WARM_S, ALONE_S = 10.0, 2, 2.0, 2.0
QUICK = {"window": 1.0, "windows": 1, "warm": 0.3, "alone": 0.4}
FULL = {"window": WINDOW_S, "windows": WINDOWS, "warm": WARM_S, "alone": ALONE_S}
ERRORS = ("share_error_pp", "engine_error_pp", "throughput_error_pp", "short_pp")
BOUNDS = {"share_error_pp": 1.0, "jain": 0.99, "loss_pct": 2.0}

EVEN = Load(block_ns=100_000, blocks=10)
LONG = Load(block_ns=1_000_000, blocks=30, depth=4)
SHORT = Load(block_ns=50_000, depth=256)
WAITING = Load(block_ns=200_000, depth=1, mode="waiting")
STREAMS = Load(block_ns=100_000, blocks=5, streams=8, depth=16)
GRAPHS = Load(block_ns=50_000, blocks=2, depth=8, mode="graph")
TRAINING = Load(block_ns=50_000, depth=1, mode="training")

# title, the loads of the jobs, their weights
CASES: tuple[tuple[str, tuple[Load, ...], tuple[int, ...]], ...] = (
    ("2 equal jobs", (EVEN, EVEN), (1, 1)),
    ("3 jobs, 1:2:4", (EVEN, EVEN, EVEN), (1, 2, 4)),
    ("long : short kernels", (LONG, SHORT), (1, 1)),
    ("queued : a wait for each kernel", (EVEN, WAITING), (1, 1)),
    ("one : eight streams", (EVEN, STREAMS), (1, 1)),
    ("kernels : graphs", (EVEN, GRAPHS), (1, 1)),
    ("4 jobs of one kind", (TRAINING,) * 4, (1,) * 4),
    ("8 equal jobs", (EVEN,) * 8, (1,) * 8),
    (
        "8 jobs of all kinds, 1:2:4",
        (LONG, SHORT, WAITING, STREAMS, GRAPHS, TRAINING, EVEN, EVEN),
        (1, 2, 4) * 2 + (1, 2),
    ),
)
QUICK_CASES = ("3 jobs, 1:2:4",)


def figures(stretch: Stretch, alone: list[float], weights: tuple[int, ...]) -> dict[str, Any]:
    """Of one window: shares of the GPU's time and of what was done with it."""
    throughput = shares.normalised(stretch.work, stretch.seconds, alone)
    return {
        "throughput": throughput,
        "engine": [ns / 1e9 / stretch.seconds for ns in stretch.engine_ns],
        "held": [ns / 1e9 / stretch.seconds for ns in stretch.held_ns],
        "share_error_pp": shares.share_error_pp(stretch.held_ns, weights),
        "jain": shares.jain(stretch.held_ns, weights),
        "engine_error_pp": shares.share_error_pp(stretch.engine_ns, weights),
        "throughput_error_pp": shares.share_error_pp(throughput, weights),
        "short_pp": shares.short_pp(throughput, weights),
        "loss_pct": shares.loss_pct(throughput),
    }


def worst(windows: list[dict[str, Any]]) -> dict[str, float]:
    """Over several windows: the worst share and index, the mean loss."""
    found = {name: max(window[name] for window in windows) for name in ERRORS}
    return {
        **found,
        "jain": min(window["jain"] for window in windows),
        "loss_pct": statistics.mean(window["loss_pct"] for window in windows),
    }


def case(sides: Sides, loads: tuple[Load, ...], weights: tuple[int, ...], length: dict[str, Any]) -> dict[str, Any]:
    """All jobs alone, together bare, together under gpuvirt, and alone once more. Raises ProbeFailed."""
    program = sides.work.scratch / "share"
    rates: dict[Load, list[float]] = {load: [] for load in loads}

    def alone() -> None:
        for load, found in rates.items():
            found.append(sides.alone(Job.of(program, load), length["warm"], length["alone"]))

    found: dict[str, Any] = {"weights": list(weights)}
    jobs = [Job.of(program, load, weight) for load, weight in zip(loads, weights, strict=True)]
    stretches = {}
    alone()
    for way in ("bare", "gpuvirt"):
        with sides.group(jobs, gpuvirt=way == "gpuvirt") as (group, daemon):
            group.run(length["warm"])
            before, began = cpu.spent(group.pids), time.monotonic()
            count = length["windows"] if way == "gpuvirt" else 1
            stretches[way] = [sides.stretch(group, daemon, length["window"]) for _ in range(count)]
            waited = (cpu.spent(group.pids) - before).wait_ns / 1e9 / (time.monotonic() - began)
            found[f"{way}_cpu_wait_pct"] = 100 * waited
            if daemon is not None:
                accounts = daemon.accounts()
                found["daemon_shares"] = [accounts[f"job{i}"]["share"] for i in range(len(jobs))]
                found["switches"] = [accounts[f"job{i}"]["switches"] for i in range(len(jobs))]
    alone()
    middle = [statistics.mean(rates[load]) for load in loads]
    for way, measured in stretches.items():
        windows = [figures(stretch, middle, weights) for stretch in measured]
        busy = [100 * sum(stretch.engine_ns) / 1e9 / stretch.seconds for stretch in measured]
        found[way] = {**worst(windows), "engine_pct": statistics.mean(busy), "windows": windows}
    found["alone_spread_pct"] = max(100 * (max(rate) / min(rate) - 1) for rate in rates.values())
    return found


def sharing(sides: Sides, names: list[str], length: dict[str, Any]) -> dict[str, Any]:
    """All cases and their table. Raises ProbeFailed."""
    found, rows = {}, []
    for title, loads, weights in CASES:
        if title not in names:
            continue
        sides.work.say(title)
        result = case(sides, loads, weights, length)
        found[title] = result
        ours, bare = result["gpuvirt"], result["bare"]
        rows.append(
            (
                title,
                f"{ours['share_error_pp']:.2f} ({bare['share_error_pp']:.1f})",
                f"{ours['jain']:.4f} ({bare['jain']:.3f})",
                f"{ours['engine_error_pp']:.2f}",
                f"{ours['throughput_error_pp']:.2f} ({bare['throughput_error_pp']:.1f})",
                f"{ours['short_pp']:.2f} ({bare['short_pp']:.1f})",
                f"{ours['loss_pct']:.2f} ({bare['loss_pct']:.2f})",
                f"{ours['engine_pct']:.1f} ({bare['engine_pct']:.1f})",
                f"{result['alone_spread_pct']:.2f}",
                f"{result['gpuvirt_cpu_wait_pct']:.0f} ({result['bare_cpu_wait_pct']:.0f})",
            )
        )
    print(
        f"A {sides.work.device.name}; worst of {length['windows']} windows of {length['window']:g} s under gpuvirt; in "
        "brackets: the soft GPU's bare time slices, which know no weights."
    )
    header = (
        "",
        "share error, pp",
        "Jain's index",
        "of engine, pp",
        "of work, pp",
        "short, pp",
        "loss, %",
        "engine in use, %",
        "alone, before : after, %",
        "no processor, %",
    )
    print(record.table(header, rows))
    print(
        "share error, Jain's index: of the time for which jobs had the GPU (bare: its engine).\n"
        "of engine: of the time in which the soft GPU's engine was a job's, by its own books: less than the former\n"
        "where a job waits for each kernel in its turn.\n"
        "of work: of what jobs got done over what they do alone: more where a job alone leaves the GPU idle.\n"
        "short: by how much the one worst off got less done than its part of what it does alone.\n"
        "engine in use: time in which the soft GPU's engine was some job's. no processor: time in which threads of\n"
        "jobs could have run and had none; this, and before : after, tell how quiet the machine was."
    )
    return found


def measure(work: bench.Bench) -> dict[str, Any]:
    """Shares, then the service. Raises ProbeFailed or GpuvirtError."""
    for probe in ("share", "serve"):
        probes.build(probe, work.scratch)
    sides = Sides(work, Ledger(work.device))
    quick = work.options.quick
    titles = [title for title, _, _ in CASES]
    chosen = [title for title in titles if any(part in title for part in work.options.case or titles)]
    if quick:
        chosen = list(QUICK_CASES)
    results: dict[str, Any] = {}
    if work.options.part in ("shares", "all"):
        cases = sharing(sides, chosen, QUICK if quick else FULL)
        whole = worst([result["gpuvirt"] for result in cases.values()])
        whole["loss_pct"] = max(result["gpuvirt"]["loss_pct"] for result in cases.values())
        results |= {**whole, "cases": cases}
        print()
    if work.options.part in ("service", "all"):
        results |= service.measure(sides, TRAINING, quick)
        print()
    report(results)
    return results


def report(results: dict[str, Any]) -> None:
    """What must hold, and whether it does."""
    checks = []
    bounds = {**BOUNDS, **service.bounds(results)}
    for name, bound in bounds.items():
        if name not in results:
            continue
        at_least = name == "jain" or name.startswith("be_")
        holds = results[name] >= bound if at_least else results[name] <= bound
        checks.append(
            (
                name,
                f"{results[name]:.3f}",
                f"{'at least' if at_least else 'at most'} {bound:g}",
                "holds" if holds else "FAILS",
            )
        )
    print(record.table(("", "worst", "", ""), checks))


def options() -> Any:
    """The command line."""
    parser = record.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few cases, short: for tests")
    parser.add_argument("--part", choices=("shares", "service", "all"), default="all", help="measure only this")
    parser.add_argument(
        "--case", action="append", metavar="TEXT", help="only the cases of shares with TEXT in their title"
    )
    return parser


if __name__ == "__main__":
    headline = (*BOUNDS, *service.HEADLINE)
    sys.exit(bench.run("sharing", options(), MEMORY, measure, headline))
