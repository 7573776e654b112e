# SPDX-License-Identifier: Apache-2.0
"""Jobs that share one simulated GPU under a policy, for tests of policies."""

from __future__ import annotations

from typing import Any

from simulation import HOURS, Running, Simulation

from gpuvirt.arbitration.events import set_policy
from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Rules

MS = MILLISECOND


class Sharing(Simulation):
    """Memory for all; whoever drains needs a tenth of a millisecond. A burst that is interrupted goes on later."""

    def __init__(self, policy: str, rules: Rules | None = None) -> None:
        super().__init__(1 << 40, 1e10, rules, policy)

    def job(
        self, name: str, weight: int = 1, work: int = 0, thinks: int = 0, due_in: int = 0, **standing: Any
    ) -> Running:
        """A job that always has work, or bursts of `work` ns with `thinks` ns between them."""
        burst = {"work": f"{work}ns", "think": f"{thinks}ns"} if work else {"work": HOURS}
        return self.add(name, 0, weight=weight, deadline=f"{due_in}ns" if due_in else "", **burst, **standing)

    def busy(self, job: Running) -> int:
        """Time that it had the GPU, up to now (ns)."""
        return job.busy

    def change(self, policy: str) -> None:
        """Another policy, from now on."""
        set_policy(self.gpu, policy, self.now)
        self.arbiter.turn()

    def shares(self, seconds: float) -> dict[str, float]:
        """Part of the next `seconds` that each job has the GPU."""
        before = {name: job.busy for name, job in self.jobs.items()}
        self.run(seconds)
        return {name: (job.busy - before[name]) / (seconds * SECOND) for name, job in self.jobs.items()}

    def longest_wait(self, name: str, seconds: float, step: float = 0.01) -> float:
        """The longest time (seconds) of the next `seconds` without the GPU of a job that always wants it."""
        longest = since = 0.0
        had = self.jobs[name].busy
        for at in range(1, round(seconds / step) + 1):
            self.run(step)
            if self.jobs[name].busy > had:
                had, since = self.jobs[name].busy, at * step
            longest = max(longest, at * step - since)
        return longest
