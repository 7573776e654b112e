# SPDX-License-Identifier: Apache-2.0
"""A job of the queue, as a policy sees it, and what is known of the fleet. Times are seconds on one clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

NEVER: Final = float("inf")
TICK: Final = 1e-6  # s; what is nearer than this is the same moment


@dataclass(slots=True, eq=False)
class Job:
    """A gang that wants `gpus` GPUs at once, until it has run for `work` seconds."""

    number: int  # place in the order of arrival
    arrival: float
    gpus: int
    work: float  # only policies with estimates may look at it, and at remaining()
    tenant: str = ""
    running: bool = False  # it has GPUs; it makes progress from `begins` on
    attained: float = 0.0  # s of progress before `begins`
    begins: float = 0.0  # s; of the present run, after what suspending others and resuming it took
    changed: float = 0.0  # when it got or lost its GPUs, or arrived
    suspensions: int = 0
    started: float | None = None  # when it first had its GPUs
    ended: float | None = None
    run: int = field(default=0, repr=False)  # counts starts and stops: what was foreseen for another one is void

    def served(self, now: float) -> float:
        """Seconds of progress until now."""
        return self.attained + max(0.0, now - self.begins) if self.running else self.attained

    def service(self, now: float) -> float:
        """GPU seconds of progress until now."""
        return self.gpus * self.served(now)

    def remaining(self, now: float) -> float:
        """Seconds of progress that it still needs: an oracle's knowledge."""
        return self.work - self.served(now)

    def serves_until(self, served: float) -> float:
        """The moment at which a running job will have been served for so long."""
        return self.begins + max(0.0, served - self.attained)


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all jobs."""

    gpus: int  # of the fleet
    suspend: float = 0.0  # s for which GPUs are busy with taking a job off them
    resume: float = 0.0  # s for which GPUs are busy with putting a suspended job back

    @property
    def price(self) -> float:
        """Seconds that a preemption takes of each GPU of the victim."""
        return self.suspend + self.resume
