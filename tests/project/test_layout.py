# SPDX-License-Identifier: Apache-2.0
"""The file law, licence lines, and names that must not exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("gpuvirt", "daemon", "native", "tests", "benchmarks")
SUFFIXES = {".py", ".c", ".h", ".S", ".cu", ".sh"}
LINES = 400
EXCEPTIONS: dict[str, str] = {}  # path -> why it may be longer
WALL_CLOCK_FREE = ("gpuvirt/arbitration", "daemon/gpuvirtd/arbiter", "daemon/gpuvirtd/memory")
WALL_CLOCK_C = re.compile(r"\b(CLOCK_REALTIME\w*|gettimeofday|time)\s*[(,)]")


def written_by_hand() -> Iterator[Path]:
    """All source files but generated ones (protobuf; the rest is generated outside of the source)."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if (
                path.suffix in SUFFIXES
                and path.is_file()
                and "_pb2" not in path.name
                and "__pycache__" not in path.parts
            ):
                yield path


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_files_of_one_idea() -> None:
    lengths = {name(path): len(path.read_text().splitlines()) for path in written_by_hand()}
    assert lengths
    too_long = {path: length for path, length in lengths.items() if length > LINES and path not in EXCEPTIONS}
    assert not too_long, f"split these, or list them with a reason: {too_long}"
    stale = [path for path in EXCEPTIONS if lengths.get(path, 0) <= LINES]
    assert not stale, f"no exception needed any more: {stale}"


def test_licence_in_the_first_lines() -> None:
    for path in written_by_hand():
        head = path.read_text().splitlines()[:2]
        assert any("SPDX-License-Identifier: Apache-2.0" in line for line in head), name(path)


def test_daemon_folder_is_no_package() -> None:
    """It would shadow python-daemon's `daemon`."""
    assert (ROOT / "daemon" / "gpuvirtd" / "__init__.py").exists()
    assert not (ROOT / "daemon" / "__init__.py").exists()


def test_nothing_built_is_committed() -> None:
    """Libraries are installed from the build folder, never from the source."""
    assert not list((ROOT / "gpuvirt" / "lib").glob("**/*")) or "gpuvirt/lib" in (ROOT / ".gitignore").read_text()


def wall_clock_calls(tree: ast.AST) -> list[int]:
    """Lines that read the wall clock in Python."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            lines += [node.lineno for alias in node.names if alias.name in ("time", "time_ns")]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "time":
            lines += [node.lineno] if node.attr in ("time", "time_ns") else []
    return lines


@pytest.mark.parametrize("folder", WALL_CLOCK_FREE)
def test_leases_never_read_the_wall_clock(folder: str) -> None:
    """It jumps; a lease would last for hours or end at once."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        assert not wall_clock_calls(ast.parse(path.read_text())), name(path)


def test_shim_never_reads_the_wall_clock() -> None:
    for path in sorted((ROOT / "native" / "shim").glob("*.[ch]")):
        code = re.sub(r"/\*.*?\*/|//[^\n]*|\"[^\"\n]*\"", "", path.read_text(), flags=re.S)
        assert not WALL_CLOCK_C.search(code), name(path)


def test_the_rule_finds_what_it_forbids() -> None:
    assert wall_clock_calls(ast.parse("import time\nx = time.time()\ny = time.monotonic()")) == [2]
    assert wall_clock_calls(ast.parse("from time import time_ns")) == [1]
    assert WALL_CLOCK_C.search("clock_gettime(CLOCK_REALTIME, &now)")
    assert not WALL_CLOCK_C.search("clock_gettime(CLOCK_MONOTONIC, &time_of_now)")
