# SPDX-License-Identifier: Apache-2.0
"""Time as a parameter: CLOCK_MONOTONIC nanoseconds in the daemon, a number that tests move by hand in tests."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC."""
        ...


class MonotonicClock:
    """The machine's clock."""

    def now(self) -> int:
        return time.monotonic_ns()


class ManualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start: int = 1_000_000_000) -> None:
        self.time = start

    def now(self) -> int:
        return self.time

    def advance(self, nanoseconds: int) -> None:
        """Move forward; going back is a mistake of the caller."""
        if nanoseconds < 0:
            raise ValueError(f"a monotonic clock cannot go back by {-nanoseconds} ns")
        self.time += nanoseconds
