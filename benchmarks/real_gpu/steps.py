# SPDX-License-Identifier: Apache-2.0
"""Steps with a time limit whose failure is an answer too, written down after each so that nothing is lost."""

from __future__ import annotations

import fnmatch
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.interrupts import Interrupted


class StepFailed(Exception):
    """A step could not give its answer."""


class Steps:
    """Runs steps until `limit` seconds are used up; what is left then is written down as skipped.

    only: patterns of the names of steps (as in a shell); the others are left out without a word.
    """

    def __init__(self, file: Path, document: dict[str, Any], limit: float, only: Sequence[str] = ("*",)) -> None:
        self._file, self._document, self._only = file, document, only
        self._end = time.monotonic() + limit
        self.failed: list[str] = []
        self._document["steps"] = {}
        self._write()

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def run(self, name: str, needs: float, body: Callable[[float], Any]) -> Any:
        """What `body` answers, or None; it is given the seconds that it may take. Raises Interrupted only."""
        if not self._wanted(name):
            return None
        if self.left < needs:
            self._keep(name, {"skipped": f"needs {needs:.0f} s, {max(self.left, 0):.0f} s are left"}, 0.0)
            return None
        print(f"{name} ...", flush=True)
        began = time.monotonic()
        answer = None
        try:
            answer = body(self.left)
            entry = {"answer": answer}
        except Interrupted:
            raise
        except Exception as error:  # any failure is written down, and the other steps go on
            entry = {"error": f"{type(error).__name__}: {error}"}
            self.failed.append(name)
        self._keep(name, entry, time.monotonic() - began)
        return answer

    def skip(self, name: str, reason: str) -> None:
        """Writes down why a step is not done."""
        if self._wanted(name):
            self._keep(name, {"skipped": reason}, 0.0)

    def _wanted(self, name: str) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self._only)

    def _keep(self, name: str, entry: dict[str, Any], seconds: float) -> None:
        self._document["steps"][name] = {**entry, "seconds": round(seconds, 2)}
        kind = next(iter(entry))
        text = json.dumps(entry[kind])
        print(f"{name}: {kind}: {text if len(text) <= 400 else text[:400] + ' ...'} ({seconds:.1f} s)", flush=True)
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".tmp")
        temporary.write_text(json.dumps(self._document, indent=2) + "\n")
        temporary.replace(self._file)
