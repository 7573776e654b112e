# SPDX-License-Identifier: Apache-2.0
"""Tables and JSON."""

from __future__ import annotations

import io

import pytest

from gpuvirt.cli.output import (
    Column,
    brief,
    cut,
    gigabytes,
    mebibytes,
    paint,
    percent,
    plain,
    seconds,
    size,
    table,
    terminal_width,
    wants_colour,
)

COLUMNS = [
    Column("NAME", lambda row: str(row["name"]), shrink=4),
    Column("N", lambda row: str(row["n"]), right=True, colour=lambda row: "red" if row["n"] > 9 else None),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_columns_line_up() -> None:
    rows = [{"name": "a", "n": 1}, {"name": "long-name", "n": 22}]
    assert table(COLUMNS, rows, 80) == ["NAME        N", "a           1", "long-name  22"]


def test_shrinks_what_may_shrink() -> None:
    rows = [{"name": "a-very-long-name", "n": 1}]
    assert table(COLUMNS, rows, 10) == ["NAME     N", "a-very…  1"]
    assert table(COLUMNS, rows, 1) == ["NAME  N", "a-v…  1"]
    assert table(COLUMNS, rows, None)[1] == "a-very-long-name  1"


def test_colour_does_not_move_columns() -> None:
    lines = table(COLUMNS, [{"name": "a", "n": 10}], 80, colour=True)
    assert lines[1] == "a     \x1b[31m10\x1b[0m"


def test_names_of_others_cannot_write_to_the_terminal() -> None:
    assert plain("a\x1b[2Jb\n") == "a\\x1b[2Jb\\n"
    assert table(COLUMNS, [{"name": "\x1b]0;x", "n": 1}], 80)[1].startswith("\\x1b]0;x")


@pytest.mark.parametrize(
    ("environ", "stream", "expected"),
    [({}, Terminal(), True), ({"NO_COLOR": "1"}, Terminal(), False), ({"NO_COLOR": ""}, Terminal(), True),
     ({"TERM": "dumb"}, Terminal(), False), ({}, io.StringIO(), False)],
)  # fmt: skip
def test_when_colour(environ: dict[str, str], stream: io.StringIO, expected: bool) -> None:
    assert wants_colour(stream, environ) is expected


def test_width_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal_width(io.StringIO()) == 80


def test_values() -> None:
    assert [seconds(v) for v in (None, 0.25, 12.34, 245, 11_400)] == ["-", "0.25s", "12.3s", "4m05s", "3h10m"]
    assert [mebibytes(v) for v in (None, 0, 1, 1 << 20, (1 << 20) + 1)] == ["-", "0", "1", "1", "2"]
    assert [percent(v) for v in (None, 0.5)] == ["-", "50%"]
    assert [size(v) for v in (None, 0, 1, 350 << 20, 10 << 30)] == ["-", "0", "1M", "350M", "10.0G"]
    assert [brief(v) for v in (None, 0, 0.0004, 0.131, 1.5)] == ["-", "0", "0.4ms", "131ms", "1.50s"]
    assert [gigabytes(v) for v in (None, 950e6, 51.2e9)] == ["-", "0.95", "51.2"]
    assert cut("abc", 2) == "a…"
    assert paint("x", None, True) == "x"
