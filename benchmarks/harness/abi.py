# SPDX-License-Identifier: Apache-2.0
"""What every question to cuGetProcAddress must be answered with, from NVIDIA's headers and our list of hooks.

The rules are those of cuda.h's documentation of cuGetProcAddress: the newest function of a name that is not newer than
the asked version; with the per-thread flag its twin where there is one; no function and a status where there is none.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

GENERATE = Path(__file__).resolve().parents[2] / "native" / "generate"
HOOKS = GENERATE.parent / "shim" / "hooked_functions.h"
WHEELS = {"13.5": "nvidia-cuda-runtime", "12.9": "nvidia-cuda-runtime-cu12"}
SUCCESS, INVALID_VALUE = 0, 1  # CUresult
FOUND, NOT_FOUND, VERSION_NOT_SUFFICIENT = 0, 1, 2  # CUdriverProcAddressQueryResult
LEGACY, PER_THREAD = 1, 2  # CUdriverProcAddress_flags
WRONG_FLAGS = (4, 1 << 40)
TYPOS = (
    "cuNoSuchFunction",
    "cuinit",
    "cuInit_v2",
    "cuMemAlloc_v2",
    "cuLaunchKernel_ptsz",
    "MemAlloc",
    "cu",
    "cuMemAllo",
)


def generator(name: str) -> Any:
    """A module of native/generate, which is no package: its scripts import each other as neighbours."""
    sys.path.insert(0, str(GENERATE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(GENERATE))


def headers_folder(cuda: str) -> Path:
    """Where the wheel of these headers has cuda.h. Raises FileNotFoundError."""
    wheel = WHEELS[cuda]
    try:
        listed = importlib.metadata.files(wheel) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the headers of CUDA {cuda} are not installed: pip install {wheel}") from None
    for file in listed:
        if file.name == "cudaTypedefs.h":
            return Path(str(file.locate())).parent
    raise FileNotFoundError(f"{wheel} has no cudaTypedefs.h")


def read(cuda: str) -> Any:
    """All symbols and rows of these headers, GL, EGL, VDPAU and profiler included. Raises FileNotFoundError."""
    include = headers_folder(cuda)
    with tempfile.TemporaryDirectory(prefix="gpuvirt-abi-") as folder:
        return generator("headers").read_headers("cc", include, Path(folder))


@dataclass(frozen=True)
class Question:
    """One look-up. `name` None is NULL."""

    way: str  # v1, v2: cuGetProcAddress; handle, default: dlsym
    name: str | None
    version: int = 0
    flags: int = 0
    pointer: bool = True
    status: bool = True

    def line(self) -> str:
        """As the probe reads it."""
        name = "(null)" if self.name is None else self.name or "(empty)"
        return f"{self.way} {name} {self.version} {self.flags} {int(self.pointer)} {int(self.status)}"


@dataclass(frozen=True)
class Answer:
    """What the probe saw, or should have seen."""

    result: int
    owner: str  # shim, driver, nobody (NULL), unchanged, somebody (a function of neither)
    symbol: str
    status: str

    @classmethod
    def parse(cls, line: str) -> Answer:
        result, owner, symbol, status = line.split()
        return cls(int(result), owner, symbol, status)


@dataclass
class Rules:
    """Answers by the headers `table`, for a driver of `version`."""

    table: Any
    version: int
    rows: dict[str, list[Any]] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    _ours: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        entry_points = generator("entry_points")
        classes = entry_points.read_classes(GENERATE / "classes.tsv")
        by_hand = set(entry_points.read_hooks(HOOKS))
        ours = set()
        for row in self.table.rows:
            self.rows.setdefault(row.base, []).append(row)
            kind = classes[row.base]
            self.kinds[row.base] = kind.name
            if row.symbol in by_hand or kind.gated or kind.name == "pass-through":
                ours.add(row.symbol)
        self._ours = frozenset(ours)

    def owner(self, symbol: str) -> str:
        """Ours where we do something in the call or count it; else the driver's own."""
        return "shim" if symbol in self._ours else "driver"

    def find(self, name: str, version: int, flags: int) -> str | None:
        """The symbol by the documented rule."""
        best: dict[bool, Any] = {}
        for row in self.rows.get(name, []):
            twin = bool(row.variant)
            if row.version <= version and (twin not in best or best[twin].version < row.version):
                best[twin] = row
        row = best.get(True) if flags & PER_THREAD else None
        row = row or best.get(False)
        return row.symbol if row else None

    def answer(self, question: Question) -> Answer:
        """What must come."""
        q = question
        if q.way in ("handle", "default"):
            return Answer(SUCCESS, "shim", q.name or "", "unchanged")
        if q.name is None or not q.pointer or q.flags & ~(LEGACY | PER_THREAD) or q.version > self.version:
            return Answer(INVALID_VALUE, "unchanged", "-", "unchanged")
        symbol = self.find(q.name, q.version, q.flags)
        status = FOUND if symbol else VERSION_NOT_SUFFICIENT if q.name in self.rows else NOT_FOUND
        told = str(status) if q.way == "v2" and q.status else "unchanged"
        return Answer(SUCCESS, self.owner(symbol) if symbol else "nobody", symbol or "-", told)


def row_questions(row: Any, newest: int, driver: int) -> Iterator[Question]:
    """A documented row: as documented, and with every kind of wrong version and flags."""
    right = (PER_THREAD,) if row.variant else (0, LEGACY)
    versions = {row.version, row.version - 1, row.version + 1, newest}
    for way in ("v1", "v2"):
        for version in sorted(versions):
            for flags in (0, LEGACY, PER_THREAD):
                yield Question(way, row.base, version, flags)
        for version in (driver + 1, driver + 1000):
            yield Question(way, row.base, version, right[0])
        for flags in WRONG_FLAGS:
            yield Question(way, row.base, row.version, flags)
        yield Question(way, row.base, row.version, right[0], pointer=False)
    yield Question("v2", row.base, row.version, right[0], status=False)  # as libcudart asks
    yield Question("v2", row.base, row.version, right[0], pointer=False, status=False)


def name_questions(versions: Sequence[int]) -> Iterator[Question]:
    """NULL, the empty name, names that are wrong by a letter or are ABI names."""
    for way in ("v1", "v2"):
        for name in (None, "", *TYPOS):
            for version in versions:
                for flags in (0, LEGACY, PER_THREAD, WRONG_FLAGS[0]):
                    yield Question(way, name, version, flags)
        yield Question(way, None, versions[0], 0, pointer=False)
        yield Question(way, "", versions[0], 0, pointer=False)


def symbol_questions(symbols: Iterable[Any]) -> Iterator[Question]:
    """Every exported function by dlsym."""
    for symbol in symbols:
        yield Question("handle", symbol.name)
        yield Question("default", symbol.name)
