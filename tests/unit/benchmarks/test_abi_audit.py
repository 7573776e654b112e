# SPDX-License-Identifier: Apache-2.0
"""Every documented look-up gets the right function: all of benchmarks/abi_audit.py, and the rules that it judges by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import abi

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


def run(folder: Path, *options: str) -> tuple[int, dict[str, Any], str]:
    file = folder / "abi_audit.json"
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "abi_audit.py"), "--json", str(file), *options],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.returncode, json.loads(file.read_text()) if file.exists() else {}, done.stdout + done.stderr


def test_every_documented_request_is_answered_right(tmp_path: Path) -> None:
    code, found, said = run(tmp_path)
    assert code == 0, said
    assert found["abi_total"] == found["abi_correct"] > 50000
    documented = found["results"]["documented"]
    assert documented["13.5"] == {
        "rows": 685,
        "rows_correct": 685,
        "display_and_profiler_rows": 38,
        "display_and_profiler_rows_correct": 38,
    }
    assert documented["12.9"]["rows"] == documented["12.9"]["rows_correct"] == 616
    by_way = found["results"]["by"]["way"]
    assert set(by_way) == {"v1", "v2", "handle", "default"}
    assert by_way["handle"]["correct"] == 685 + 38


class Row:
    """As native/generate/headers.py reads them."""

    def __init__(self, base: str, version: int, variant: str, symbol: str) -> None:
        self.base, self.version, self.variant, self.symbol = base, version, variant, symbol


class Table:
    rows = (
        Row("cuLaunchKernel", 4000, "", "cuLaunchKernel"),
        Row("cuLaunchKernel", 7000, "ptsz", "cuLaunchKernel_ptsz"),
        Row("cuEventQuery", 2000, "", "cuEventQuery"),
        Row("cuCtxGetDevice", 2000, "", "cuCtxGetDevice"),
        Row("cuCtxGetDevice", 13000, "", "cuCtxGetDevice_v2"),
    )


@pytest.mark.parametrize(
    ("way", "name", "version", "flags", "answer"),
    [
        ("v2", "cuLaunchKernel", 12000, 0, abi.Answer(0, "shim", "cuLaunchKernel", "0")),
        ("v2", "cuLaunchKernel", 12000, 1, abi.Answer(0, "shim", "cuLaunchKernel", "0")),
        ("v2", "cuLaunchKernel", 12000, 2, abi.Answer(0, "shim", "cuLaunchKernel_ptsz", "0")),
        ("v2", "cuLaunchKernel", 6000, 2, abi.Answer(0, "shim", "cuLaunchKernel", "0")),
        ("v2", "cuLaunchKernel", 3000, 2, abi.Answer(0, "nobody", "-", "2")),
        ("v1", "cuLaunchKernel", 3000, 2, abi.Answer(0, "nobody", "-", "unchanged")),
        ("v2", "cuLaunchKernel", 99000, 0, abi.Answer(1, "unchanged", "-", "unchanged")),
        ("v2", "cuLaunchKernel", 12000, 4, abi.Answer(1, "unchanged", "-", "unchanged")),
        ("v2", "", 0, 0, abi.Answer(0, "nobody", "-", "1")),
        ("v2", None, 0, 0, abi.Answer(1, "unchanged", "-", "unchanged")),
        ("v2", "cuCtxGetDevice", 12090, 0, abi.Answer(0, "driver", "cuCtxGetDevice", "0")),
        ("v2", "cuCtxGetDevice", 13000, 0, abi.Answer(0, "driver", "cuCtxGetDevice_v2", "0")),
    ],
)
def test_rules(way: str, name: str | None, version: int, flags: int, answer: abi.Answer) -> None:
    rules = abi.Rules(Table(), 13050)
    assert rules.answer(abi.Question(way, name, version, flags)) == answer


def test_every_row_is_asked_with_right_and_wrong_arguments() -> None:
    questions = list(abi.row_questions(Table.rows[1], 13000, 13050))
    assert abi.Question("v1", "cuLaunchKernel", 7000, abi.PER_THREAD) in questions
    assert {question.version for question in questions} >= {6999, 7000, 7001, 13000, 13051}
    assert {question.flags for question in questions} >= {0, 1, 2, 4}
    assert any(not question.pointer for question in questions) and any(not question.status for question in questions)
