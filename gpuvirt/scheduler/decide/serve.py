# SPDX-License-Identifier: Apache-2.0
"""GPUs for those that wait, in order: free ones, else those of jobs that are behind them. PURE."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from heapq import heapify, heappop, heappush

from gpuvirt.scheduler.actions import Explanation
from gpuvirt.scheduler.decide.defragment import defragment
from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.place import place
from gpuvirt.scheduler.decide.rank import Rank, changes_in, turn
from gpuvirt.scheduler.decide.room import living
from gpuvirt.scheduler.decide.victims import Victims, carry_out
from gpuvirt.scheduler.decide.why import misses, waits_for
from gpuvirt.scheduler.state import Job, Phase

TICK = 1e-3  # s
SEARCHES = 64  # waiting jobs for which victims are looked for in one plan; others have their turn in the next

Key = tuple[Rank, tuple[float, ...], tuple[int, float, str]]


class Line:
    """Waiting jobs in order. What is decided moves queues back: a job is looked at anew when its turn comes."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self._heap = [
            (self._key(job), job.id)
            for job in draft.jobs.values()
            if job.phase in (Phase.PENDING, Phase.SUSPENDED) and not job.held and job.id not in draft.touched
        ]
        heapify(self._heap)

    def __iter__(self) -> Iterator[tuple[Job, Rank]]:
        while self._heap:
            key, name = heappop(self._heap)
            job = self.draft.jobs[name]
            now = self._key(job)
            if now > key:
                heappush(self._heap, (now, name))
            else:
                yield job, now[0]

    def _key(self, job: Job) -> Key:
        return (self.draft.rank(job), self.draft.usage.share(job.spec.queue), turn(job))


class Serve:
    """One pass over all that wait."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.victims: Victims | None = None
        self.searches = 0
        self.failed: dict[Hashable, tuple[Rank, str]] = {}  # what found no room, of what rank, and why
        self.positions: dict[str, int] = {}

    def run(self) -> None:
        for job, rank in Line(self.draft):
            why = self._serve(job, rank)
            if why:
                self._waits(job, why)
        if self.positions:
            for job in self.draft.jobs.values():
                self.draft.look_again(self.draft.now + max(TICK, changes_in(job, self.draft.rules)))

    def _serve(self, job: Job, rank: Rank) -> str:
        """Empty when it has GPUs now; else why not."""
        draft = self.draft
        if job.phase is Phase.SUSPENDED:
            silent = [one.node for one in living(job) if not self._is_there(one.node)]
            if silent and not draft.rules.moves:
                return f"its host {silent[0]} cannot be used now"
        why = draft.usage.forbidden(job.spec.queue, draft.usage.asked(job, job.spec.members_min))
        if why:
            return why
        shape = _shape(job)
        known = self.failed.get(shape)
        if known is not None and rank >= known[0]:
            return known[1]
        if self._start(job):
            return ""
        if self.searches < SEARCHES:
            self.searches += 1
            if job.phase is Phase.PENDING and (moves := defragment(draft, job)) is not None:
                for other, members in moves.moved:
                    draft.move(other, members, f"makes room for job {job.id}")
                draft.start(job, moves.members)
                return ""
            if self.victims is None:
                self.victims = Victims(draft)
            found = self.victims.find(job, rank)
            if found is not None:
                carry_out(draft, found, f"job {job.id} goes before it")
                if found.members is None:
                    draft.resume(job)
                elif job.phase is Phase.SUSPENDED:
                    draft.move(job, found.members, "its own GPUs are in use")
                else:
                    draft.start(job, found.members)
                return ""
        else:
            draft.look_again(draft.now + TICK)
        why = f"waits for {waits_for(job)}"
        self.failed[shape] = (rank, why)
        return why

    def _start(self, job: Job) -> bool:
        draft = self.draft
        if job.phase is Phase.SUSPENDED:
            if draft.room.can_resume(job):
                draft.resume(job)
                return True
            if not draft.rules.moves:
                return False
        members = place(draft.room, job, job.spec.members_min)
        if members is None:
            return False
        if job.phase is Phase.SUSPENDED:
            draft.move(job, members, "its own GPUs are in use")
        else:
            draft.start(job, members)
        return True

    def _is_there(self, node: str) -> bool:
        host = self.draft.room.hosts.get(node)
        return host is not None and host.usable

    def _waits(self, job: Job, why: str) -> None:
        draft, queue = self.draft, job.spec.queue
        position = self.positions[queue] = self.positions.get(queue, 0) + 1
        near = misses(draft.room, job) if position <= NEAR else ()
        draft.explain(job, Explanation(why, near, position))


NEAR = 20  # of each queue, the first so many are told which hosts would nearly have done


def _shape(job: Job) -> Hashable:
    """Jobs of one shape find room alike."""
    if job.phase is Phase.SUSPENDED:
        return job.id
    return (job.spec.demand, job.spec.members_min, job.spec.topology, job.spec.regions)
