# SPDX-License-Identifier: Apache-2.0
"""What the user sees: lines with the time and who said them. Plain lines, so that it works without a terminal too."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

WIDTH = 8  # of the column that says who speaks
CHANGE = 0.2  # seconds between two looks at the daemon
REPEAT = 2.0  # seconds after which the state of the GPU is said again though nothing changed


class Screen:
    """Writes lines from several threads without mixing them."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._looked = 0.0
        self._said = 0.0
        self._state: tuple[object, ...] = ()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def raw(self, text: str) -> None:
        """Lines without a prefix."""
        with self._lock:
            print(text, flush=True)

    def line(self, who: str, text: str) -> None:
        """One line of `who`."""
        self.raw(f"{self.elapsed:6.1f}s {who[:WIDTH].ljust(WIDTH)} | {text}")

    def note(self, text: str) -> None:
        """One line of the demo itself."""
        self.line("demo", text)

    def title(self, text: str) -> None:
        """The heading of a phase."""
        self.raw(f"\n{text}\n{'-' * len(text)}")

    def due(self) -> bool:
        """Whether it is time to look at the daemon again."""
        return time.monotonic() - self._looked >= CHANGE

    def status(self, jobs: Sequence[dict[str, Any]]) -> None:
        """Says who holds the GPU and what is resident, when that has changed or was not said for a while."""
        now = time.monotonic()
        self._looked = now
        state = tuple((job["name"], job["state"], job["switches"]) for job in jobs)
        if not jobs or (state == self._state and now - self._said < REPEAT):
            return
        self._state, self._said = state, now
        holder = next((job["name"] for job in jobs if job["state"] == "running"), None)
        parts = [f"{holder} has the GPU" if holder else "nobody has the GPU"]
        for job in jobs:
            resident, charged = job["resident"] >> 20, job["charged"] >> 20
            parts.append(f"{job['name']}: {job['state']}, {resident} of {charged} MiB on the device")
        parts.append(f"{sum(int(job['switches']) for job in jobs)} switches")
        self.line("gpu", "; ".join(parts))
