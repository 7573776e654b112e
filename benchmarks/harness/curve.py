# SPDX-License-Identifier: Apache-2.0
"""Total time over serial time by quantum, ours beside nvshare's: the figures and the plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.probes import ProbeFailed

# Two jobs of 15.3 GB on a P100 of 16 GB, in seconds; by quantum in seconds. From the thesis of grgalex/nvshare.
NVSHARE_SERIAL = 1438.0
NVSHARE_WITHOUT = 11434.0  # both at once without its lock: page faults
NVSHARE = {1000: 1380.0, 60: 1468.0, 30: 1521.0, 20: 1583.0, 10: 1821.0, 5: 2788.0}
NVSHARE_MOVE = (
    15.3 / 12.0
)  # seconds to move a job's memory once over a PCIe gen3 x16 link, about 12 GB/s: our arithmetic


def draw(file: Path, ours: Sequence[tuple[float, float]], move: float) -> None:
    """Writes the plot; `ours`: (quantum in s, total over serial); move: s to move a job's memory once over our link.

    Raises ProbeFailed without matplotlib.
    """
    try:
        import matplotlib
    except ImportError:
        raise ProbeFailed("--plot needs matplotlib: pip install matplotlib") from None
    matplotlib.use("svg" if file.suffix == ".svg" else "agg")
    matplotlib.rcParams["svg.hashsalt"] = "gpuvirt"  # the same file for the same figures
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2))
    theirs = [(q / NVSHARE_MOVE, total / NVSHARE_SERIAL) for q, total in sorted(NVSHARE.items()) if q < 1000]
    mine = sorted((q / move, ratio) for q, ratio in ours)
    axes.plot(*zip(*theirs, strict=True), "s--", color="tab:orange", label="nvshare (published, P100, 2 x 15.3 GB)")
    axes.plot(*zip(*mine, strict=True), "o-", color="tab:blue", label="gpuvirt (soft GPU with a modelled link)")
    axes.axhline(1.0, color="gray", linewidth=0.8)
    axes.annotate("one after the other", (mine[0][0], 1.0), textcoords="offset points", xytext=(0, -12), color="gray")
    axes.set_xscale("log")
    axes.set_xlabel("quantum / time to move the memory of a job once over the link")
    axes.set_ylabel("total time / one after the other")
    axes.set_title("Two jobs that each fill the device, by quantum")
    axes.set_ylim(bottom=0.8)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None, dpi=120)
    pyplot.close(figure)
