# SPDX-License-Identifier: Apache-2.0
"""Pictures of simulated runs: who had the GPU, shares over time, latencies. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from gpuvirt.arbitration.facts import SECOND
from gpuvirt.errors import GpuvirtError, UsageError
from gpuvirt.simulation.outcome import Outcome

KINDS = {".png", ".svg", ".pdf"}
LEASES = 40  # so many are shown
HEIGHTS = {"lease": 0.8, "drain": 0.8, "evict": 0.3, "restore": 0.3}
SHADES = {"lease": 1.0, "drain": 0.4, "evict": 0.7, "restore": 0.7}


def require(path: Path) -> None:
    """Before time is spent: can this picture be made? Raises GpuvirtError."""
    if path.suffix not in KINDS:
        raise UsageError(f"--plot {path}: no kind of picture", f"let it end with {', '.join(sorted(KINDS))}")
    if find_spec("matplotlib") is None:
        raise GpuvirtError("--plot needs matplotlib, which is not installed", "pip install matplotlib, or leave it out")


def draw(runs: Sequence[Outcome], path: Path) -> None:
    """One column for each run, written to `path`. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7 * len(runs), 9), layout="constrained")
    axes: Any = figure.subplots(3, len(runs), squeeze=False)
    for column, run in enumerate(runs):
        colours = {row["job"]: f"C{index % 10}" for index, row in enumerate(run.jobs)}
        axes[0][column].set_title(f"{run.run.scenario.title}\npolicy: {run.policy}", fontsize=10)
        _timeline(axes[0][column], run, colours)
        _shares(axes[1][column], run, colours)
        _latencies(axes[2][column], run, colours)
    figure.savefig(path)


def _timeline(axes: Any, run: Outcome, colours: dict[str, str]) -> None:
    """The first leases after the warmup as bars, drains as pale ones, memory that moves as thin ones."""
    begin = run.run.begin
    spans = [span for span in run.run.spans if span.end > begin]
    leases = [span.end - span.begin for span in spans if span.kind == "lease"]
    end = begin + (LEASES * max(1, int(median(leases))) if leases else SECOND)
    names = list(colours)
    for span in spans:
        if span.begin < end:
            left = max(span.begin, begin)
            axes.barh(
                names.index(span.job), (min(span.end, end) - left) / SECOND, left=(left - begin) / SECOND,
                height=HEIGHTS[span.kind], color=colours[span.job], alpha=SHADES[span.kind],
                hatch="//" if span.kind in ("evict", "restore") else None,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, (end - begin) / SECOND)
    axes.set_xlabel("seconds after the warmup: leases, drains (pale), memory that moves (thin)")


def _shares(axes: Any, run: Outcome, colours: dict[str, str]) -> None:
    """The share of each job in each window of the report."""
    width = run.run.scenario.report
    count = max(1, (run.run.end - run.run.begin) // width)
    for row in run.jobs:
        tally = run.run.arbiters[row["gpu"]].tallies.get(row["job"])
        if tally is not None:
            shares = [100 * tally.computed.get(window, 0) / width for window in range(count)]
            edges = [window * width / SECOND for window in range(count + 1)]
            axes.stairs(shares, edges, color=colours[row["job"]], label=row["job"], baseline=None)
    axes.set_ylim(0, 105)
    axes.set_ylabel("share of the GPU, %")
    axes.set_xlabel("seconds after the warmup")
    axes.legend(fontsize=8)


def _latencies(axes: Any, run: Outcome, colours: dict[str, str]) -> None:
    """Which part of the requests took no longer; dashed: the same job alone."""
    for row in run.jobs:
        name = row["job"]
        tally = run.run.arbiters[row["gpu"]].tallies.get(name)
        alone = run.alone.get(name)
        for values, style in ((tally.latencies if tally else (), "-"), (alone.latencies if alone else (), "--")):
            if values:
                axes.ecdf([1000 * value / SECOND for value in values], color=colours[name], linestyle=style)
    axes.set_xscale("log")
    axes.set_ylabel("part of the requests")
    axes.set_xlabel("latency, ms (dashed: alone)")
    axes.grid(True, alpha=0.3)
