# SPDX-License-Identifier: Apache-2.0
"""Jobs that wait, sorted as the policy ranks them, those that run, and two ways of dealing out GPUs to them.

Waiting jobs of as many GPUs are in one bucket: when one of them does not fit, none of the others does, and nobody looks
at them. So a plan costs time for the jobs that run, not for those that wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Hashable
from heapq import heapify, heappop, heapreplace

from gpuvirt.scheduler.order.base import Plan, Policy, Rank
from gpuvirt.scheduler.order.job import Job, Terms

Entry = tuple[Rank, int, Job]


class Queue:
    """All jobs that have arrived and not ended."""

    def __init__(self, terms: Terms, policy: Policy) -> None:
        self.terms = terms
        self.policy = policy
        self.running: dict[int, Job] = {}
        self.buckets: dict[Hashable, list[Entry]] = {}
        self.free = terms.gpus
        self.waiting = 0

    def wait(self, job: Job, now: float) -> None:
        """A job has arrived or was stopped."""
        insort(self.buckets.setdefault(self.policy.bucket(job), []), (self.policy.rank(job, now), job.number, job))
        self.waiting += 1

    def take(self, job: Job, now: float) -> None:
        """A waiting job gets its GPUs. Called before anything of the job changes."""
        entries = self.buckets[self.policy.bucket(job)]
        place = bisect_left(entries, (self.policy.rank(job, now), job.number))
        assert entries[place][2] is job, "the rank of a waiting job has changed"
        del entries[place]
        self.waiting -= 1
        self.running[job.number] = job
        self.free -= job.gpus

    def leave(self, job: Job) -> None:
        """A running job gives its GPUs back."""
        del self.running[job.number]
        self.free += job.gpus


def fill(queue: Queue, now: float, blocks: bool = False) -> Plan:
    """Free GPUs to those that wait, in order, each if it fits; `blocks`: nobody passes the first that does not."""
    free = queue.free
    plan = Plan()
    if not free:
        return plan
    heads = [(*entries[0], 0, entries) for entries in queue.buckets.values() if entries]
    heapify(heads)
    while heads and free:
        _, _, job, place, entries = heads[0]
        if job.gpus <= free:
            plan.start.append(job)
            free -= job.gpus
            _advance(heads, place + 1, entries)
        elif blocks:
            break
        else:
            heappop(heads)
    return plan


def deal(queue: Queue, now: float) -> Plan:
    """All GPUs dealt out anew, in order, to those that run and those that wait, each if it fits."""
    rank = queue.policy.rank
    free = queue.terms.gpus
    plan = Plan()
    holding = sorted((rank(job, now), job.number, job) for job in queue.running.values())
    heads = [(*entries[0], 0, entries) for entries in queue.buckets.values() if entries]
    if holding:
        heads.append((*holding[0], 0, holding))
    heapify(heads)
    while heads:
        _, _, job, place, entries = heads[0]
        if job.gpus <= free:
            free -= job.gpus
            if entries is not holding:
                plan.start.append(job)
            _advance(heads, place + 1, entries)
        elif entries is holding:
            plan.stop.append(job)
            _advance(heads, place + 1, entries)
        else:
            heappop(heads)
    return plan


def _advance(heads: list[tuple[Rank, int, Job, int, list[Entry]]], place: int, entries: list[Entry]) -> None:
    """The next of a list in place of the first of the heap."""
    if place < len(entries):
        heapreplace(heads, (*entries[place], place, entries))
    else:
        heappop(heads)
