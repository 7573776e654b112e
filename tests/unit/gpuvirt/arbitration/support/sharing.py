# SPDX-License-Identifier: Apache-2.0
"""Jobs that share one GPU under a policy, on a clock of their own: as little as tests of policies need.

Memory is no matter. Whoever has to drain needs a tenth of a millisecond. A burst that is interrupted goes on later.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Client, Gpu, Rules, Store, Word
from gpuvirt.arbitration.lease import decide

MS = MILLISECOND
DRAIN = MS // 10
RUNS = (Word.OPEN, Word.GRANTED)


@dataclass(slots=True)
class Job:
    """One process that always has work, or bursts of `work` with `thinks` between them. Nanoseconds."""

    name: str
    number: int
    work: int = 0  # 0: always
    thinks: int = 0
    left: int = 0  # of the present burst
    works: bool = False
    running_since: int | None = None
    ran: int = 0
    turns: int = 0


class Sharing:
    """The real decisions about one GPU."""

    def __init__(self, policy: str, rules: Rules | None = None) -> None:
        self.gpu = Gpu("gpu", 1 << 40, rules or Rules(), policy=policy)
        self.now = SECOND
        self.jobs: dict[str, Job] = {}
        self._due: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._wake: int | None = None

    # ---- what a test does

    def job(self, name: str, weight: int = 1, work: int = 0, thinks: int = 0, **standing: Any) -> Job:
        """A new job; standing: tenant, priority, tier, due_in."""
        job = self.jobs[name] = Job(name, len(self.jobs) + 1, work, thinks)
        events.attach(self.gpu, name, weight, Client(job.number), **standing)
        self._at(0, lambda: self._want(job))
        return job

    def run(self, seconds: float) -> None:
        """Until so much later."""
        end = self.now + round(seconds * SECOND)
        while True:
            due = min(
                [when for when, *_ in self._due[:1]] + [when for when in [self._wake] if when is not None] + [end]
            )
            if due >= end:
                break
            self.now = max(self.now, due)
            while self._due and self._due[0][0] <= self.now:
                heapq.heappop(self._due)[2]()
            self._decide()
        self.now = end

    def change(self, policy: str) -> None:
        """Another policy, from now on."""
        events.set_policy(self.gpu, policy, self.now)
        self._decide()

    def busy(self, job: Job) -> int:
        """Time that it had the GPU, up to now (ns)."""
        return job.ran + (self.now - job.running_since if job.running_since is not None else 0)

    def shares(self, seconds: float) -> dict[str, float]:
        """Part of the next `seconds` that each job has the GPU."""
        before = {name: self.busy(job) for name, job in self.jobs.items()}
        self.run(seconds)
        return {name: (self.busy(job) - before[name]) / (seconds * SECOND) for name, job in self.jobs.items()}

    def longest_wait(self, name: str, seconds: float, step: float = 0.01) -> float:
        """The longest time (seconds) of the next `seconds` without the GPU of a job that always wants it."""
        longest = since = 0.0
        had = self.busy(self.jobs[name])
        for at in range(1, round(seconds / step) + 1):
            self.run(step)
            if self.busy(self.jobs[name]) > had:
                had, since = self.busy(self.jobs[name]), at * step
            longest = max(longest, at * step - since)
        return longest

    # ---- what jobs do

    def _at(self, delay: int, action: Callable[[], None]) -> None:
        self._count += 1
        heapq.heappush(self._due, (self.now + delay, self._count, action))

    def _want(self, job: Job) -> None:
        if not job.works:
            job.left = job.work
        job.works = True
        events.want(self.gpu, job.number, 0, 0, self.now)
        if job.running_since is not None:
            self._work(job)

    def _work(self, job: Job) -> None:
        if job.work:
            self._at(job.left, partial(self._finish, job, job.turns))

    def _finish(self, job: Job, turn: int) -> None:
        """The burst is done, if it was not interrupted."""
        if job.running_since is not None and job.turns == turn and job.works:
            job.works = False
            events.idle(self.gpu, job.number)
            self._at(job.thinks, lambda: self._want(job))

    def _decide(self) -> None:
        decision = decide(self.gpu, self.now)
        self._wake = decision.wake_at
        for action in decision.actions:
            if isinstance(action, Store):
                self._stored(self.jobs[action.contender], action.word, action.epoch)
        assert sum(job.running_since is not None for job in self.jobs.values()) <= 1

    def _stored(self, job: Job, word: Word, epoch: int) -> None:
        if word in RUNS and job.running_since is None:
            job.running_since = self.now
            job.turns += 1
            self._work(job)
        elif word is Word.DRAIN:
            self._at(DRAIN, lambda: self._drained(job, epoch))

    def _drained(self, job: Job, epoch: int) -> None:
        if job.running_since is not None:
            ran = self.now - job.running_since
            job.ran, job.left, job.running_since = job.ran + ran, max(1, job.left - ran), None
        events.drained(self.gpu, job.number, epoch)
        if job.works:
            self._want(job)
