# SPDX-License-Identifier: Apache-2.0
"""GPU time of a job while nobody else wants the GPU:

What its processes say they were busy, never more than the time passed.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirtd.jobs import Job


@dataclass(slots=True)
class AloneTime:
    """One job on one GPU. Nanoseconds."""

    total: int = 0
    since: int | None = None  # the word is OPEN since then
    busy_before: int = 0

    def begin(self, job: Job, now: int) -> None:
        """The word became OPEN."""
        self.since, self.busy_before = now, busy(job, now)

    def end(self, job: Job, now: int) -> None:
        """The word is OPEN no more."""
        self.total = self.until(job, now)
        self.since = None

    def until(self, job: Job, now: int) -> int:
        """The total at `now`."""
        if self.since is None:
            return self.total
        return self.total + max(0, min(busy(job, now) - self.busy_before, now - self.since))


def busy(job: Job, now: int) -> int:
    """Busy time of all processes of a job so far, with what each one is busy with at this moment."""
    return job.totals["busy_ns"] + sum(member.busy(now) for member in job.members.values())
