# SPDX-License-Identifier: Apache-2.0
"""What the user sees: lines with the time and who said them. Plain lines, so that it works without a terminal too."""

from __future__ import annotations

import os
import signal
import sys
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
        self._holder = ""

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start

    def raw(self, text: str) -> None:
        """Lines without a prefix."""
        with self._lock:
            try:
                print(text, flush=True)
            except BrokenPipeError:  # the reader has gone, as in `make demo | head`: stop as after a lost terminal
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                os.kill(os.getpid(), signal.SIGHUP)

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
        """Says who holds the GPU and what is resident, when the holder has changed or it was not said for a while."""
        now = time.monotonic()
        self._looked = now
        jobs = sorted((job for job in jobs if job["state"] != "ended"), key=lambda job: str(job["name"]))
        holder = next((str(job["name"]) for job in jobs if job["state"] == "running"), "")
        changed = holder not in ("", self._holder)
        if not jobs or not (changed or now - self._said >= REPEAT):
            return
        self._holder, self._said = holder or self._holder, now
        parts = [f"{holder} has the GPU" if holder else "nobody runs on the GPU"]
        for job in jobs:
            resident, charged = int(job["resident"]) >> 20, int(job["charged"]) >> 20
            parts.append(f"{job['name']} {job['state']}: {resident} of {charged} MiB on the device")
        self.line("gpu", "; ".join(parts))
