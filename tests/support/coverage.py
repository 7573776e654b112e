# SPDX-License-Identifier: Apache-2.0
"""The table of driver entry points: what the soft GPU does with each, and which files of cases call it.

The names come from NVIDIA's headers. What the soft GPU does is read from its library: a weak symbol is the generated
answer CUDA_ERROR_NOT_SUPPORTED. What the cases call is read from their source: `cu.cuName` or `native("cuName_v2")`;
test_targets.py checks that a file really calls what it names.

After a merge, or with new functions or cases: `make generate`.
"""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpuvirt import elf, paths
from support.conformance import CASES, FILES

GENERATE = Path(__file__).resolve().parents[2] / "native" / "generate"
TABLE = CASES.parent / "coverage.tsv"
HEAD = """\
# Documented driver entry points, by NVIDIA's cuda.h. Written by tests/conformance/coverage.py: `make generate`.
# The soft GPU: "implemented", or NOT_SUPPORTED = every call answers CUDA_ERROR_NOT_SUPPORTED. "from cuName_v2": older
# versions (of 32-bit addresses) answer that. The stream variants (_ptds, _ptsz) go with their functions.
# Cases: the files of tests/conformance/cases that call it, on every target; "-" where the suite does not cover it.
# name\tsoft GPU\tcases
"""


@dataclass(frozen=True)
class EntryPoint:
    """A documented name, and the symbols that its versions have (no stream variants), oldest first."""

    name: str
    symbols: tuple[str, ...]


def headers() -> Any:
    """native/generate/headers.py, which is no package: its scripts import each other as neighbours."""
    sys.path.insert(0, str(GENERATE))
    try:
        return importlib.import_module("headers")
    finally:
        sys.path.remove(str(GENERATE))


@cache
def declared() -> tuple[list[Any], list[Any]]:
    """(symbols, rows of cuGetProcAddress) of the headers. Raises CalledProcessError without headers or a compiler."""
    command = [sys.executable, str(GENERATE / "find_headers.py")]
    include = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    reader = headers()
    text = reader.preprocess("cc", Path(include))
    symbols = reader.parse_symbols(text)
    return symbols, reader.pair_rows(text, symbols)


@cache
def entry_points() -> tuple[EntryPoint, ...]:
    """All of them, sorted by name."""
    found: dict[str, list[Any]] = {}
    for symbol in declared()[0]:
        if symbol.variant == "":
            found.setdefault(symbol.base, []).append(symbol)
    return tuple(
        EntryPoint(name, tuple(symbol.name for symbol in sorted(found[name], key=lambda symbol: symbol.revision)))
        for name in sorted(found)
    )


def soft_answer(entry: EntryPoint, missing: frozenset[str]) -> str:
    """What the soft GPU does, in words."""
    there = [symbol not in missing for symbol in entry.symbols]
    if not any(there):
        return "NOT_SUPPORTED"
    if all(there):
        return "implemented"
    if there == sorted(there):
        return f"implemented from {entry.symbols[there.index(True)]}"
    absent = [symbol for symbol in entry.symbols if symbol in missing]
    return f"implemented without {' '.join(absent)}"


def named_in(source: str) -> set[str]:
    """Base names of the driver functions that Python source names."""
    by_symbol = {symbol: entry.name for entry in entry_points() for symbol in (entry.name, *entry.symbols)}
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "native":
            found |= {argument.value for argument in node.args if isinstance(argument, ast.Constant)}
    return {by_symbol[name] for name in found if name in by_symbol}


def called(names: set[str]) -> set[str]:
    """Base names of recorded calls, which are symbols or names of cuda.bindings."""
    by_symbol = {symbol: entry.name for entry in entry_points() for symbol in (entry.name, *entry.symbols)}
    return {by_symbol.get(name, name) for name in names}


def table() -> str:
    """The whole file."""
    missing = elf.weak_symbols(paths.library("softgpu/libcuda.so.1"))
    cases: dict[str, list[str]] = {}
    for file in FILES:
        for name in named_in((CASES / file).read_text()):
            cases.setdefault(name, []).append(file.removeprefix("case_").removesuffix(".py"))
    lines = [
        f"{entry.name}\t{soft_answer(entry, missing)}\t{' '.join(sorted(cases.get(entry.name, []))) or '-'}\n"
        for entry in entry_points()
    ]
    return HEAD + "".join(lines)
