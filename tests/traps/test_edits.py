# SPDX-License-Identifier: Apache-2.0
"""The traps themselves: their edits still fit the source, and none of the list is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.traps import EXPECTED, Edit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def marked() -> Iterator[tuple[str, Callable[..., object], pytest.Mark]]:
    """File, function and mark of every trap in this folder."""
    for path in sorted(HERE.glob("test_*.py")):
        spec = importlib.util.spec_from_file_location(f"traps_of_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        if path != Path(__file__):
            spec.loader.exec_module(module)
        for function in vars(module).values():
            for mark in getattr(function, "pytestmark", []):
                if mark.name == "trap":
                    yield path.name, function, mark


TRAPS = list(marked())
NAMES = [function.__name__.removeprefix("test_") for _, function, _ in TRAPS]


@pytest.mark.parametrize(("mark"), [mark for _, _, mark in TRAPS], ids=NAMES)
def test_edits_fit(mark: pytest.Mark) -> None:
    edits: tuple[Edit, ...] = mark.kwargs["edits"]
    assert mark.kwargs["mistake"]
    assert edits, "a trap without a mistake proves nothing"
    texts: dict[str, str] = {}
    for edit in edits:
        assert not edit.path.startswith("tests/"), "the mistake belongs into the source, not into the tests"
        text = texts.get(edit.path) or (ROOT / edit.path).read_text()
        texts[edit.path] = edit.apply(text)
        assert texts[edit.path] != text


def test_names_are_unique() -> None:
    assert sorted(set(NAMES)) == sorted(NAMES)


@pytest.mark.parametrize("file", EXPECTED)
def test_none_is_missing(file: str) -> None:
    have = {function.__name__.removeprefix("test_") for name, function, _ in TRAPS if name == file}
    missing = set(EXPECTED[file]) - have
    assert not missing, f"no trap in {file} is called: {', '.join(sorted(missing))}"
