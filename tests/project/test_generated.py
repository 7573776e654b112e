# SPDX-License-Identifier: Apache-2.0
"""What is generated from NVIDIA's headers is complete, and the built libraries have all of it."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpuvirt import elf, paths

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "native" / "generate"
RESEARCH = ROOT.parent / "shared" / "data" / "driver_entry_points.tsv"
NAMES, ROWS, SYMBOLS = 485, 685, 685  # of CUDA 13.5: a new header version changes them, and somebody must look


def load(name: str) -> ModuleType:
    """A module of native/generate, which is no package: its scripts import each other as neighbours."""
    sys.path.insert(0, str(GENERATE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(GENERATE))


@pytest.fixture(scope="module")
def table() -> tuple[list[Any], list[Any]]:
    """(symbols, rows) as the generator reads them from the headers."""
    found = subprocess.run([sys.executable, GENERATE / "find_headers.py"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    headers = load("headers")
    text = headers.preprocess(compiler, Path(found.stdout.strip()))
    symbols = headers.parse_symbols(text)
    return symbols, headers.pair_rows(text, symbols)


def test_counts(table: tuple[list[Any], list[Any]]) -> None:
    symbols, rows = table
    assert (len({row.base for row in rows}), len(rows), len(symbols)) == (NAMES, ROWS, SYMBOLS)
    assert len({(row.base, row.version, row.variant) for row in rows}) == ROWS
    assert {row.symbol for row in rows} == {symbol.name for symbol in symbols}


def test_same_as_the_research(table: tuple[list[Any], list[Any]]) -> None:
    """Two readings of the same headers, made apart."""
    if not RESEARCH.exists():
        pytest.skip(f"no {RESEARCH.name} beside this checkout")
    lines = [line.split("\t") for line in RESEARCH.read_text().splitlines() if line and not line.startswith("#")]
    column = {title: index for index, title in enumerate(lines[0])}
    research = {
        (
            line[column["name"]],
            int(line[column["version"]]),
            line[column["per_thread_stream"]].replace("no", ""),
            line[column["abi_symbol"]],
        )
        for line in lines[1:]
    }
    assert {(row.base, row.version, row.variant, row.symbol) for row in table[1]} == research


def test_every_name_has_a_class(table: tuple[list[Any], list[Any]]) -> None:
    classes = load("entry_points").read_classes(GENERATE / "classes.tsv")
    assert set(classes) == {row.base for row in table[1]}


def built(name: str) -> Path:
    return paths.library(name)


@pytest.mark.parametrize(
    ("library", "soname"),
    [
        ("libgpuvirt-shim.so", "libcuda.so.1"),
        ("softgpu/libcuda.so.1", "libcuda.so.1"),
        ("softgpu/libnvidia-ml.so.1", "libnvidia-ml.so.1"),
    ],
)
def test_sonames(library: str, soname: str) -> None:
    """CMake's own -soname has won over ours once."""
    assert elf.read(built(library)).soname == soname


@pytest.mark.parametrize("library", ["libgpuvirt-shim.so", "softgpu/libcuda.so.1"])
def test_every_symbol_is_exported(table: tuple[list[Any], list[Any]], library: str) -> None:
    missing = {symbol.name for symbol in table[0]} - elf.exported_symbols(built(library))
    assert not missing


@pytest.mark.parametrize("library", ["libgpuvirt-shim.so", "softgpu/libcuda.so.1"])
def test_nothing_else_is_exported(table: tuple[list[Any], list[Any]], library: str) -> None:
    """A library in somebody else's process: any other name could shadow one of the program's."""
    extra = elf.exported_symbols(built(library)) - {symbol.name for symbol in table[0]}
    assert {name for name in extra if not name.startswith(("cu", "_init", "_fini"))} == set()
