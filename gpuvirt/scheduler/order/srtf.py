# SPDX-License-Identifier: Apache-2.0
"""srtf and srtf-gpu: what needs the least until its end goes first, and preempts. Oracles: they know the run times."""

from __future__ import annotations

from gpuvirt.scheduler.order.base import Plan, Rank
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.job import Job
from gpuvirt.scheduler.order.queue import Queue, deal


class Srtf(Arrival):
    """Shortest remaining time first."""

    name = "srtf"
    summary = "shortest remaining time first (oracle)"
    estimates = True
    preempts = True

    def rank(self, job: Job, now: float) -> Rank:
        return (job.remaining(now), job.number)

    def plan(self, queue: Queue, now: float) -> Plan:
        return deal(queue, now)


class SrtfGpu(Srtf):
    """Shortest remaining GPU time first."""

    name = "srtf-gpu"
    summary = "shortest remaining GPU time first (oracle)"

    def rank(self, job: Job, now: float) -> Rank:
        return (job.gpus * job.remaining(now), job.number)
