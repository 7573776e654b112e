# SPDX-License-Identifier: Apache-2.0
"""A plan while it is made: what is left of the hosts, what queues use, what has been decided so far. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gpuvirt.scheduler.actions import Action, Explanation, Grow, Move, Requeue, Resume, Shrink, Start, Suspend
from gpuvirt.scheduler.decide.promise import counted, with_guarantee
from gpuvirt.scheduler.decide.queues import Usage
from gpuvirt.scheduler.decide.rank import Rank, rank_of
from gpuvirt.scheduler.decide.room import ASIDE, OCCUPYING, Room, living
from gpuvirt.scheduler.state import Job, Member, Phase, Snapshot


class Draft:
    """Every method changes room, usage and jobs as if what it says had happened."""

    def __init__(self, snapshot: Snapshot, now: float, guaranteed: dict[str, bool]) -> None:
        self.rules, self.now, self.nodes = snapshot.rules, now, snapshot.nodes
        self.jobs = {
            job.id: with_guarantee(job, guaranteed[job.id], now, snapshot.rules)
            if job.id in guaranteed
            else replace(job, served=counted(job, now, snapshot.rules))
            for job in snapshot.jobs.values()
        }
        self.room = Room(snapshot)
        self.usage = Usage(snapshot.queues, self.room)
        for job in self.jobs.values():
            if job.phase in OCCUPYING:
                self.usage.take(job.spec.queue, self.usage.of(job.spec.demand, living(job)))
        self.actions: list[Action] = []
        self.explanations: dict[str, Explanation] = {}
        self.touched: set[str] = set()  # jobs that something is done with: nothing else, in this plan
        self.again_at = float("inf")

    def rank(self, job: Job) -> Rank:
        """Of a job, with the queue's quota as it is used now; whether it waits or not, counted with what it has."""
        if job.phase in OCCUPYING:
            entitled = self.usage.entitled(job.spec.queue, (0, 0, 0, 0))
        else:
            entitled = self.usage.entitled(job.spec.queue, self.usage.asked(job, job.spec.members_min))
        return rank_of(job, self.rules, entitled)

    def look_again(self, when: float) -> None:
        """Something may be decided otherwise then, without anything having happened."""
        if when > self.now:
            self.again_at = min(self.again_at, when)

    def start(self, job: Job, members: tuple[Member, ...]) -> None:
        self._add(job, Start(job.id, members))
        self._occupy(job, members, 1)
        self._now_is(replace(job, phase=Phase.STARTING, members=members, changed=self.now))

    def grow(self, job: Job, members: tuple[Member, ...]) -> None:
        self._add(job, Grow(job.id, members))
        self._occupy(job, members, 1)
        self._now_is(replace(job, members=(*job.members, *members)))

    def shrink(self, job: Job, ranks: Iterable[int], why: str) -> None:
        gone = frozenset(ranks)
        self._add(job, Shrink(job.id, tuple(sorted(gone)), why))
        self._occupy(job, [member for member in living(job) if member.rank in gone], -1)
        self._now_is(replace(job, members=tuple(one for one in job.members if one.rank not in gone)))

    def suspend(self, job: Job, why: str) -> None:
        self._add(job, Suspend(job.id, why))
        self.usage.take(job.spec.queue, self.usage.of(job.spec.demand, living(job)), -1)
        self.room.suspend(job)
        self._now_is(replace(job, phase=Phase.SUSPENDING, changed=self.now))

    def resume(self, job: Job) -> None:
        self._add(job, Resume(job.id))
        self.usage.take(job.spec.queue, self.usage.of(job.spec.demand, living(job)))
        self.room.unsuspend(job)
        self._now_is(replace(job, phase=Phase.RESUMING, changed=self.now))

    def move(self, job: Job, members: tuple[Member, ...], why: str) -> None:
        self._add(job, Move(job.id, members, why))
        self._leave(job)
        self._occupy(job, members, 1)
        self._now_is(replace(job, phase=Phase.RESUMING, members=members, changed=self.now))

    def requeue(self, job: Job, why: str) -> None:
        """Stopped, to begin anew; who must not be started again has failed."""
        self._add(job, Requeue(job.id, why, fail=not job.spec.restarts))
        self._leave(job)
        self._now_is(replace(job, phase=Phase.STOPPING, members=(), changed=self.now))

    def explain(self, job: Job, explanation: Explanation) -> None:
        self.explanations[job.id] = explanation

    def _leave(self, job: Job) -> None:
        if job.phase in OCCUPYING:
            self._occupy(job, living(job), -1)
        elif job.phase in ASIDE:
            self.room.set_aside(job, -1)

    def _occupy(self, job: Job, members: Iterable[Member], sign: int) -> None:
        members = list(members)
        self.room.occupy(job.spec.demand, members, sign)
        self.usage.take(job.spec.queue, self.usage.of(job.spec.demand, members), sign)

    def _add(self, job: Job, action: Action) -> None:
        assert job.id not in self.touched, f"job {job.id} is in two actions of one plan"
        self.touched.add(job.id)
        self.actions.append(action)

    def _now_is(self, job: Job) -> None:
        self.jobs[job.id] = job
