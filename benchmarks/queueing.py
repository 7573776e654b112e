#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long jobs wait in a cluster's queue: every order of the scheduler on the jobs of Microsoft's Philly clusters.

A simulated fleet; GPUs are counted without regard to hosts. What preemption costs is swept: half of it the GPUs are
busy with taking a job off them, half with putting it back. `ours` is the default, which knows nothing of run times.
"""

from __future__ import annotations

import argparse
import gzip
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from gpuvirt.scheduler.order import DEFAULT, POLICIES
from gpuvirt.scheduler.order.job import Terms
from gpuvirt.scheduler.simulate.engine import Engine, Request
from gpuvirt.scheduler.simulate.outcome import figures
from gpuvirt.scheduler.traces import philly
from harness import record

TRACE = record.ROOT.parent / "shared" / "traces" / "philly_jobs.csv.gz"
CLUSTER, GPUS = "103959", 20
COSTS = (0.0, 1.0, 10.0, 60.0)  # s of each GPU of the victim
LOADS = (24, 22, 20, 18, 16, 14)  # GPUs for the 19.5 that are wanted on average: 81 to 139 %
SIZES = {"11cb48": 16, "b436b2": 58, "ee9e8c": 128, "0e4a51": 40, "e13805": 32}  # other clusters, as full
WHOLE = 248  # GPUs for all clusters together, 97 % full
OTHERS = (DEFAULT, "las", "srtf")
HEADLINE = ("ours_over_las", "ours_over_srtf", "replay_s", "reference_worst_error")

# average, median and 95th percentile of the JCT, average wait, preemptions: Tiresias' simulator on the same jobs, their
# times cut to whole seconds; and the average of an independent replay of this very file
REFERENCE: dict[str, tuple[tuple[int, int, int, int, int], int]] = {
    "fifo": ((822_602, 973_693, 1_656_420, 796_858, 0), 822_810),
    "fit-first": ((357_351, 147_748, 1_279_717, 331_608, 0), 363_219),
    "las": ((188_443, 474, 1_547_827, 162_700, 1_490), 188_213),
    "srtf-gpu": ((101_721, 474, 289_459, 75_978, 833), 101_721),
    "srtf": ((96_252, 474, 287_462, 70_509, 1_152), 96_252),
}
MEASURED = ("jct_avg_s", "jct_p50_s", "jct_p95_s", "wait_avg_s", "preemptions")
COLUMNS = {
    "JCT avg": "jct_avg_s", "p50": "jct_p50_s", "p95": "jct_p95_s", "p99": "jct_p99_s",
    "wait avg": "wait_avg_s", "p50 ": "wait_p50_s", "p95 ": "wait_p95_s", "preempted": "suspensions",
}  # fmt: skip

Row = dict[str, Any]


def run(jobs: Sequence[Request], gpus: int, policy: str, cost: float = 0.0) -> Row:
    """One replay, timed."""
    began = time.perf_counter()
    row = figures(Engine(jobs, Terms(gpus, cost / 2, cost / 2), POLICIES[policy]).run())
    return {**row, "gpus": gpus, "cost_s": cost, "replay_s": time.perf_counter() - began}


def sweep(jobs: Sequence[Request], gpus: int, costs: Sequence[float]) -> list[Row]:
    """Every order at every cost; once where it preempts nobody."""
    return [
        run(jobs, gpus, policy, cost)
        for policy, order in POLICIES.items()
        for cost in (costs if order(Terms(gpus)).preempts else costs[:1])
    ]


def reproduced(rows: Sequence[Row]) -> list[Row]:
    """The reference beside what the same orders reach here where preemption is free."""
    found = []
    for policy, (tiresias, replayed) in REFERENCE.items():
        (row,) = (row for row in rows if row["policy"] == policy and not row["cost_s"])
        found.append(
            {
                "policy": policy,
                "jct_avg_s": row["jct_avg_s"],
                "replayed_jct_avg_s": replayed,
                "error": row["jct_avg_s"] / replayed - 1,
                "tiresias": dict(zip(MEASURED, tiresias, strict=True)),
                "error_to_tiresias": row["jct_avg_s"] / tiresias[0] - 1,
            }
        )
    return found


def worst_ratio(rows: Sequence[Row], other: str) -> float:
    """Average JCT of the default in those of another, at the cost at which it is worst."""
    by = {(row["policy"], row["cost_s"]): row["jct_avg_s"] for row in rows}
    return max(ours / by[other, cost] for (policy, cost), ours in by.items() if policy == DEFAULT)


def show(title: str, rows: Sequence[Row], label: Any) -> None:
    """A table for people, in seconds."""
    lines = [(label(row), *(f"{row[key]:,.0f}" for key in COLUMNS.values())) for row in rows]
    print(f"\n{title}")
    print(record.table(("", *COLUMNS), lines))


def ratios(title: str, cells: dict[str, list[Row]]) -> None:
    """The default beside las and srtf on several fleets."""
    lines = []
    for name, rows in cells.items():
        ours, las, oracle = (next(row for row in rows if row["policy"] == policy) for policy in OTHERS)
        times = [f"{row['jct_avg_s']:,.0f}" for row in (ours, las, oracle)]
        over = [f"{ours['jct_avg_s'] / row['jct_avg_s']:.3f}" for row in (las, oracle)]
        lines.append((name, *times, *over, f"{ours['jct_p99_s'] / las['jct_p99_s']:.3f}"))
    print(f"\n{title}")
    print(record.table(("", *OTHERS, "of las", "of srtf", "p99 of las"), lines))


def measure(trace: Path, quick: bool) -> Row:
    """Everything, with tables on the way. Raises OSError, GpuvirtError."""
    with gzip.open(trace, "rt") as lines:
        text = lines.readlines()
    jobs = philly.read(text, CLUSTER)
    costs = (COSTS[0], COSTS[-1]) if quick else COSTS
    rows = sweep(jobs, GPUS, costs)
    show(f"{len(jobs)} jobs of cluster {CLUSTER} on {GPUS} GPUs; seconds; by cost of a preemption", rows, _policy)
    reference = reproduced(rows)
    print("\nAverage JCT where preemption is free, beside the reference")
    print(
        record.table(
            ("", "here", "same file", "error", "Tiresias' own", "error"),
            [
                (
                    one["policy"], f"{one['jct_avg_s']:,.0f}", f"{one['replayed_jct_avg_s']:,}",
                    f"{one['error']:+.3%}", f"{one['tiresias']['jct_avg_s']:,}", f"{one['error_to_tiresias']:+.3%}",
                )
                for one in reference
            ],
        )
    )  # fmt: skip
    results: Row = {
        "trace": trace.name, "cluster": CLUSTER, "gpus": GPUS, "jobs": len(jobs), "default": DEFAULT,
        "cost_of_a_preemption": "half to suspend, half to resume, seconds of each GPU of the victim",
        "policies": rows, "reference": reference,
        "reference_worst_error": max(abs(one["error"]) for one in reference),
        "ours_over_las": worst_ratio(rows, "las"), "ours_over_srtf": worst_ratio(rows, "srtf"),
        "replay_s": None,
    }  # fmt: skip
    if not quick:
        results.update(_more(text, jobs))
    print(f"\nours_over_las {results['ours_over_las']:.3f}  ours_over_srtf {results['ours_over_srtf']:.3f}", end="")
    print(f"  replay_s {results['replay_s']:.1f}" if results["replay_s"] is not None else "")
    return results


def _more(text: Sequence[str], jobs: Sequence[Request]) -> Row:
    """Other loads, other clusters, and the whole file."""
    wanted = sum(job.gpus * job.work for job in jobs) / (jobs[-1].arrival - jobs[0].arrival)
    loads = {f"{wanted / gpus:4.0%}": [run(jobs, gpus, policy, 10) for policy in OTHERS] for gpus in LOADS}
    ratios("Average JCT at other loads (fewer GPUs), a preemption costs 10 s", loads)
    clusters = {
        f"{name}, {gpus} GPUs, {cost:g} s": [run(philly.read(text, name), gpus, policy, cost) for policy in OTHERS]
        for name, gpus in SIZES.items()
        for cost in (COSTS[0], COSTS[-1])
    }
    ratios("Average JCT of other clusters", clusters)
    began = time.perf_counter()
    everything = philly.read(text)
    reading = time.perf_counter() - began
    whole = [run(everything, WHOLE, policy, 10) for policy in POLICIES]
    show(f"All {len(everything):,} jobs on {WHOLE} GPUs, a preemption costs 10 s", whole, _policy)
    longest = reading + max(row["replay_s"] for row in whole)
    print("replay: " + ", ".join(f"{row['policy']} {reading + row['replay_s']:.1f} s" for row in whole))
    return {"loads": loads, "clusters": clusters, "whole": whole, "reading_s": reading, "replay_s": longest}


def _policy(row: Row) -> str:
    return f"{row['policy']}, {row['cost_s']:g} s"


def main() -> int:
    """Exit code 1 where the trace is missing or no trace."""
    options = record.parser(__doc__)
    options.add_argument("--trace", type=Path, default=TRACE, metavar="FILE", help="philly_jobs.csv.gz")
    options.add_argument("--quick", action="store_true", help="one cluster, the least and the greatest cost")
    chosen: argparse.Namespace = options.parse_args()
    try:
        results = measure(chosen.trace, chosen.quick)
        record.write(chosen.json, "queueing", "simulated GPUs", results, HEADLINE)
    except (OSError, EOFError, UnicodeDecodeError, GpuvirtError) as error:
        print(f"queueing: {chosen.trace}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
