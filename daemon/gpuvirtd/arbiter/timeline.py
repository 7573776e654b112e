# SPDX-License-Identifier: Apache-2.0
"""What happened on one GPU lately: who had it, who waited for what, what moved, what took long. For people.

Pure, and bounded: it looks at the facts after every decision, compares them with what it saw before, and keeps what
is over as a record in a ring. It decides nothing, and misses only what lasted no time at all. Nanoseconds and bytes.

Lanes of records:
  lease   of a job: "alone" (nobody else wants the GPU), "held", "grows" (held, and needs more memory), "step",
          "drain", "waits" (for its turn), "waits for memory" (that moves, and nothing else)
  swap    of a process: "evict", "restore"; " waits" (for room), " overdue" (not answered), " called off"
  gpu     "prepares": nobody holds it, and it is made ready for the job
  memory  of a job: a point in time at which what it has on the device became another figure
  note    of a job: what kept it from going on, when that began
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from gpuvirt.arbitration.facts import Client, Contender, Gpu, Request, Word
from gpuvirtd.arbiter.lost import loses
from gpuvirtd.arbiter.switches import LIMIT, Answer, Histogram

KEPT = 1 << 15  # records: minutes with turns of 20 ms
PAUSES = 16  # of a job
LATELY = 64  # waits of a job that are remembered one by one
LEASE, SWAP, GPU, MEMORY, NOTE = "lease", "swap", "gpu", "memory", "note"
WAITS, WAITS_FOR_MEMORY = "waits", "waits for memory"
HELD = {Word.OPEN: "alone", Word.GRANTED: "held", Word.STEP: "step", Word.DRAIN: "drain"}


class Moved(NamedTuple):
    """What a request moved. resident: of the process, before and after; copied: over the link; saved: not copied."""

    before: int
    after: int
    copied: int = 0
    saved: int = 0
    status: int = 0  # CUresult


class Record(NamedTuple):
    """Something that is over (`end`), or goes on (0). The fields that a lane has no use for are 0 and empty."""

    lane: str
    job: str
    client: int
    name: str
    begin: int
    end: int
    epoch: int = 0  # lease: of the word
    bytes: int = 0  # memory: resident from `begin` on
    moved: Moved | None = None  # swap


@dataclass(slots=True)
class _Open:
    """What goes on in one lane of a job or process."""

    name: str
    since: int
    epoch: int = 0
    request: Request | None = None
    before: int = 0
    answer: tuple[int, int, int] = (0, 0, 0)  # copied, saved, status


@dataclass(slots=True)
class Waits:
    """How long a job waited for its turns: the last ones."""

    count: int = 0
    total_ns: int = 0
    lately: deque[int] = field(default_factory=lambda: deque(maxlen=LATELY))
    pauses: deque[int] = field(default_factory=lambda: deque(maxlen=PAUSES))  # without work, between two turns
    left: int | None = None  # since when it has had no work

    def pause(self) -> int | None:
        """The median of its last pauses; None when there was none."""
        found = sorted(self.pauses)
        return found[len(found) // 2] if found else None

    def typical(self) -> int | None:
        """The median of the last ones; None when there was none."""
        found = sorted(self.lately)
        return found[len(found) // 2] if found else None


class Timeline:
    """Makes records of what it sees."""

    def __init__(self, kept: int = KEPT) -> None:
        self._records: deque[Record] = deque(maxlen=kept)
        self.count = 0  # records so far; those that have gone from the ring, too
        self.waits: dict[str, Waits] = {}
        self.waited = Histogram()  # all waits of all jobs
        self._leases: dict[str, _Open] = {}
        self._swaps: dict[int, tuple[str, _Open]] = {}
        self._prepares: tuple[str, int] | None = None
        self._memory: dict[str, int] = {}
        self._reasons: dict[str, str] = {}

    # ---- what it is told

    def look(self, gpu: Gpu, now: int) -> None:
        """The facts are as they are from now on."""
        present = gpu.contenders
        clients = 0
        for key, contender in present.items():
            self._lease(gpu, key, contender, now)
            resident = 0
            for number, client in contender.clients.items():
                resident += client.resident
                if client.request is not None or number in self._swaps:
                    self._swap(key, number, client, now)
                clients += client.request is not None
            if resident != self._memory.get(key, 0):
                self._memory[key] = resident
                self._keep(Record(MEMORY, key, 0, "", now, now, bytes=resident))
            if contender.reason != self._reasons.get(key, ""):
                self._reasons[key] = contender.reason
                if contender.reason:
                    self._keep(Record(NOTE, key, 0, contender.reason, now, now))
        if len(self._swaps) > clients:
            self._forget_clients({number for one in present.values() for number in one.clients}, now)
        if not self.waits.keys() <= present.keys():
            self._forget_jobs(gpu, now)
        prepares = gpu.next if gpu.holder is None else None
        if self._prepares is not None and self._prepares[0] != prepares:
            job, since = self._prepares
            self._keep(Record(GPU, job, 0, "prepares", since, now))
            self._prepares = None
        if prepares is not None and self._prepares is None:
            self._prepares = (prepares, now)

    def answered(self, number: int, answer: Answer) -> None:
        """What a client said it has moved; the next look() finds its request gone."""
        known = self._swaps.get(number)
        if known is not None:
            saved = answer.zero_bytes + answer.clean_bytes + answer.duplicate_bytes
            known[1].answer = (min(answer.moved_bytes, LIMIT), min(saved, LIMIT), answer.status)

    # ---- what people ask

    def since(self, number: int, limit: int) -> list[Record]:
        """At most `limit` records from this number on (they are numbered from 0), the oldest first."""
        gone = self.count - len(self._records)
        first = max(0, number - gone)
        return list(islice(self._records, first, first + limit))

    def first(self, when: int) -> int:
        """The number of the first record that ended at `when` or later: they are in the order of their ends."""
        return self.count - len(self._records) + bisect_left(self._records, when, key=lambda record: record.end)

    @property
    def kept(self) -> int:
        """How many records there are now; their numbers end at `count`."""
        return len(self._records)

    def resident(self) -> dict[str, int]:
        """What each job has on the device now."""
        return dict(self._memory)

    def open(self) -> Iterator[Record]:
        """What goes on; its `end` is 0."""
        for key, lease in self._leases.items():
            yield Record(LEASE, key, 0, lease.name, lease.since, 0, lease.epoch)
        for number, (key, swap) in self._swaps.items():
            yield Record(SWAP, key, number, swap.name, swap.since, 0)
        if self._prepares is not None:
            yield Record(GPU, self._prepares[0], 0, "prepares", self._prepares[1], 0)

    # ---- the lanes

    def _lease(self, gpu: Gpu, key: str, contender: Contender, now: int) -> None:
        known = self.waits.get(key)
        if known is None:
            self.waits[key] = known = Waits(contender.waits, contender.wait_ns)
        elif contender.waits > known.count:
            waited = contender.wait_ns - known.total_ns
            known.count, known.total_ns = contender.waits, contender.wait_ns
            known.lately.append(waited)
            self.waited.add(waited)
        name = HELD.get(contender.word, "")
        if name:
            if contender.may_launch and contender.waiting:
                name = "grows"
        elif contender.waiting:
            name = WAITS_FOR_MEMORY if loses(gpu, contender) else WAITS
        epoch = contender.epoch if contender.word is not Word.CLOSED else 0
        opened = self._leases.get(key)
        if opened is not None:
            if opened.name == name and opened.epoch == epoch:
                return
            self._close_lease(key, opened, now)
        if name and known.left is not None:
            known.pauses.append(now - known.left)
        known.left = now if not name and opened is not None else None if name else known.left
        if name:
            self._leases[key] = _Open(name, now, epoch)

    def _close_lease(self, key: str, opened: _Open, now: int) -> None:
        del self._leases[key]
        if now > opened.since:
            self._keep(Record(LEASE, key, 0, opened.name, opened.since, now, opened.epoch))

    def _swap(self, key: str, number: int, client: Client, now: int) -> None:
        name = _name(client.request) if client.request is not None else ""
        known = self._swaps.get(number)
        if known is not None:
            opened = known[1]
            if opened.request is client.request and opened.name == name:
                return
            self._close_swap(number, now, client.resident)
        if name:
            self._swaps[number] = key, _Open(name, now, request=client.request, before=client.resident)

    def _close_swap(self, number: int, now: int, resident: int) -> None:
        key, opened = self._swaps.pop(number)
        moved = Moved(opened.before, resident, *opened.answer)
        self._keep(Record(SWAP, key, number, opened.name, opened.since, now, moved=moved))

    def _forget_clients(self, present: set[int], now: int) -> None:
        for number in [number for number in self._swaps if number not in present]:
            self._close_swap(number, now, 0)

    def _forget_jobs(self, gpu: Gpu, now: int) -> None:
        """Jobs that have ended; what was going on with them has ended, too."""
        for key in self.waits.keys() - gpu.contenders.keys():
            del self.waits[key]
            if key in self._leases:
                self._close_lease(key, self._leases[key], now)
            if self._memory.pop(key, 0):
                self._keep(Record(MEMORY, key, 0, "", now, now))
            self._reasons.pop(key, None)

    def _keep(self, record: Record) -> None:
        self._records.append(record)
        self.count += 1


def _name(request: Request) -> str:
    name = request.move.value
    if request.late:
        return f"{name} overdue"
    if request.cancelled:
        return f"{name} called off"
    return f"{name} waits" if request.waits else name
