# SPDX-License-Identifier: Apache-2.0
"""Child processes whose lines are shown as they come and which are all stopped at the end, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import IO

from harness.interrupts import Interrupts

GRACE = 3.0  # seconds between SIGTERM and SIGKILL
KEPT_LINES = 400


class Child:
    """One process in a process group of its own: Ctrl-C reaches the parent alone, which then stops all in order.

    Standard output and error are read line by line by a thread: `show` is called with each, the last ones are kept.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        show: Callable[[str, str], None] | None,
        keep: int = KEPT_LINES,
    ) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=keep)
        self.started = time.monotonic()
        self.ended: float | None = None
        self._show = show
        self._process = subprocess.Popen(
            list(command),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            line = line.rstrip("\n")
            self.lines.append(line)
            if self._show is not None:
                self._show(self.name, line)

    @property
    def pid(self) -> int:
        """Of the process that was started (its children may be others)."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative after a signal."""
        code = self._process.poll()
        if code is not None and self.ended is None:
            self.ended = time.monotonic()
            self._reader.join(2.0)
        return code

    @property
    def seconds(self) -> float:
        """Wall time from start to end, or to now."""
        return (self.ended or time.monotonic()) - self.started

    def said(self, text: str) -> bool:
        """Whether one of the kept lines contains `text`."""
        return any(text in line for line in list(self.lines))

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the whole process group, if any of it is left."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after GRACE; returns when the process is gone. What it left in its group is killed."""
        if self.exit_code is None:
            self.signal(signal.SIGTERM)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
                self._process.wait()
        self.signal(signal.SIGKILL)


class Children:
    """Starts children and, as a context manager, stops them in reverse order. Not for use by several threads."""

    def __init__(self, interrupts: Interrupts, show: Callable[[str, str], None] | None = None) -> None:
        self.interrupts = interrupts
        self._show = show
        self._all: list[Child] = []

    def __enter__(self) -> Children:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._all:
            self._all.pop().stop()

    def start(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        quiet: bool = False,
        keep: int = KEPT_LINES,
    ) -> Child:
        """Starts a process; its lines are shown under `name` unless `quiet`, the last `keep` kept. Raises OSError."""
        self.interrupts.check()
        child = Child(name, command, environ, None if quiet else self._show, keep)
        self._all.append(child)
        return child

    def wait(self, child: Child, limit: float, until: str | None = None) -> bool:
        """Waits until the child ends (True), or has said `until` (True), or `limit` seconds have passed (False).

        Raises Interrupted.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline:
            if until is not None and child.said(until):
                return True
            if child.exit_code is not None:
                return until is None or child.said(until)
            self.interrupts.sleep(0.05)
        return False
