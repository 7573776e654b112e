# SPDX-License-Identifier: Apache-2.0
"""The runner of numba-cuda's tests: what it counts, what it calls a failure, when the modes differ."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

SUITES = Path(__file__).resolve().parents[2] / "suites"


@pytest.fixture(scope="module")
def suite() -> Any:
    spec = importlib.util.spec_from_file_location("numba_suite", SUITES / "numba_suite.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["numba_suite"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def verdicts(suite: Any, passed: int, failed: int, skipped: int = 0) -> Any:
    names = [("passed", passed), ("failed", failed), ("skipped", skipped)]
    return {f"{word}{n}": suite.Verdict(word, [f"why {n}"]) for word, count in names for n in range(count)}


def test_report_of_a_process_that_died(suite: Any, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    ended = {"event": "end", "id": "a.py::one", "verdict": "passed", "lines": []}
    report.write_text("\n".join([json.dumps(ended), json.dumps({"event": "start", "id": "a.py::two"}), '{"event": "e']))
    found, running = suite.read_report(report)
    assert {name: verdict.verdict for name, verdict in found.items()} == {"a.py::one": "passed"}
    assert running == "a.py::two"
    assert suite.read_report(tmp_path / "none") == ({}, "")


@pytest.mark.parametrize(
    ("passed", "failed", "enough"), [(995, 5, True), (994, 6, False), (0, 0, False), (10, 0, True)]
)
def test_closing_line(suite: Any, capsys: Any, passed: int, failed: int, enough: bool) -> None:
    given = verdicts(suite, passed, failed, 3)
    assert suite.closing("soft", given) is enough
    assert capsys.readouterr().out.splitlines()[-1] == f"numba-cuda: ran {passed + failed}, skipped 3, failed {failed}"
    suite.details("soft", given, {"a::b": "needs CuPy"})
    out = capsys.readouterr().out
    assert out.count("\nFAILED") == failed
    assert "   1 needs CuPy" in out


def test_modes_that_differ(suite: Any, capsys: Any) -> None:
    one, other = verdicts(suite, 3, 1), verdicts(suite, 3, 1)
    assert suite.compare(one, other)
    other["passed1"] = suite.Verdict("failed", [])
    del other["failed0"]
    assert not suite.compare(one, other)
    out = capsys.readouterr().out
    assert "passed1: passed directly, failed under gpuvirt" in out
    assert "failed0: failed directly, absent under gpuvirt" in out


def test_exclusions_have_reasons(suite: Any) -> None:
    for name, reason in suite.exclusions().items():
        assert "::" in name
        assert reason.strip()
