# SPDX-License-Identifier: Apache-2.0
"""benchmarks/sla.py on jobs made up here: what it says is there. And where there is nothing to read."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "benchmarks" / "sla.py"


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_on_jobs_made_up(tmp_path: Path) -> None:
    chance = random.Random(1)
    trace = tmp_path / "jobs.csv.gz"
    with gzip.open(trace, "wt") as file:
        file.write("timestamp,duration,num_gpus,gpu_time,cluster\n")
        for hour in range(150):
            moment = f"2017-10-{1 + hour // 24:02} {hour % 24:02}:{chance.randrange(60):02}:00"
            file.write(f"{moment},{int(chance.lognormvariate(8, 2))},{chance.choice((1, 1, 2, 4, 8))},0,103959\n")
    done = script("--quick", "--trace", trace, "--json", tmp_path / "found.json", "--plot", tmp_path / "curve.svg")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads((tmp_path / "found.json").read_text())
    assert 0 < found["premium_kept"] <= 1 and 0 < found["standard_kept"] <= 1 and 0 < found["allocation"] <= 1
    assert [(row["load"], row["moves"]) for row in found["results"]["curve"]] == [(1.2, True), (1.2, False)]
    assert found["results"]["terms"]["parts"] == {"premium": 0.25, "standard": 0.35, "basic": 0.4}
    assert "<svg" in (tmp_path / "curve.svg").read_text()


def test_a_trace_that_is_not_there(tmp_path: Path) -> None:
    done = script("--quick", "--trace", tmp_path / "nothing.csv.gz")
    assert done.returncode == 1 and "nothing.csv.gz" in done.stderr and len(done.stderr.splitlines()) == 1
