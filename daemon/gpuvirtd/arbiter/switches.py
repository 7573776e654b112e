# SPDX-License-Identifier: Apache-2.0
"""What the switches of one GPU cost: a record of each of the last ones, and a histogram of all.

Pure: it is told what the arbiter stores, sends and hears, and when. It decides nothing. Bytes and nanoseconds.

A switch is a *turn* (the lease went to a job) or *room* (a job that held it needed more memory, and others left). Its
delay runs from the moment when the lease was asked back (a turn) or the first request was sent, to the moment when the
job could go on.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Protocol

from gpuvirt.arbitration.facts import Move, Word

MOVED_KEPT = 128  # records of switches that moved memory
PLAIN_KEPT = 32  # of those that moved none: with short turns there are fifty a second
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LIMIT = 1 << 48  # of what one answer may claim, bytes or ns: who says more is not believed

ENOUGH = 1 << 20  # bytes; less says more about latency than about the link
CANCELLED = 600  # CUDA_ERROR_NOT_READY: a RESTORE that the daemon called off, see messages.h


class Answer(Protocol):
    """What RESTORED and EVICTED say (gpuvirt.control.messages.Moved)."""

    @property
    def status(self) -> int: ...
    @property
    def moved_bytes(self) -> int: ...
    @property
    def zero_bytes(self) -> int: ...
    @property
    def clean_bytes(self) -> int: ...
    @property
    def duplicate_bytes(self) -> int: ...
    @property
    def copy_ns(self) -> int: ...
    @property
    def hash_ns(self) -> int: ...
    @property
    def map_ns(self) -> int: ...
    @property
    def duration_ns(self) -> int: ...


@dataclass(slots=True)
class Flow:
    """What went one way in one switch, over all processes that took part."""

    copied: int = 0
    zero: int = 0
    clean: int = 0
    duplicate: int = 0
    copy_ns: int = 0
    hash_ns: int = 0
    map_ns: int = 0
    duration_ns: int = 0  # of the requests, each from its message to its answer
    requests: int = 0
    failed: int = 0

    def add(self, answer: Answer) -> None:
        """One more answer. A shim that counts no time for its copies has copied all the time."""
        self.copied += min(answer.moved_bytes, LIMIT)
        self.zero += min(answer.zero_bytes, LIMIT)
        self.clean += min(answer.clean_bytes, LIMIT)
        self.duplicate += min(answer.duplicate_bytes, LIMIT)
        self.copy_ns += min(answer.copy_ns or (answer.duration_ns if answer.moved_bytes else 0), LIMIT)
        self.hash_ns += min(answer.hash_ns, LIMIT)
        self.map_ns += min(answer.map_ns, LIMIT)
        self.duration_ns += min(answer.duration_ns, LIMIT)
        self.requests += 1
        self.failed += answer.status not in (0, CANCELLED)

    def merge(self, other: Flow) -> None:
        """What belongs to this after all."""
        for name in (part.name for part in fields(Flow)):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def bytes(self) -> int:
        """All that left or came, copied or not."""
        return self.copied + self.zero + self.clean + self.duplicate

    @property
    def rate(self) -> float | None:
        """Bytes/s while copying; None when nothing was copied."""
        return self.copied * 1e9 / self.copy_ns if self.copied and self.copy_ns else None


@dataclass(frozen=True, slots=True)
class Switch:
    """One switch that is over."""

    at: int  # when the job could go on
    kind: str  # turn, room
    source: str | None  # the job that had the lease before; None: nobody, or it has ended
    target: str
    stayed: int  # bytes of the source that are still on the device
    drain_ns: int  # until the work of the source had ended
    delay_ns: int
    out: Flow
    inward: Flow

    @property
    def moved(self) -> bool:
        """Did memory leave or come, copied or not, or fail to?"""
        return bool(self.out.bytes or self.inward.bytes or self.out.failed or self.inward.failed)


@dataclass(slots=True)
class Histogram:
    """Durations by BOUNDS_S; the last count is of those beyond."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_ns: int = 0

    def add(self, duration_ns: int) -> None:
        self.counts[bisect_left(BOUNDS_S, duration_ns / 1e9)] += 1
        self.total_ns += duration_ns


class Switches:
    """Makes records of what it is told."""

    def __init__(self) -> None:
        self.with_memory: deque[Switch] = deque(maxlen=MOVED_KEPT)
        self.plain: deque[Switch] = deque(maxlen=PLAIN_KEPT)
        self.histograms = {True: Histogram(), False: Histogram()}  # by: memory moved
        self.came: dict[str, Flow] = {}  # by job: all that was brought in; pages of the clients know only what left
        self._copied = 0
        self._holder: str | None = None
        self._source: str | None = None
        self._asked: int | None = None  # since when the lease is wanted back, or is being prepared
        self._drain_ns = 0
        self._turn = (Flow(), Flow())
        self._room = (Flow(), Flow())
        self._room_since: int | None = None

    def stored(self, job: str, word: Word, now: int, resident: Callable[[str], int]) -> None:
        """The lease word of a job was written; `resident`: what a job has on the device now."""
        if word is Word.DRAIN:
            self._asked = now if self._asked is None else self._asked
        elif word is Word.CLOSED:
            if job == self._holder:
                self._drain_ns = now - self._asked if self._asked is not None else 0
                self._holder, self._source = None, job
                for turn, room in zip(self._turn, self._room, strict=True):
                    turn.merge(room)  # it was to grow, and lost the lease before it had
                self._room, self._room_since = (Flow(), Flow()), None
        elif job != self._holder:
            if self._holder is not None:  # whose work is still there (an overlap)
                self._source, self._drain_ns = self._holder, 0
            self._granted(job, now, resident(self._source) if self._source is not None else 0)
        elif word is Word.OPEN:
            self._asked = None  # nobody else wants it any more

    def sent(self, job: str, move: Move, now: int) -> None:
        """EVICT or RESTORE was sent to a process of a job."""
        if self._holder is None:
            self._asked = now if self._asked is None else self._asked
        elif self._for_holder(job, move) and self._room_since is None:
            self._room_since = now

    def heard(self, job: str, move: Move, answer: Answer, now: int) -> None:
        """It was answered."""
        self._copied += min(answer.moved_bytes, LIMIT)
        held = self._holder is not None and self._for_holder(job, move)
        out, inward = self._room if held else self._turn
        (inward if move is Move.RESTORE else out).add(answer)
        if move is Move.RESTORE:
            self.came.setdefault(job, Flow()).add(answer)
        if held and move is Move.RESTORE:
            self._made_room(job, now)

    @property
    def copied(self) -> bool:
        """Has enough been copied to have measured the link?"""
        return self._copied >= ENOUGH

    def ended(self, job: str) -> None:
        """A job has ended. Its records stay."""
        self.came.pop(job, None)
        if self._holder == job:
            self._holder, self._source = None, None
        if self._source == job:
            self._source = None

    def last(self, count: int, everything: bool) -> list[Switch]:
        """The newest first; without `everything` only those that moved memory."""
        found = [*self.with_memory, *(self.plain if everything else ())]
        return sorted(found, key=lambda switch: -switch.at)[:count]

    def _for_holder(self, job: str, move: Move) -> bool:
        """Room for the holder: what comes in for it, and all that leaves while it holds. Others come in early."""
        return move is Move.EVICT or job == self._holder

    def _granted(self, job: str, now: int, stayed: int) -> None:
        out, inward = self._turn
        delay = now - self._asked if self._asked is not None else 0
        self._keep(Switch(now, "turn", self._source, job, stayed, self._drain_ns, delay, out, inward))
        self._holder, self._source, self._asked = job, None, None
        self._drain_ns = 0
        self._turn = (Flow(), Flow())

    def _made_room(self, job: str, now: int) -> None:
        out, inward = self._room
        delay = now - self._room_since if self._room_since is not None else 0
        self._room, self._room_since = (Flow(), Flow()), None
        switch = Switch(now, "room", None, job, 0, 0, delay, out, inward)
        if switch.moved:  # a job that grows into free memory is none
            self._keep(switch)

    def _keep(self, switch: Switch) -> None:
        (self.with_memory if switch.moved else self.plain).append(switch)
        self.histograms[switch.moved].add(switch.delay_ns)
