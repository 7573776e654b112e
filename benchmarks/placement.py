#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How full a cluster gets before jobs no longer fit: every placement policy on the openb traces, as in FGD's paper.

Jobs come one by one and never leave, until 130 % of the GPUs have been asked for; what finds no place is not tried
again. Allocated is the part of all GPU thousandths in use, averaged while 100 and 130 % have arrived (rounded).
Published: the means of ten seeds of FGD's own simulator. Draws here are Python's, so only means compare.
"""

from __future__ import annotations

import argparse
import csv
import math
import random
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from gpuvirt.scheduler.model import Demand, Fleet, Node
from gpuvirt.scheduler.placement import DEFAULT, POLICIES
from gpuvirt.scheduler.placement.engine import Engine
from gpuvirt.scheduler.placement.random import RandomEngine
from gpuvirt.scheduler.traces import openb
from harness import record

TRACES = record.ROOT.parent / "shared" / "traces"
NODES, PODS, EXPECTED = "openb_node_list_gpu_node.csv", "openb_pod_list_{}.csv", "expected_fgd.csv"
RATIO = 1.3
MARKS = (100, 130)
FIRST, SEEDS, MORE = 42, 10, 30
SCATTERED = ("Clustering", "Packing")  # ten seeds leave their mean 0.2 points of standard error: they get more
BASELINES = ("Random", "DotProd", "Clustering", "Packing", "BestFit", "FGD")
CLONES = 16
HEADLINE = ("baseline_worst_error_points", "worst_margin_over_fgd_points", "rate_1213_nodes", "rate_19408_nodes")

Row = dict[str, Any]
Published = dict[tuple[str, str], tuple[float, float]]


def engine_of(policy: str, fleet: Fleet, pods: Sequence[Demand], chance: random.Random) -> RandomEngine | Engine:
    """The policy at work on a fleet."""
    if policy == "Random":
        return RandomEngine(fleet, chance)
    return Engine(fleet, POLICIES[policy], pods)


def replay(nodes: Sequence[Node], pods: Sequence[Demand], policy: str, seed: int) -> Row:
    """One run; allocated % at every mark, placements/s (tries, also those in vain)."""
    chance = random.Random(seed)
    capacity = sum(node.gpus for node in nodes) * 1000
    arriving = openb.stretched(list(pods), capacity, RATIO, chance)
    order = list(nodes)
    chance.shuffle(order)
    fleet = Fleet(order)
    engine = engine_of(policy, fleet, pods, chance)
    arrived = allocated = 0
    sums: dict[int, list[float]] = {mark: [] for mark in MARKS}
    began = time.perf_counter()
    for demand in arriving:
        arrived += demand.total_milli
        if engine.place(demand) is not None:
            allocated += demand.total_milli
        mark = round(100 * arrived / capacity)
        if mark in sums:
            sums[mark].append(100 * allocated / capacity)
    seconds = time.perf_counter() - began
    if allocated != fleet.allocated_milli():
        raise GpuvirtError(f"{policy}: {allocated} thousandths were placed, the fleet holds {fleet.allocated_milli()}")
    row: Row = {"seed": seed, **{f"at_{mark}": statistics.fmean(found) for mark, found in sums.items()}}
    row["rate"] = len(arriving) / seconds
    return row


def summary(trace: str, policy: str, runs: Sequence[Row], published: Published) -> Row:
    """Mean and standard deviation of some seeds beside what was published."""
    row: Row = {"trace": trace, "policy": policy, "seeds": len(runs)}
    for index, mark in enumerate(MARKS):
        found = [run[f"at_{mark}"] for run in runs]
        row[f"at_{mark}"] = statistics.fmean(found)
        row[f"sd_{mark}"] = statistics.stdev(found) if len(found) > 1 else None
        if (trace, policy) in published:
            row[f"published_{mark}"] = published[trace, policy][index]
        row[f"over_published_fgd_{mark}"] = row[f"at_{mark}"] - published[trace, "FGD"][index]
    row["rate"] = statistics.median(run["rate"] for run in runs)
    return row


def latency(nodes: Sequence[Node], pods: Sequence[Demand], clones: int) -> Row:
    """Rate of the default on a fleet `clones` times as large, until 130 % have arrived, and how long one takes."""
    chance = random.Random(FIRST)
    order = [
        Node(f"{node.name}-{clone}", node.cpu_milli, node.memory_mib, node.gpus, node.model)
        for clone in range(clones)
        for node in nodes
    ]
    chance.shuffle(order)
    fleet = Fleet(order)
    arriving = openb.stretched(list(pods), fleet.capacity_milli, RATIO, chance)
    engine = Engine(fleet, POLICIES[DEFAULT], pods)
    took = []
    last = began = time.perf_counter()
    for demand in arriving:
        engine.place(demand)
        now = time.perf_counter()
        took.append(now - last)
        last = now
    took.sort()
    return {
        "nodes": len(order), "gpus": fleet.capacity_milli // 1000, "placements": len(took),
        "rate": len(took) / (last - began), "p50_ms": 1e3 * took[len(took) // 2],
        "p99_ms": 1e3 * took[len(took) * 99 // 100], "longest_ms": 1e3 * took[-1],
        "allocated": 100 * fleet.allocated_milli() / fleet.capacity_milli,
    }  # fmt: skip


def show(rows: Sequence[Row]) -> None:
    """A table for people."""
    lines = []
    for row in rows:
        error = [row[f"at_{mark}"] - row.get(f"published_{mark}", math.nan) for mark in MARKS]
        lines.append(
            (
                f"{row['trace']}, {row['policy']}",
                *(f"{row[f'at_{mark}']:.2f}" for mark in MARKS),
                f"{row['sd_100']:.2f}" if row["sd_100"] is not None else "",
                *("" if math.isnan(points) else f"{points:+.2f}" for points in error),
                *(f"{row[f'over_published_fgd_{mark}']:+.2f}" for mark in MARKS),
                f"{row['rate']:,.0f}",
            )
        )
    header = ("", "@100", "@130", "sd", "error", "error", "over FGD", "over FGD", "placed/s")
    print(record.table(header, lines), flush=True)


def expected(file: Path) -> Published:
    """The published means by trace and policy."""
    with file.open() as lines:
        return {
            (row["trace"], row["policy"]): (float(row["alloc_pct_at_100"]), float(row["alloc_pct_at_130"]))
            for row in csv.DictReader(lines)
        }


def measure(folder: Path, chosen: argparse.Namespace) -> Row:
    """Everything, with a table a trace on the way. Raises OSError, GpuvirtError."""
    published = expected(folder / EXPECTED)
    traces = chosen.traces or list(dict.fromkeys(trace for trace, _ in published))
    with (folder / NODES).open() as lines:
        nodes = openb.nodes(lines)
    rows: list[Row] = []
    runs: list[Row] = []
    first: Sequence[Demand] = ()
    for trace in traces:
        with (folder / PODS.format(trace)).open() as lines:
            pods = openb.demands(lines)
        first = first or pods
        mine = []
        for policy in chosen.policies or (*BASELINES, DEFAULT):
            count = max(chosen.seeds, chosen.more if policy in SCATTERED else 0)
            found = [replay(nodes, pods, policy, seed) for seed in range(FIRST, FIRST + count)]
            runs += [{"trace": trace, "policy": policy, **one} for one in found]
            mine.append(summary(trace, policy, found, published))
        show(mine)
        rows += mine
    errors = [
        abs(row[f"at_{mark}"] - row[f"published_{mark}"])
        for row in rows
        for mark in MARKS
        if f"published_{mark}" in row
    ]
    margins = [row[f"over_published_fgd_{mark}"] for row in rows if row["policy"] == DEFAULT for mark in MARKS]
    speed = {clones: latency(nodes, first, clones) for clones in ((1,) if chosen.quick else (1, CLONES))}
    for one in speed.values():
        print(
            f"{one['nodes']:,} nodes, {one['gpus']:,} GPUs: {one['placements']:,} placements, {one['rate']:,.0f}/s, "
            f"p50 {one['p50_ms']:.3f}, p99 {one['p99_ms']:.3f} ms, {one['allocated']:.2f} % allocated"
        )
    results: Row = {
        "traces": traces, "ratio": RATIO, "default": DEFAULT, "nodes": len(nodes), "table": rows, "runs": runs,
        "speed": list(speed.values()),
        "baseline_worst_error_points": max(errors, default=None),
        "worst_margin_over_fgd_points": min(margins, default=None),
        "rate_1213_nodes": speed[1]["rate"], "rate_19408_nodes": speed[CLONES]["rate"] if CLONES in speed else None,
    }  # fmt: skip
    print("  ".join(f"{key} {results[key]:.2f}" for key in HEADLINE if results[key] is not None))
    return results


def main() -> int:
    """Exit code 1 where the traces are missing or no traces."""
    options = record.parser(__doc__)
    options.add_argument("--folder", type=Path, default=TRACES, metavar="DIR", help="of the openb lists")
    options.add_argument("--traces", nargs="+", metavar="NAME", help="some only (default, cpu050, ...)")
    options.add_argument("--policies", nargs="+", choices=(*BASELINES, DEFAULT), help="some only")
    options.add_argument("--seeds", type=int, default=SEEDS, metavar="N", help=f"from {FIRST} on")
    options.add_argument("--more", type=int, default=MORE, metavar="N", help=f"seeds of {' and '.join(SCATTERED)}")
    options.add_argument("--quick", action="store_true", help="one seed of two traces, no large fleet")
    chosen = options.parse_args()
    if chosen.quick:
        chosen.seeds, chosen.more = 1, 1
        chosen.traces = chosen.traces or ["default", "multigpu20"]
    if chosen.seeds < 1:
        options.error("--seeds: at least 1")
    try:
        results = measure(chosen.folder, chosen)
        record.write(chosen.json, "placement", "simulated GPUs", results, HEADLINE)
    except KeyError as error:
        print(f"placement: {chosen.folder / EXPECTED}: nothing about {error}", file=sys.stderr)
        return 1
    except (OSError, UnicodeDecodeError, GpuvirtError) as error:
        print(f"placement: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
