# SPDX-License-Identifier: Apache-2.0
"""benchmarks/queueing.py: on jobs made up here, and, where they are, on Philly's against the published table."""

from __future__ import annotations

import gzip
import importlib
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "benchmarks" / "queueing.py"
TRACES = ROOT.parent / "shared" / "traces" / "philly_jobs.csv.gz"


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def quick(trace: Path, folder: Path) -> dict[str, Any]:
    done = script("--quick", "--trace", trace, "--json", folder / "found.json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "attained, 60 s" in done.stdout and "ours_over_las" in done.stdout
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def test_on_jobs_made_up(tmp_path: Path) -> None:
    chance = random.Random(1)
    trace = tmp_path / "jobs.csv.gz"
    with gzip.open(trace, "wt") as file:
        file.write("timestamp,duration,num_gpus,gpu_time,cluster\n")
        for hour in range(200):
            seconds = int(chance.lognormvariate(8, 2))
            moment = f"2017-10-{1 + hour // 24:02} {hour % 24:02}:{chance.randrange(60):02}:00"
            file.write(f"{moment},{seconds},{chance.choice((1, 1, 2, 4))},0,103959\n")
    found = quick(trace, tmp_path)
    assert found["benchmark"] == "queueing" and found["results"]["jobs"] == 200
    rows = found["results"]["policies"]
    assert {row["cost_s"] for row in rows if row["policy"] == "las"} == {0, 60}
    assert {row["cost_s"] for row in rows if row["policy"] == "fifo"} == {0}
    ratios = [
        next(r["jct_avg_s"] for r in rows if (r["policy"], r["cost_s"]) == ("attained", cost))
        / next(r["jct_avg_s"] for r in rows if (r["policy"], r["cost_s"]) == ("las", cost))
        for cost in (0, 60)
    ]
    assert found["ours_over_las"] == max(ratios)


@pytest.mark.skipif(not TRACES.exists(), reason="Philly's jobs are not here")
def test_the_reference_is_reproduced_and_the_default_beats_las(tmp_path: Path) -> None:
    found = quick(TRACES, tmp_path)
    assert found["reference_worst_error"] < 0.001
    assert found["ours_over_las"] < 0.9
    assert found["ours_over_srtf"] < 1.8


def test_committed_results_hold() -> None:
    """Simulated: they are the same on every machine but for the time that they took."""
    queueing = importlib.import_module("queueing")
    found = json.loads((ROOT / "benchmarks/results/2026-11-24-scheduler/queueing.json").read_text())
    rows = found["results"]["policies"]
    assert {row["cost_s"] for row in rows} == set(queueing.COSTS)
    assert queueing.worst_ratio(rows, "las") == found["ours_over_las"] < 1
    assert found["replay_s"] < 60 and found["reference_worst_error"] < 0.001


@pytest.mark.parametrize(
    ("text", "says"), [(None, "No such file"), (b"a,b\n", "not a Philly trace"), (b"", "no column timestamp")]
)
def test_what_is_no_trace_is_one_line(text: bytes | None, says: str, tmp_path: Path) -> None:
    trace = tmp_path / "jobs.csv.gz"
    if text is not None:
        trace.write_bytes(gzip.compress(text))
    done = script("--trace", trace)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"queueing: {trace}: ") and says in done.stderr
