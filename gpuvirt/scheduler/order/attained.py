# SPDX-License-Identifier: Apache-2.0
"""attained: the default. Nothing is known of run times; who has had little GPU time goes before who has had much.

Three levels by attained GPU time: below an hour, below four, above. In a level those that run keep their GPUs, so that
two long jobs never take them from each other. Of those that wait in a level, what was suspended last comes back first,
then what never ran, in the order of arrival. That is what the order of Tiresias lacks: last in, first out keeps few
long jobs unfinished at a time. First in, first out has all of them wait for each other, the more the fuller the fleet
is. The price is a long wait for a few, as under shortest remaining time first. (docs/decisions/0034)
"""

from __future__ import annotations

from typing import Final

from gpuvirt.scheduler.order.base import Plan, Rank
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.job import NEVER, TICK, Job
from gpuvirt.scheduler.order.queue import Queue, deal

LEVELS: Final = (3600.0, 14400.0)  # GPU s
HOLDS, BACK, NEW = 0.0, 1.0, 2.0


class Attained(Arrival):
    """Least attained GPU time in levels; in a level, last suspended first."""

    name = "attained"
    summary = "least attained GPU time first, last suspended first (the default)"
    preempts = True

    def rank(self, job: Job, now: float) -> Rank:
        reached = level(job, now)
        if job.running:
            return (reached, HOLDS, 0.0, job.number)
        if job.suspensions:
            return (reached, BACK, -job.changed, job.number)
        return (reached, NEW, 0.0, job.number)

    def changes_at(self, job: Job, now: float) -> float:
        reached = level(job, now)
        return NEVER if reached == len(LEVELS) else job.serves_until(LEVELS[reached] / job.gpus)

    def plan(self, queue: Queue, now: float) -> Plan:
        return deal(queue, now)


def level(job: Job, now: float) -> int:
    """Its level, from 0."""
    service = job.service(now) + TICK * job.gpus
    return sum(service >= limit for limit in LEVELS)
