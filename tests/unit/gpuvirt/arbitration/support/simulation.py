# SPDX-License-Identifier: Apache-2.0
"""Jobs that always have work, on a GPU whose link takes time: the real decisions on a simulated clock.

Both directions of the link go at their own rate at the same time. A client that has to leave says PROGRESS after each
window; one that comes in waits for CREDIT. What a client needs to leave is copied but for its share of clean pages.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from gpuvirt.arbitration import events, ledger
from gpuvirt.arbitration.facts import SECOND, Client, Credit, Gpu, Move, Rules, Send, Store, WakeUp, Word
from gpuvirt.arbitration.lease import decide

MILLISECOND = SECOND // 1000
WINDOW = 1 << 30  # large, so that hours take seconds
RUNS = (Word.OPEN, Word.GRANTED)


@dataclass(slots=True)
class Job:
    """One process that always has work, or works for `work` and thinks for `thinks`. Nanoseconds."""

    name: str
    size: int
    number: int
    dirty: float = 1.0  # part of its memory that it changes in each lease
    work: int = 0  # 0: always
    thinks: int = 0
    running_since: int | None = None
    ran: int = 0
    turns: int = 0
    out: int = 0  # bytes that left
    copied: int = 0  # of them, over the link
    inward: int = 0
    move: Move | None = None
    moved_since: int = 0
    moved: int = 0
    waits: bool = False
    works: bool = False
    quanta: list[int] = field(default_factory=list)


class Simulation:
    """rate: bytes/s of each direction."""

    def __init__(self, capacity: int, rate: float, rules: Rules | None = None) -> None:
        self.gpu = Gpu("gpu", capacity, rules or Rules())
        self.rate = rate
        self.now = SECOND
        self.jobs: dict[str, Job] = {}
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._wake: int | None = None

    # ---- what a test does

    def add(
        self,
        name: str,
        size: int,
        weight: int = 1,
        soft: int | None = None,
        standing: dict[str, Any] | None = None,
        **facts: float,
    ) -> Job:
        """standing: what its policy heeds of it (tenant, priority, tier, due_in)."""
        job = Job(name, size, len(self.jobs) + 1, **facts)  # type: ignore[arg-type]
        self.jobs[name] = job
        contender = events.attach(self.gpu, name, weight, Client(job.number, granularity=1 << 20), **(standing or {}))
        contender.soft = soft
        self._at(0, lambda: self._want(job))
        return job

    def run(self, seconds: float) -> None:
        """Until so much later."""
        end = self.now + int(seconds * SECOND)
        while self._events or self._wake is not None:
            due = min([self._events[0][0]] if self._events else [], default=end)
            due = min(due, self._wake if self._wake is not None else end)
            if due >= end:
                break
            self.now = max(self.now, due)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._decide()
        self.now = end

    def busy(self, job: Job) -> int:
        """Time that it had the GPU, up to now (ns)."""
        return job.ran + (self.now - job.running_since if job.running_since is not None else 0)

    # ---- clients

    def _at(self, delay: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._events, (self.now + delay, self._count, action))

    def _client(self, job: Job) -> Client:
        return events.find(self.gpu, job.number)[1]

    def _want(self, job: Job) -> None:
        client = self._client(job)
        job.works = True
        events.want(self.gpu, job.number, job.size, min(client.resident, job.size), self.now)
        if job.running_since is not None:
            self._work(job)

    def _work(self, job: Job) -> None:
        """It has the GPU and work to do."""
        if job.work:
            self._at(job.work, partial(self._finish, job, job.turns))

    def _finish(self, job: Job, turn: int) -> None:
        """All that it had to do in this turn is done; one that lost the GPU meanwhile begins again at its next turn."""
        if job.running_since is None or job.turns != turn or not job.works:
            return
        job.works = False
        events.idle(self.gpu, job.number)
        self._at(job.thinks, lambda: self._want(job))

    def _decide(self) -> None:
        decision = decide(self.gpu, self.now)
        self._wake = decision.wake_at
        assert ledger.promised(self.gpu.clients()) <= self.gpu.capacity
        for action in decision.actions:
            match action:
                case Store(name, word, epoch, _, _):
                    self._stored(self.jobs[name], word, epoch)
                case Send(number, move, size, _):
                    job = self._job(number)
                    job.move, job.moved_since, job.moved = move, self.now, 0
                    self._at(1, partial(self._step, job, move, size))
                case Credit(number, size, cancelled):
                    job = self._job(number)
                    assert not cancelled  # nothing goes wrong here
                    if job.waits:
                        job.waits = False
                        self._at(1, partial(self._step, job, Move.RESTORE, size))
                case WakeUp():
                    pass
        assert sum(job.running_since is not None for job in self.jobs.values()) <= 1

    def _job(self, number: int) -> Job:
        return next(job for job in self.jobs.values() if job.number == number)

    def _stored(self, job: Job, word: Word, epoch: int) -> None:
        contender = self.gpu.contenders[job.name]
        if word in RUNS and job.running_since is None:
            job.running_since = self.now
            job.turns += 1
            job.quanta.append(contender.quantum)
            self._work(job)
        elif word is Word.DRAIN:
            self._at(MILLISECOND // 10, lambda: self._drained(job, epoch))

    def _drained(self, job: Job, epoch: int) -> None:
        if job.running_since is not None:
            job.ran += self.now - job.running_since
            job.running_since = None
        events.drained(self.gpu, job.number, epoch)
        if job.works:
            self._want(job)

    # ---- the link

    def _step(self, job: Job, move: Move, size: int) -> None:
        """The next window of a client's request, as far as it is allowed."""
        client = self._client(job)
        if client.request is None or job.move is not move:
            return
        if move is Move.EVICT:
            left = client.resident - size
        else:
            left = min(job.size, client.allowance) - client.resident
            if left <= 0 and client.resident < job.size:
                job.waits = True  # for credit
                return
        if left <= 0:
            self._moved(job, move)
            return
        window = min(WINDOW, left)
        copied = window * job.dirty if move is Move.EVICT else window
        self._at(int(copied / self.rate * SECOND) + 1, lambda: self._window(job, move, size, window))

    def _window(self, job: Job, move: Move, size: int, window: int) -> None:
        client = self._client(job)
        job.moved += window
        if move is Move.EVICT:
            job.out += window
            job.copied += int(window * job.dirty)
            events.progress(self.gpu, job.number, client.resident - window, self.now)
        else:
            job.inward += window
            client.resident += window
        self._step(job, move, size)

    def _moved(self, job: Job, move: Move) -> None:
        client = self._client(job)
        job.move = None
        copied = int(job.moved * job.dirty) if move is Move.EVICT else job.moved
        took = self.now - job.moved_since
        events.moved(
            self.gpu, job.number, move, 0, job.size, client.resident, copied, 0, took, self.now, 0, job.moved - copied
        )
