# SPDX-License-Identifier: Apache-2.0
"""What will happen when, on a clock that jumps from one thing to the next. Nanoseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from gpuvirt.arbitration.facts import SECOND

Action = Callable[[], None]


class Entry:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("action",)

    def __init__(self, action: Action) -> None:
        self.action = action

    def cancel(self) -> None:
        """It will not happen."""
        self.action = _nothing


def _nothing() -> None:
    return None


class Agenda:
    """The clock and what is to come. Things of the same time happen in the order in which they were entered."""

    def __init__(self, start: int = SECOND) -> None:
        self.now = start
        self._entries: list[tuple[int, int, Entry]] = []
        self._count = 0

    def at(self, when: int, action: Action) -> Entry:
        """`action` at `when`, or now if that is past."""
        self._count += 1
        entry = Entry(action)
        heapq.heappush(self._entries, (max(when, self.now), self._count, entry))
        return entry

    def after(self, delay: int, action: Action) -> Entry:
        """`action` so much later."""
        return self.at(self.now + delay, action)

    def run(self, end: int) -> None:
        """Until `end`, which it then is; what is entered for `end` itself has not happened."""
        entries = self._entries
        while entries and entries[0][0] < end:
            self.now, _, entry = heapq.heappop(entries)
            entry.action()
        self.now = max(self.now, end)
