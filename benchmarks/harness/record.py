# SPDX-License-Identifier: Apache-2.0
"""What every benchmark leaves behind: a table for people and a JSON file that says where and how it was measured."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gpuvirt", "cuda-bindings", "cuda-core", "nvidia-cuda-nvrtc", "numpy", "numba-cuda", "torch")


def parser(description: str | None) -> argparse.ArgumentParser:
    """A command line with the option that all benchmarks have."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, metavar="FILE", help="also write what was measured to FILE")
    return options


def machine() -> dict[str, Any]:
    """Processor, kernel and memory of this machine."""
    processor = platform.processor() or platform.machine()
    memory = 0
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        pass
    cores = len(os.sched_getaffinity(0))
    return {"processor": processor, "cores": cores, "memory_bytes": memory, "kernel": platform.release()}


def versions() -> dict[str, str]:
    """Python and the packages that take part, as far as they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write(file: Path | None, benchmark: str, device: str, results: Any, headline: Sequence[str] = ()) -> None:
    """Writes `results` with date, machine, device, versions and command, or does nothing without a file.

    Results named in `headline` stand at the top level too.
    """
    if file is None:
        return
    now = datetime.datetime.now(datetime.UTC)
    document = {
        "benchmark": benchmark,
        "date": now.isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "device": device,
        "machine": machine(),
        "versions": versions(),
        **{name: results[name] for name in headline},
        "results": results,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2).replace(f"{ROOT}/", "")  # results are read elsewhere
    file.write_text(text + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they need; the first to the left, the others to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    drawn = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    drawn.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in drawn)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 5th and 95th percentile and count of some measurements."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": statistics.median(ordered),
        "p5": ordered[round(last * 0.05)],
        "p95": ordered[round(last * 0.95)],
        "count": len(ordered),
    }
