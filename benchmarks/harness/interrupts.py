# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C, SIGTERM and SIGHUP as something that is asked for at safe points, so that clean-up is never cut in half."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_INTERRUPTED = 130


class Interrupted(Exception):
    """The user or the system asked this program to stop."""


class Interrupts:
    """Catches the signals from construction on; the main thread asks with `check` or waits with `sleep`."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # started by nohup: SIGHUP stays ignored
                signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def check(self) -> None:
        """Raises Interrupted when a signal has come."""
        if self._asked.is_set():
            raise Interrupted

    def sleep(self, seconds: float) -> None:
        """Waits; raises Interrupted at once when a signal comes."""
        deadline = time.monotonic() + seconds
        while not self._asked.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._asked.wait(min(left, 0.2))
        raise Interrupted
