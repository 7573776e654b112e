#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Are promises kept? Tiers on the jobs of a Philly cluster, on simulated hosts, by the scheduler's own decisions.

A trace has no tiers: each job gets one by a seeded draw, 25 % premium, 35 % standard, 40 % basic. Loads other than the
trace's own are made by letting jobs arrive faster. A tier promises a part of the GPU time that a job wants, over a
sliding hour; a guarantee beyond what the hosts can keep is not taken on, and that job is served as basic. Hosts are
simulated; suspending, resuming and moving cost what is printed. Jobs that want more GPUs than a host has are gangs.
"""

from __future__ import annotations

import argparse
import gzip
import random
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from gpuvirt.scheduler.simulate.cluster import Arrival, Cluster
from gpuvirt.scheduler.simulate.engine import Request
from gpuvirt.scheduler.simulate.promises import figures
from gpuvirt.scheduler.state import TIERS, Demand, Gpu, Node, NodeState, Program, Rules, Spec
from gpuvirt.scheduler.traces import philly
from harness import record

TRACE = record.ROOT.parent / "shared" / "traces" / "philly_jobs.csv.gz"
CLUSTER, HOSTS, GPUS = "103959", 5, 4
GIB = 1 << 30
MEMORY, HOST_MEMORY, SWAP = 16 * GIB, 1024 * GIB, 768 * GIB
PARTS = (0.25, 0.35, 0.40)  # of the jobs, by tier
SEEDS = (1, 2, 3)
LOADS = (0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
AT = 1.2
BOUNDS = {"premium_kept": 0.99, "standard_kept": 0.95, "allocation": 0.95}
RULES = Rules(moves=True)
HEADLINE = tuple(BOUNDS)

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One run."""

    load: float
    seed: int
    moves: bool
    jobs: int  # the first so many of the trace; 0: all


def run(trace: Path, case: Case) -> Row:
    """One run, timed. Raises OSError, GpuvirtError."""
    with gzip.open(trace, "rt") as lines:
        requests = philly.read(lines, CLUSTER)
    requests = requests[: case.jobs] if case.jobs else requests
    nodes = [
        Node(
            f"n{host}",
            f"n{host}:1",
            tuple(Gpu(f"n{host}-{gpu}", gpu, "V100", MEMORY) for gpu in range(GPUS)),
            cpu_thousandths=64_000,
            memory_bytes=HOST_MEMORY,
            swap_bytes=SWAP,
            state=NodeState.READY,
        )
        for host in range(HOSTS)
    ]
    rules = replace(RULES, moves=case.moves)
    arrivals = tiered(requests, case.load, case.seed)
    began = time.perf_counter()
    outcome = Cluster(nodes, arrivals, rules, until=arrivals[-1].at).run()
    row = figures(outcome, HOSTS * GPUS, rules)
    return {**vars(case), **row, "run_s": time.perf_counter() - began}


def tiered(requests: Sequence[Request], load: float, seed: int) -> list[Arrival]:
    """The jobs with tiers, arriving so fast that they want `load` times the GPUs that there are."""
    draws = random.Random(seed)
    span = requests[-1].arrival - requests[0].arrival
    wanted = sum(one.gpus * one.work for one in requests) / (HOSTS * GPUS * span)
    found = []
    for one in requests:
        (tier,) = draws.choices(TIERS, PARTS)
        members = max(1, one.gpus // GPUS)
        demand = Demand(min(one.gpus, GPUS))
        spec = Spec("job", "all", "user", tier, Program(("job",)), demand, members_min=members, members_max=members)
        found.append(Arrival(one.arrival * wanted / load, spec, one.work))
    return found


def mean(rows: Sequence[Row], key: str) -> float | None:
    """Over the seeds; None where there is nothing."""
    values = [row[key] for row in rows if row[key] is not None]
    return sum(values) / len(values) if values else None


def show(rows: Sequence[Row]) -> list[Row]:
    """Means over the seeds, as a table."""
    found, lines = [], []
    keys = ("premium_kept", "standard_kept", "allocation", "premium_admitted", "standard_admitted", "someone_waited")
    for moves in (True, False):
        for load in LOADS:
            same = [row for row in rows if row["load"] == load and row["moves"] is moves]
            if not same:
                continue
            cell = {key: mean(same, key) for key in keys}
            worst = {f"worst_{key}": min(row[key] for row in same) for key in ("premium_kept", "standard_kept")}
            counts = {name: sum(row["actions"].get(name, 0) for row in same) for name in ("Suspend", "Move", "Requeue")}
            found.append({"load": load, "moves": moves, **cell, **worst, **counts})
            percents = ("" if value is None else f"{value:.2%}" for value in cell.values())
            name = f"{load:.0%}" + ("" if moves else ", without moves")
            lines.append((name, *percents, f"{worst['worst_standard_kept']:.2%}", *map(str, counts.values())))
    header = (
        "load", "premium kept", "standard kept", "allocation", "premium admitted", "standard admitted", "someone waits",
        "worst seed, standard", "suspended", "moved", "begun anew",
    )  # fmt: skip
    print(record.table(header, lines))
    return found


def draw(file: Path, cells: Sequence[Row]) -> None:
    """The curve as a plot. Raises GpuvirtError without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        raise GpuvirtError("--plot needs matplotlib", "pip install matplotlib") from None
    matplotlib.use("svg" if file.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "gpuvirt"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    curve = [cell for cell in cells if cell["moves"]]
    for key, color in (("premium_kept", "tab:orange"), ("standard_kept", "tab:blue"), ("allocation", "tab:green")):
        axes.plot(
            [100 * cell["load"] for cell in curve],
            [None if cell[key] is None else 100 * cell[key] for cell in curve],
            "o-",
            color=color,
            label=key.replace("_", " "),
        )
        axes.axhline(100 * BOUNDS[key], color=color, linewidth=0.8, linestyle="--")
    axes.set_xlabel("offered load, % of the GPUs")
    axes.set_ylabel("%")
    axes.set_title(f"Tiers on Philly's cluster {CLUSTER}, {HOSTS} hosts of {GPUS} GPUs")
    axes.grid(True, alpha=0.3)
    axes.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=120)
    pyplot.close(figure)


def measure(options: argparse.Namespace) -> Row:
    """All runs, a process each, and their table. Raises OSError, GpuvirtError."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    jobs = 150 if options.quick else options.jobs
    cases = [Case(load, seed, True, jobs) for load in ((AT,) if options.quick else LOADS) for seed in seeds]
    cases += [Case(AT, seed, False, jobs) for seed in seeds]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(run, [options.trace] * len(cases), cases))
    print(
        f"{jobs or 'All'} jobs of Philly's cluster {CLUSTER} on {HOSTS} hosts of {GPUS} GPUs; tiers drawn: "
        + ", ".join(f"{part:.0%} {tier}" for tier, part in zip(TIERS, PARTS, strict=True))
        + f"; {len(seeds)} seeds. Promised: "
        + ", ".join(f"{tier} {part:.0%}" for tier, part in RULES.fractions.items() if part)
        + f", over {RULES.window:g} s.\nSuspend {RULES.suspend_seconds:g} s, resume {RULES.resume_seconds:g} s, move "
        f"{RULES.move_seconds:g} s. Kept: job-hours, sampled every 300 s, with the promise taken on."
    )
    cells = show(rows)
    at = next(cell for cell in cells if cell["load"] == AT and cell["moves"])
    checks = [
        (key, f"{at[key]:.2%}", f"{bound:.0%}", "holds" if at[key] >= bound else "FAILS")
        for key, bound in BOUNDS.items()
    ]
    print()
    print(record.table((f"at {AT:.0%}", "measured", "at least", ""), checks))
    if options.plot is not None:
        draw(options.plot, cells)
    terms = {
        "trace": options.trace.name, "cluster": CLUSTER, "hosts": HOSTS, "gpus": GPUS,
        "parts": dict(zip(TIERS, PARTS, strict=True)),
        "fractions": dict(RULES.fractions), "window_s": RULES.window, "suspend_s": RULES.suspend_seconds,
        "resume_s": RULES.resume_seconds, "move_s": RULES.move_seconds,
    }  # fmt: skip
    return {**{key: at[key] for key in BOUNDS}, "terms": terms, "curve": cells, "runs": rows}


def main() -> int:
    """Exit code 1 where the trace is missing or no trace."""
    options = record.parser(__doc__)
    options.add_argument("--trace", type=Path, default=TRACE, metavar="FILE", help="philly_jobs.csv.gz")
    options.add_argument("--jobs", type=int, default=500, metavar="N", help="the first N jobs of the trace; 0: all")
    options.add_argument("--plot", type=Path, metavar="FILE", help="the curve as SVG or PNG")
    options.add_argument("--quick", action="store_true", help="one load, few jobs: for tests")
    chosen: argparse.Namespace = options.parse_args()
    try:
        results = measure(chosen)
        record.write(chosen.json, "sla", "simulated GPUs", results, HEADLINE)
    except (OSError, EOFError, UnicodeDecodeError, GpuvirtError) as error:
        print(f"sla: {chosen.trace}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
