# SPDX-License-Identifier: Apache-2.0
"""What an order of the queue is: which jobs have GPUs, from what is known of them and the time alone."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gpuvirt.scheduler.order.job import Job
    from gpuvirt.scheduler.order.queue import Queue

Rank = tuple[float, ...]  # of one policy all ranks have the same shape


@dataclass(slots=True)
class Plan:
    """What is to change. All of it happens at once."""

    start: list[Job] = field(default_factory=list)
    stop: list[Job] = field(default_factory=list)


class Policy(Protocol):
    """An order of the queue. It has no state: equal facts give equal plans."""

    name: str  # as the command line knows it
    summary: str  # one line, for people
    estimates: bool  # it looks at how long a job will run
    preempts: bool

    def rank(self, job: Job, now: float) -> Rank:
        """Its place: the smallest is first. That of a waiting job changes only when it starts and stops."""

    def bucket(self, job: Job) -> Hashable:
        """Waiting jobs of equal buckets have equal prospects but for their rank, and equal numbers of GPUs."""

    def changes_at(self, job: Job, now: float) -> float:
        """When the rank of this running job changes without anything else happening; NEVER: not before it stops."""

    def plan(self, queue: Queue, now: float) -> Plan:
        """Who starts, who stops."""
