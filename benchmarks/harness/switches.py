# SPDX-License-Identifier: Apache-2.0
"""Switches of the GPU from job to job, as the daemon's debug log (JSON) tells them. Pure functions."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

MOVES = ("evicted", "restored")


@dataclass(frozen=True)
class Line:
    """One line of the log: CLOCK_MONOTONIC nanoseconds, what happened, of which job, the rest."""

    at: int
    event: str
    job: str
    fields: dict[str, Any]


@dataclass
class Switch:
    """From the moment that the giver is told to drain to the grant for the taker. Times in CLOCK_MONOTONIC ns."""

    giver: str
    told: int
    drained: int = 0
    taker: str = ""
    granted: int = 0
    moves: list[Line] = field(default_factory=list)

    def moved(self, event: str, key: str = "moved") -> int:
        """Sum of a figure of its moves of one kind."""
        return sum(int(move.fields.get(key, 0)) for move in self.moves if move.event == event)


def read(lines: Iterable[str], realtime_offset: int) -> list[Line]:
    """The lines that are JSON. realtime_offset: CLOCK_REALTIME less CLOCK_MONOTONIC, ns."""
    found = []
    for line in lines:
        if not line.startswith("{"):
            continue
        try:
            fields = json.loads(line)
            stamp = datetime.datetime.fromisoformat(fields.pop("timestamp"))
        except (ValueError, KeyError):
            continue
        at = round(stamp.timestamp() * 1e6) * 1000 - realtime_offset
        found.append(Line(at, str(fields.pop("event", "")), str(fields.pop("job", "")), fields))
    return found


def switches(lines: Iterable[Line]) -> list[Switch]:
    """Complete switches from one job to another, in order."""
    found: list[Switch] = []
    now: Switch | None = None
    for line in lines:
        word = line.fields.get("word")
        if line.event == "lease" and word == "drain":
            now = Switch(line.job, line.at)
        elif now is not None and line.event == "lease" and word == "closed" and line.job == now.giver:
            now.drained = line.at
        elif now is not None and line.event in MOVES:
            now.moves.append(line)
        elif now is not None and line.event == "lease" and word in ("granted", "open") and now.drained:
            now.taker, now.granted = line.job, line.at
            if now.taker != now.giver:
                found.append(now)
            now = None
    return found
