# SPDX-License-Identifier: Apache-2.0
"""What happened to a job, for people: a small ring of lines, each with a kind and the reason.

`JobEvents.add` keeps a line; the same line of the same process again only counts. Kinds are a fixed set, so that
who reads them by machine (`gpuvirt describe -o json`, the admin socket) can choose.
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KEPT = 64  # events of a job
KILLED = "overrun_killed"
OVERRUNS = ("overrun_stopped", KILLED)
KEPT_REFUSED = 8  # of them, refused allocations


class Kind(enum.StrEnum):
    """What an event is about."""

    CLIENT = "client"  # a process says something about itself
    REFUSED = "refused"  # an allocation that a program was denied, and by what
    LIMIT = "limit"  # its limits were changed, or what they amount to
    LINE = "line"  # it waits in line, or was admitted
    MEMORY = "memory"  # it cannot have its memory now, and why
    TIME = "time"  # leases: late drains and the like


@dataclass(slots=True)
class JobEvent:
    """One line. Times are wall clock seconds since 1970."""

    at: float  # when it happened last
    kind: Kind
    text: str
    pid: int = 0  # of the process that it is about; 0: the job
    count: int = 1  # how often
    first: float = 0.0  # when it happened first

    def row(self) -> dict[str, Any]:
        """As the admin socket tells it."""
        return {
            "at": self.at,
            "first": self.first,
            "kind": str(self.kind),
            "pid": self.pid,
            "text": self.text,
            "count": self.count,
        }


class JobEvents:
    """The last KEPT different events of one job, the latest last."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._events: deque[JobEvent] = deque(maxlen=KEPT)

    def add(self, kind: Kind, text: str, pid: int = 0) -> bool:
        """Keep an event; True if it is news, False if the same was known already and has only been counted."""
        now = self._clock()
        for event in self._events:
            if (event.kind, event.text, event.pid) == (kind, text, pid):
                event.at, event.count = now, event.count + 1
                self._events.remove(event)
                self._events.append(event)
                return False
        if kind is Kind.REFUSED and len(self.of(kind)) == KEPT_REFUSED:
            self._events.remove(self.of(kind)[0])  # a program that looks how much it can get fills no ring
        self._events.append(JobEvent(now, kind, text, pid, 1, now))
        return True

    def __iter__(self) -> Iterator[JobEvent]:
        return iter(self._events)

    def __len__(self) -> int:
        return len(self._events)

    def of(self, kind: Kind) -> list[JobEvent]:
        """Those of one kind."""
        return [event for event in self._events if event.kind is kind]

    def rows(self) -> list[dict[str, Any]]:
        """All of them, as the admin socket tells them."""
        return [event.row() for event in self._events]


def remember(events: JobEvents, event: str, details: Mapping[str, int | str]) -> None:
    """A warning of the arbiter about a job (facts.Note)."""
    kind = Kind.TIME if event in ("drain_overdue", "answer_overdue", *OVERRUNS) else Kind.MEMORY
    text = event.replace("_", " ")
    if "reason" in details:
        text += f": {details['reason']}"
    events.add(kind, text)
