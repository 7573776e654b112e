# SPDX-License-Identifier: Apache-2.0
"""Tables, percentiles and the JSON file of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path

from harness import record


def test_table_aligns_first_column_left_and_others_right() -> None:
    lines = record.table(("job", "time"), [("a", "10 s"), ("longer", "1 s")]).split("\n")
    assert lines == ["job     time", "------  ----", "a       10 s", "longer   1 s"]


def test_spread_of_known_values() -> None:
    assert record.spread([float(n) for n in range(100, -1, -1)]) == {"median": 50, "p5": 5, "p95": 95, "count": 101}
    assert record.spread([7.0]) == {"median": 7, "p5": 7, "p95": 7, "count": 1}


def test_file_says_where_when_and_how(tmp_path: Path) -> None:
    file = tmp_path / "new" / "out.json"
    record.write(file, "gate", "soft GPU", {"x": 1})
    document = json.loads(file.read_text())
    assert document["results"] == {"x": 1}
    assert document["benchmark"] == "gate"
    assert document["device"] == "soft GPU"
    assert document["machine"]["cores"] >= 1
    assert document["machine"]["memory_bytes"] > 0
    assert document["date"].endswith("+00:00")
    assert "python" in document["versions"]
    assert document["command"]


def test_headline_stands_at_the_top_too(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    record.write(file, "gate", "soft GPU", {"x": 1, "y": 2}, ("y",))
    document = json.loads(file.read_text())
    assert document["y"] == document["results"]["y"] == 2
    assert "x" not in document


def test_no_file_is_no_error() -> None:
    record.write(None, "gate", "soft GPU", {})
