# SPDX-License-Identifier: Apache-2.0
"""Jobs that share one simulated GPU under a policy, for tests of policies."""

from __future__ import annotations

from functools import partial
from typing import Any

from simulation import Job, Simulation

from gpuvirt.arbitration.events import set_policy
from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Rules

MS = MILLISECOND
STANDING = ("tenant", "priority", "tier", "due_in")


class Sharing(Simulation):
    """Memory for all; whoever drains needs a tenth of a millisecond. A burst that is interrupted goes on later."""

    def __init__(self, policy: str, rules: Rules | None = None) -> None:
        super().__init__(1 << 40, 1e10, rules)
        self.gpu.policy = policy
        self.left: dict[str, int] = {}  # ns of the burst of a job

    def job(self, name: str, weight: int = 1, work: int = 0, thinks: int = 0, **standing: Any) -> Job:
        """A job that always has work, or bursts of `work` ns with `thinks` ns between them."""
        assert set(standing) <= set(STANDING)
        return self.add(name, 0, weight=weight, standing=standing, work=work, thinks=thinks)

    def change(self, policy: str) -> None:
        """Another policy, from now on."""
        set_policy(self.gpu, policy, self.now)
        self._decide()

    def shares(self, seconds: float) -> dict[str, float]:
        """Part of the next `seconds` that each job has the GPU."""
        before = {name: self.busy(job) for name, job in self.jobs.items()}
        self.run(seconds)
        return {name: (self.busy(job) - before[name]) / (seconds * SECOND) for name, job in self.jobs.items()}

    def longest_wait(self, name: str, seconds: float, step: float = 0.01) -> float:
        """The longest time (seconds) of the next `seconds` without the GPU of a job that always wants it."""
        longest = since = 0.0
        had = self.busy(self.jobs[name])
        for at in range(1, round(seconds / step) + 1):
            self.run(step)
            if self.busy(self.jobs[name]) > had:
                had, since = self.busy(self.jobs[name]), at * step
            longest = max(longest, at * step - since)
        return longest

    def _want(self, job: Job) -> None:
        if not job.works:
            self.left[job.name] = job.work
        super()._want(job)

    def _work(self, job: Job) -> None:
        if job.work:
            self._at(self.left[job.name], partial(self._finish, job, job.turns))

    def _drained(self, job: Job, epoch: int) -> None:
        if job.running_since is not None:
            self.left[job.name] = max(1, self.left[job.name] - (self.now - job.running_since))
        super()._drained(job, epoch)
