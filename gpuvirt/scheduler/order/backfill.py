# SPDX-License-Identifier: Apache-2.0
"""backfill: in the order of arrival; the first that does not fit has a reservation that nobody who passes may delay.

EASY backfilling: the reservation is for the moment at which enough GPUs will be free. Others may start before it if
they end before it, or on GPUs that it leaves over. Run times are known exactly here, so that this is the best case.
(Lifka, The ANL/IBM SP Scheduling System, JSSPP 1995.)
"""

from __future__ import annotations

from heapq import merge

from gpuvirt.scheduler.order.base import Plan
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.job import NEVER, TICK, Job
from gpuvirt.scheduler.order.queue import Queue, fill


class Backfill(Arrival):
    """First come, first served, with backfilling behind one reservation."""

    name = "backfill"
    summary = "in the order of arrival, others pass if they delay nobody's turn (EASY, knows run times)"
    estimates = True

    def plan(self, queue: Queue, now: float) -> Plan:
        plan = fill(queue, now, blocks=True)
        free = queue.free - sum(job.gpus for job in plan.start)
        if not free or len(plan.start) == queue.waiting:
            return plan
        waiting = merge(*queue.buckets.values())
        for _ in plan.start:
            next(waiting)
        first = next(waiting)[2]
        reserved, spare = reservation(first, [*queue.running.values(), *plan.start], free, now)
        lists = [entries for entries in queue.buckets.values() if entries and entries[0][2].gpus <= free]
        for _, number, job in merge(*lists):
            if number <= first.number or job.gpus > free:
                continue
            in_time = now + job.remaining(now) <= reserved + TICK
            if in_time or job.gpus <= spare:
                plan.start.append(job)
                free -= job.gpus
                if not in_time:
                    spare -= job.gpus
                if not free:
                    break
        return plan


def reservation(first: Job, holders: list[Job], free: int, now: float) -> tuple[float, int]:
    """When `first` can start at the latest, and how many GPUs are free then besides its own."""
    for job in sorted(holders, key=lambda job: (_end(job, now), job.number)):
        free += job.gpus
        if free >= first.gpus:
            end = _end(job, now)
            also = sum(o.gpus for o in holders if _end(o, now) == end and o.number > job.number)
            return end, free + also - first.gpus
    return NEVER, 0


def _end(job: Job, now: float) -> float:
    return job.serves_until(job.work) if job.running else now + job.work
