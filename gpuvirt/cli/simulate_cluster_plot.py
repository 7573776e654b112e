# SPDX-License-Identifier: Apache-2.0
"""Pictures of a simulated queue: GPUs given, jobs that wait, how long jobs took. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpuvirt.scheduler.simulate.engine import Run

DAY = 86400.0
POINTS = 2000  # of a curve over time


def draw(runs: Sequence[Run], title: str, path: Path) -> None:
    """All runs in one picture, written to `path`. Raises OSError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 10), layout="constrained")
    axes: Any = figure.subplots(3, 1)
    axes[0].set_title(title, fontsize=10)
    for index, run in enumerate(runs):
        style: dict[str, Any] = {"color": f"C{index % 10}", "label": run.policy.name, "linewidth": 1}
        edges, given, waiting = averages(run)
        axes[0].stairs(given, edges, baseline=None, **style)
        axes[1].stairs(waiting, edges, baseline=None, **style)
        axes[2].ecdf([max(1.0, (job.ended or job.arrival) - job.arrival) for job in run.jobs], **style)
    axes[0].set_ylabel("GPUs that jobs have")
    axes[0].set_ylim(bottom=0)
    axes[0].set_xlabel("days")
    axes[1].set_ylabel("jobs that wait")
    axes[1].set_ylim(bottom=0)
    axes[1].set_xlabel("days")
    axes[2].set_ylabel("part of the jobs")
    axes[2].set_xlabel("from arrival to end, s")
    axes[2].set_xscale("log")
    for one in axes:
        one.grid(True, alpha=0.3)
        one.legend(fontsize=8)
    figure.savefig(path)


def averages(run: Run, points: int = POINTS) -> tuple[list[float], list[float], list[float]]:
    """Edges of equal spans of time in days, and in each of them the GPUs given and the jobs that wait, on average."""
    begin, end = run.curve[0][0], run.curve[-1][0]
    width = (end - begin) / points or 1.0
    given, waiting = [0.0] * points, [0.0] * points
    for index, (since, gpus, jobs) in enumerate(run.curve[:-1]):
        until = run.curve[index + 1][0]
        for span in range(int((since - begin) / width), min(points, int((until - begin) / width) + 1)):
            part = (min(until, begin + (span + 1) * width) - max(since, begin + span * width)) / width
            given[span] += gpus * max(0.0, part)
            waiting[span] += jobs * max(0.0, part)
    return [span * width / DAY for span in range(points + 1)], given, waiting
