# SPDX-License-Identifier: Apache-2.0
"""One GPU of the simulated host (gpuvirt.simulation) for tests that add jobs and change the link as they go."""

from __future__ import annotations

from dataclasses import replace

from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Gpu, Rules
from gpuvirt.simulation.host import Host
from gpuvirt.simulation.measures import Tally
from gpuvirt.simulation.scenario import Job, Scenario, read
from gpuvirt.simulation.swapping import Memory
from gpuvirt.simulation.worker import Worker

HOURS = "1000h"


def scenario(*tables: dict[str, object]) -> Scenario:
    return read({"duration": HOURS, "report": "1h", "job": list(tables)}, "test")


class Running:
    """One job that is there."""

    def __init__(self, simulation: Simulation, job: Job, number: int) -> None:
        self.simulation, self.name, self.job = simulation, job.name, job
        self.memory: Memory = simulation.arbiter.memories[number]
        self.worker: Worker = simulation.arbiter.workers[number]

    @property
    def tally(self) -> Tally:
        return self.simulation.arbiter.tallies[self.name]

    @property
    def busy(self) -> int:
        """Time that it had the GPU, up to now (ns)."""
        self.tally.held.until(self.simulation.now)
        return self.tally.held.total

    @property
    def turns(self) -> int:
        return self.tally.turns

    @property
    def quanta(self) -> list[int]:
        return self.tally.quanta


class Simulation:
    """rate: bytes/s of each direction of the link. Messages take no time, drains a tenth of a millisecond."""

    def __init__(self, capacity: int, rate: float, rules: Rules | None = None, policy: str = "fair") -> None:
        base = replace(scenario({"name": "nobody", "work": "1s"}), policy=policy)
        costs = replace(base.costs, message=0, wake=0, timer=0, launch=0, residue=MILLISECOND // 10)
        gpus = replace(base.gpus, memory=capacity, granularity=1 << 20)
        self.host = Host(replace(base, jobs=(), gpus=gpus, costs=costs, rules=rules or Rules()))
        self.arbiter = self.host.arbiters[0]
        self.arbiter.link.rate = rate
        self.jobs: dict[str, Running] = {}

    @property
    def gpu(self) -> Gpu:
        return self.arbiter.gpu

    @property
    def now(self) -> int:
        return self.host.agenda.now

    def add(
        self, name: str, size: int, weight: int = 1, soft: int | None = None, tier: str = "", **keys: object
    ) -> Running:
        """A job that always has work, or `work` now and then, and `think`s in between. Other keys as in scenarios."""
        table = {"name": name, "memory": str(size), "weight": weight, "work": HOURS, **keys}
        job: Job = replace(scenario(table).jobs[0], soft=soft, tier=tier)  # a tier of `rules`
        number = len(self.jobs) + 1
        self.arbiter.attach(job, number)
        self.jobs[name] = Running(self, job, number)
        return self.jobs[name]

    def run(self, seconds: float) -> None:
        """Until so much later."""
        self.host.run(int(seconds * SECOND))
