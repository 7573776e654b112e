# SPDX-License-Identifier: Apache-2.0
"""las: Tiresias' dlas-gpu. Queues by attained GPU time; who has had little is served before who has had much.

As its authors ship it: three queues, inside a queue those that run first, then those that wait. Who comes down from the
queue above joins at the end, behind those that wait; who loses its GPUs goes in front of those that wait. All GPUs are
dealt out again at every arrival, end and change of queue.
(Gu et al., Tiresias: A GPU Cluster Manager for Distributed Deep Learning, NSDI 2019.)
"""

from __future__ import annotations

from typing import Final

from gpuvirt.scheduler.order.base import Plan, Rank
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.job import NEVER, TICK, Job
from gpuvirt.scheduler.order.queue import Queue, deal

LIMITS: Final = (3250.0, 7200.0)  # GPU s
SAME: Final = 1e-3  # s; a moment that was computed twice is the same moment
RUNS, WAITS = 0.0, 1.0


class Las(Arrival):
    """Least attained service, in three steps."""

    name = "las"
    summary = "least attained GPU time first, in three queues (dlas-gpu of Tiresias)"
    preempts = True

    def rank(self, job: Job, now: float) -> Rank:
        queue = level(job, now)
        if job.running:
            limit = LIMITS[queue - 1] / job.gpus if queue else 0.0
            joined = job.serves_until(limit) if limit > job.attained + SAME else job.changed
            if joined > job.changed and joined > now - SAME:
                return (queue, WAITS, joined, job.number)  # comes down now
            return (queue, RUNS, max(job.changed, joined), job.number)
        came_down = queue > 0 and abs(job.attained - LIMITS[queue - 1] / job.gpus) < SAME
        if came_down or not job.suspensions:
            return (queue, WAITS, job.changed, job.number)
        return (queue, WAITS, -job.changed, job.number)

    def changes_at(self, job: Job, now: float) -> float:
        queue = level(job, now)
        return NEVER if queue == len(LIMITS) else job.serves_until(LIMITS[queue] / job.gpus)

    def plan(self, queue: Queue, now: float) -> Plan:
        return deal(queue, now)


def level(job: Job, now: float) -> int:
    """Its queue, from 0."""
    service = job.service(now) + TICK * job.gpus
    return sum(service >= limit for limit in LIMITS)
