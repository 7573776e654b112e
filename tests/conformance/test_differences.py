# SPDX-License-Identifier: Apache-2.0
"""An expected difference is a failure when it does not happen, and never hides where it does not apply."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.conformance import CASES, real_gpu

MADE = """
import pytest

@pytest.mark.differs("shim", reason="the shim refuses it")
def test_refused(target):
    assert not target.shim

@pytest.mark.differs("soft", reason="was repaired")
def test_repaired():
    pass

def test_plain():
    pass

def test_skipped(request):
    pytest.skip("no such hardware")
"""


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("soft", {"test_refused": "passed", "test_repaired": "failed"}),
        ("shim-over-soft", {"test_refused": "differs", "test_repaired": "failed"}),
        ("real", {"test_refused": "passed", "test_repaired": "passed"}),
    ],
)
def test_strict(target: str, expected: dict[str, str], tmp_path: Path) -> None:
    shutil.copy(CASES / "conftest.py", tmp_path)
    (tmp_path / "case_made.py").write_text(MADE)
    (tmp_path / "pytest.ini").write_text("[pytest]\npython_files = case_*.py\naddopts = --strict-markers\n")
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--target={target}", f"--report={report}", "case_made.py"],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(CASES.parents[1])}, capture_output=True, check=False,
    )  # fmt: skip
    outcomes = {name.rpartition("::")[2]: (kind, reason) for kind, name, reason in json.loads(report.read_text())}
    assert {name: kind for name, (kind, _) in outcomes.items()} == {
        **expected,
        "test_plain": "passed",
        "test_skipped": "skipped",
    }
    assert done.returncode == int("failed" in expected.values())
    assert outcomes["test_skipped"][1] == "no such hardware"
    if target == "shim-over-soft":
        assert outcomes["test_refused"][1] == "the shim refuses it"
    if expected["test_repaired"] == "failed":
        assert "was repaired" in outcomes["test_repaired"][1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        pytest.param(
            ["--target", "real"],
            "there is no NVIDIA GPU here",
            marks=pytest.mark.skipif(real_gpu(), reason="a real GPU"),
        ),
        (["--workers", "0"], "--workers 0: give at least 1"),
    ],
)
def test_what_cannot_run_is_told_at_once(arguments: list[str], reason: str) -> None:
    done = subprocess.run(
        [sys.executable, str(CASES.parent / "run.py"), "--file", "case_events.py", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert reason in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
