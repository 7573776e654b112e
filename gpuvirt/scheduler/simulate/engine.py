# SPDX-License-Identifier: Apache-2.0
"""Jobs on a fleet, on a simulated clock: the policy plans at every arrival, end and change of a rank.

GPUs are counted, not placed: a gang fits when as many are free. Suspending costs: what starts on GPUs that others are
taken off begins later by that, and what comes back by what resuming takes; its GPUs are busy meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.order.base import Policy
from gpuvirt.scheduler.order.job import NEVER, TICK, Job, Terms
from gpuvirt.scheduler.order.queue import Queue


@dataclass(frozen=True, slots=True)
class Request:
    """What a trace says of a job. `work`: seconds that it runs on its GPUs; `arrival`: seconds."""

    arrival: float
    gpus: int
    work: float
    tenant: str = ""


@dataclass(slots=True)
class Run:
    """What happened."""

    policy: Policy
    terms: Terms
    jobs: list[Job]
    plans: int = 0
    lost: float = 0.0  # GPU s spent on suspending and resuming
    curve: list[tuple[float, int, int]] = field(default_factory=list)  # from when on: GPUs given, jobs that wait


class Engine:
    """One run of one policy."""

    def __init__(self, requests: Iterable[Request], terms: Terms, order: Callable[[Terms], Policy]) -> None:
        self.policy = order(terms)
        self.terms = terms
        self.jobs = [
            Job(number, one.arrival, one.gpus, one.work, one.tenant, changed=one.arrival)
            for number, one in enumerate(sorted(requests, key=lambda one: one.arrival))
        ]
        for job in self.jobs:
            if not 0 < job.gpus <= terms.gpus:
                raise ConfigError(f"a job wants {job.gpus} GPUs, the fleet has {terms.gpus}", "add hosts")
        self.queue = Queue(terms, self.policy)
        self.result = Run(self.policy, terms, self.jobs)
        self._agenda: list[tuple[float, int, int]] = []  # moment, number of the job, its run

    def run(self) -> Run:
        """To the end of the last job."""
        arrivals: Sequence[Job] = self.jobs
        arrived = 0
        while arrived < len(arrivals) or self._agenda:
            now = self._agenda[0][0] if self._agenda else NEVER
            if arrived < len(arrivals):
                now = min(now, arrivals[arrived].arrival)
            changed = self._advance(now)
            while arrived < len(arrivals) and arrivals[arrived].arrival <= now:
                self.queue.wait(arrivals[arrived], now)
                arrived += 1
                changed = True
            if changed:
                self._plan(now)
        return self.result

    def _advance(self, now: float) -> bool:
        """What was foreseen for now. Whether anything happened."""
        changed = False
        while self._agenda and self._agenda[0][0] <= now + TICK:
            _, number, run = heappop(self._agenda)
            job = self.jobs[number]
            if job.run != run:
                continue
            changed = True
            if job.remaining(now) <= TICK:
                job.attained, job.ended, job.running = job.work, now, False
                job.run += 1
                self.queue.leave(job)
            else:
                self._foresee(job, now)
        return changed

    def _foresee(self, job: Job, now: float) -> None:
        """The next that happens to a running job by itself."""
        end = job.serves_until(job.work)
        moment = min(end, self.policy.changes_at(job, now))
        heappush(self._agenda, (max(moment, now + TICK), job.number, job.run))

    def _plan(self, now: float) -> None:
        plan = self.policy.plan(self.queue, now)
        self.result.plans += 1
        idle = self.queue.free
        for job in plan.stop:
            self.queue.leave(job)
            self._stop(job, now)
        for job in plan.start:
            self.queue.take(job, now)
            idle = self._start(job, now, idle)
            self._foresee(job, now)
        for job in plan.stop:
            self.queue.wait(job, now)
        self.result.curve.append((now, self.terms.gpus - self.queue.free, self.queue.waiting))

    def _stop(self, job: Job, now: float) -> None:
        if now < job.begins:
            self.result.lost -= job.gpus * (job.begins - now)
        job.attained = job.served(now)
        job.running = False
        job.suspensions += 1
        job.changed = now
        job.run += 1

    def _start(self, job: Job, now: float, idle: int) -> int:
        """GPUs that nobody has to be taken off, after this one."""
        pause = self.terms.resume if job.suspensions else 0.0
        if job.gpus > idle:
            pause += self.terms.suspend
        self.result.lost += job.gpus * pause
        job.running = True
        job.begins = now + pause
        job.changed = now
        job.run += 1
        if job.started is None:
            job.started = now
        return max(0, idle - job.gpus)
