# SPDX-License-Identifier: Apache-2.0
"""What will happen when, on a clock that jumps from one thing to the next. Nanoseconds."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from gpuvirt.arbitration.facts import SECOND

Action = Callable[[], None]


class Entry:
    """Something that will happen, unless it is cancelled."""

    __slots__ = ("action", "number", "when")

    def __init__(self, when: int, number: int, action: Action) -> None:
        self.when, self.number, self.action = when, number, action

    def __lt__(self, other: Entry) -> bool:
        return self.when < other.when or (self.when == other.when and self.number < other.number)

    def cancel(self) -> None:
        """It will not happen."""
        self.action = _nothing


def _nothing() -> None:
    return None


class Agenda:
    """The clock and what is to come. Things of the same time happen in the order in which they were entered."""

    def __init__(self, start: int = SECOND) -> None:
        self.now = start
        self._entries: list[Entry] = []
        self._count = 0

    def at(self, when: int, action: Action) -> Entry:
        """`action` at `when`, or now if that is past."""
        self._count += 1
        entry = Entry(max(when, self.now), self._count, action)
        heapq.heappush(self._entries, entry)
        return entry

    def after(self, delay: int, action: Action) -> Entry:
        """`action` so much later."""
        return self.at(self.now + delay, action)

    def run(self, end: int) -> None:
        """Until `end`, which it then is; what is entered for `end` itself has not happened."""
        entries = self._entries
        while entries and entries[0].when < end:
            entry = heapq.heappop(entries)
            self.now = entry.when
            entry.action()
        self.now = max(self.now, end)
