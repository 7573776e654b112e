# SPDX-License-Identifier: Apache-2.0
"""swap.py and oversubscribe.py from start to end, short: what they say is there and is about right. No times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def results_of(name: str, file: Path, *options: str) -> dict[str, Any]:
    """The file that a benchmark wrote."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--json", str(file), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    return document


@pytest.mark.timeout(300)
def test_switches_are_compared_with_the_link(tmp_path: Path) -> None:
    document = results_of("swap", tmp_path / "swap.json")
    results = document["results"]
    assert document["out_share_of_link"] == results["out_share_of_link"]
    assert 0 < document["out_share_of_link"] <= 1.05 and 0 < document["in_share_of_link"] <= 1.05
    assert document["switch_dirty_ratio"] >= 0.95  # nothing is faster than the best that the link allows
    found = results["with_link"]
    assert found["checked"] is True
    assert found["dirty"]["seconds"]["count"] >= 1
    for name, ways in {"out": ("out_bytes",), "in": ("in_bytes",), "dirty": ("out_bytes", "in_bytes")}.items():
        for way in ways:
            assert found[name][way] >= 0.9 * found[name]["had_to_move"] > 0


@pytest.mark.timeout(300)
def test_jobs_together_compute_what_they_do_alone(tmp_path: Path) -> None:
    document = results_of("oversubscribe", tmp_path / "over.json")
    assert document["results_equal"] is True
    assert document["worst_total_over_serial"] > 0
    (cell,) = document["results"]["cells"]
    assert cell["jobs"] * cell["job_bytes"] > 1.4 * document["results"]["device_bytes"]
    assert cell["switches"] >= 2 and cell["out_bytes"] > 0
    assert "CUDA_ERROR_OUT_OF_MEMORY" in document["results"]["larger_than_the_device"]
