# SPDX-License-Identifier: Apache-2.0
"""sharing.py, handoff.py and alone.py from start to end, short: what they say is there. No times, no shares."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def results_of(name: str, file: Path) -> dict[str, Any]:
    """The file that a benchmark wrote."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), "--quick", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(file.read_text())
    return document


@pytest.mark.timeout(300)
def test_shares_and_a_service_are_compared_with_bare_slices(tmp_path: Path) -> None:
    document = results_of("sharing", tmp_path / "sharing.json")
    results = document["results"]
    for figure in ("share_error_pp", "jain", "loss_pct", "hp_p99_ratio_0.5", "be_throughput_0.5"):
        assert document[figure] == results[figure]
    assert len(results["cases"]) == 1
    for found in results["cases"].values():
        for way in ("bare", "gpuvirt"):
            (window,) = found[way]["windows"]
            assert len(window["throughput"]) == len(found["weights"]) and min(window["throughput"]) >= 0
            assert sum(window["throughput"]) > 0
    served = results["service"]["0.5"]
    assert served["requests"] > 0
    assert all(0 < served[way]["p50"] <= served[way]["p99"] for way in ("alone", "bare", "gpuvirt"))


@pytest.mark.timeout(300)
def test_hand_overs_are_seen_by_the_jobs_and_in_the_log(tmp_path: Path) -> None:
    document = results_of("handoff", tmp_path / "handoff.json")
    assert document["handoff_p50_us"] <= document["handoff_p99_us"]
    (case,) = document["results"]["cases"].values()
    assert case["jobs"] == 3 and case["count"] > 0
    assert set(document["results"]["logged"]["stages_us"]) == {"drain", "grant"}


@pytest.mark.timeout(300)
def test_a_job_alone_is_compared_with_itself_without_gpuvirt(tmp_path: Path) -> None:
    document = results_of("alone", tmp_path / "alone.json")
    (alone,) = document["results"]["alone"].values()
    assert set(alone["overhead_pct"]) == {"launches", "trips", "steps"}
    assert set(alone["overhead_pct"]["launches"]) == {"calls", "calls_cpu", "process", "sleeper"}
    assert document["daemon_idle_cpu_pct"] > 0
    assert document["shim_threads_alone"] >= 0
