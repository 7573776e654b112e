# SPDX-License-Identifier: Apache-2.0
"""The line of jobs that wait to be started: gpuvirt.arbitration.admission decides, this carries it out.

A job in line exists (it has an id, a token, its `gpuvirt run` as root process) and is recorded, so a restart of the
daemon keeps the order. It leaves the line when it is admitted, or with the death of its root process.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from gpuvirt.arbitration.admission import Applicant, Budgets, Place, Running, line
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job
from gpuvirtd.memory.quotas import committed, publish_quotas

if TYPE_CHECKING:
    from gpuvirtd.host import Host

SAMPLES = 20  # of the last jobs, for how long jobs usually last


class Line:
    """Who waits, and where."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._places: dict[str, Place] = {}
        self._arrivals = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def enter(self, job: Job) -> None:
        """A new job: at the end of the line, and out of it at once if there is room and nobody before it."""
        self._arrivals = 1 + max([self._arrivals, *(other.queued or 0 for other in self.host.jobs)])
        job.queued = self._arrivals

    def place(self, job: Job) -> Place | None:
        """Where a job stands; None if it was admitted."""
        if job.queued is None:
            return None
        known = self._places.get(job.id)
        if known is not None:
            return known
        before = sum(other.queued is not None and other.queued < job.queued for other in self.host.jobs)
        return Place(job.id, before + 1, "the daemon looks for the jobs of before its restart")

    def row(self, job: Job) -> dict[str, Any] | None:
        """The same as the admin socket tells it."""
        place = self.place(job)
        if place is None:
            return None
        return {"position": place.position, "reason": place.reason, "estimate_s": place.estimate_s}

    def look(self) -> None:
        """Something changed: admit whoever can start. Costs nothing while nobody waits."""
        waiting = [job for job in self.host.jobs if job.queued is not None]
        if (not waiting and not self._places) or self.host.recovery.active():
            return  # while jobs of before a restart come back nobody knows what they have
        before = self._places
        places = line([self._applicant(job) for job in waiting], self._running(), self._budgets(), self.typical_s())
        self._places = {place.key: place for place in places if place.position}
        for place in places:
            job = self.host.jobs.by_id[place.key]
            if place.position == 0:
                self._admit(job, waited=place.key in before)
            elif place.key not in before:
                job.events.add(Kind.LINE, f"waits in line: {place.reason}")
                self.host.log.info("queued", job=job.id, position=place.position, reason=place.reason)
        admitted = any(place.position == 0 for place in places)  # who waits since before a restart has no place yet
        if admitted or self._shown(before) != self._shown(self._places):
            self._tell()
        if admitted:  # what is set aside for them counts from now on
            publish_quotas(self.host.jobs, self.host.arbiters.values(), self.host.policy.budget, self.host.log)

    @staticmethod
    def _shown(places: dict[str, Place]) -> dict[str, int]:
        return {key: place.position for key, place in places.items()}

    def _admit(self, job: Job, waited: bool) -> None:
        waited_s = time.time() - job.since
        job.queued = None
        job.since = time.time()
        self.host.record(job)
        if waited:
            job.events.add(Kind.LINE, f"starts after {waited_s:.1f} s in line")
            self.host.log.info("admitted", job=job.id, waited_s=round(waited_s, 1))
        self.host.job_changed(job)

    def _applicant(self, job: Job) -> Applicant:
        return Applicant(job.id, job.uid, declared(job), job.queued or 0)

    def _running(self) -> list[Running]:
        now = time.time()
        return [
            Running(job.id, job.uid, max(committed(job), declared(job)), max(0.0, now - job.since))
            for job in self.host.jobs
            if job.queued is None
        ]

    def _budgets(self) -> Budgets:
        host = self.host
        budget = host.policy.budget
        tenants = {job.uid: budget.per_user for job in host.jobs if budget.per_user < budget.total}
        return Budgets(budget.total, tenants, sum(arbiter.gpu.capacity for arbiter in host.arbiters.values()))

    def typical_s(self) -> float | None:
        """For how long the last jobs ran (seconds, the median); None before any has ended."""
        ran = [row for row in self.host.jobs.ended if row["queued"] is None]  # the others left the line
        lasted = sorted(row["ended"] - row["since"] for row in ran[-SAMPLES:])
        return max(0.0, lasted[len(lasted) // 2]) if lasted else None

    # ---- who wants to know

    async def change(self) -> None:
        """Returns when somebody's position has changed."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def declared(job: Job) -> int:
    """What a job says it will need (bytes): its limit or its reservation; 0 if it says nothing."""
    return max(job.memory or 0, job.reserve)
