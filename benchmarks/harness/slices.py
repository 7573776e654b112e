# SPDX-License-Identifier: Apache-2.0
"""A process of probes/alone.c that works only when it is told to, so that two can be compared by turns."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

from harness.interrupts import Interrupts
from harness.probes import ProbeFailed


class Sliced:
    """Close it at the end: it ends when its standard input does."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], interrupts: Interrupts) -> None:
        self.command, self._interrupts = list(command), interrupts
        self._process = subprocess.Popen(
            self.command,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ready(self) -> None:
        """Waits until it has set itself up. Raises ProbeFailed."""
        if self._line() != "ready":
            raise ProbeFailed(f"{self.command[0]} does not get ready")

    def slice(self, what: str, count: int = 0) -> tuple[int, int]:
        """What it was told took so long: ns, and ns of processor time. Raises ProbeFailed or Interrupted."""
        self._interrupts.check()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{what} {count}\n")
            self._process.stdin.flush()
        except OSError as error:
            raise ProbeFailed(f"{self.command[0]} is gone: {error.strerror}") from None
        took, worked = self._line().split()
        return int(took), int(worked)

    def threads(self) -> int:
        """How many it has."""
        return self.slice("threads")[0]

    def close(self) -> None:
        """Ends it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise ProbeFailed(f"{self.command[0]} ended with {self._process.wait()}")
        return line
