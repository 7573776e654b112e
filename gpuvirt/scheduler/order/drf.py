# SPDX-License-Identifier: Apache-2.0
"""drf: the tenant with the smallest dominant share is next, with its first job that fits; nobody is preempted.

GPUs are the only resource that these traces name, so they are everybody's dominant one.
(Ghodsi et al., Dominant Resource Fairness, NSDI 2011.)
"""

from __future__ import annotations

from collections.abc import Hashable

from gpuvirt.scheduler.order.base import Plan
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.job import Job
from gpuvirt.scheduler.order.queue import Entry, Queue


class Drf(Arrival):
    """Dominant resource fairness between tenants."""

    name = "drf"
    summary = "the tenant that has least first (dominant resource fairness)"

    def bucket(self, job: Job) -> Hashable:
        return (job.tenant, job.gpus)

    def plan(self, queue: Queue, now: float) -> Plan:
        plan = Plan()
        free = queue.free
        if not free or not queue.waiting:
            return plan
        has: dict[str, int] = {}
        for job in queue.running.values():
            has[job.tenant] = has.get(job.tenant, 0) + job.gpus
        buckets = [entries for entries in queue.buckets.values() if entries]
        places = [0] * len(buckets)
        while True:
            fits = [
                (has.get(head.tenant, 0), head.number, which)
                for which, entries in enumerate(buckets)
                if (head := _head(entries, places[which])) is not None and head.gpus <= free
            ]
            if not fits:
                return plan
            _, _, which = min(fits)
            job = buckets[which][places[which]][2]
            places[which] += 1
            plan.start.append(job)
            free -= job.gpus
            has[job.tenant] = has.get(job.tenant, 0) + job.gpus


def _head(entries: list[Entry], place: int) -> Job | None:
    return entries[place][2] if place < len(entries) else None
