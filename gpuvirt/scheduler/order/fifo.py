# SPDX-License-Identifier: Apache-2.0
"""fifo: in the order of arrival; the first that does not fit blocks all behind it."""

from __future__ import annotations

from collections.abc import Hashable

from gpuvirt.scheduler.order.base import Plan, Rank
from gpuvirt.scheduler.order.job import NEVER, Job, Terms
from gpuvirt.scheduler.order.queue import Queue, fill


class Arrival:
    """By arrival, nobody is preempted: what several policies have in common."""

    estimates = False
    preempts = False

    def __init__(self, terms: Terms) -> None:
        self.terms = terms

    def rank(self, job: Job, now: float) -> Rank:
        return (job.number,)

    def bucket(self, job: Job) -> Hashable:
        return job.gpus

    def changes_at(self, job: Job, now: float) -> float:
        return NEVER


class Fifo(Arrival):
    """Strictly in the order of arrival."""

    name = "fifo"
    summary = "in the order of arrival, nobody passes"

    def plan(self, queue: Queue, now: float) -> Plan:
        return fill(queue, now, blocks=True)
