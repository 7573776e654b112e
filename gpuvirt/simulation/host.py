# SPDX-License-Identifier: Apache-2.0
"""A simulated host: its GPUs, the jobs that come and go, and the run."""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirt.arbitration.facts import Gpu
from gpuvirt.arbitration.policies import POLICIES
from gpuvirt.errors import ConfigError
from gpuvirt.simulation.agenda import Agenda
from gpuvirt.simulation.arbiter import Arbiter, Bare
from gpuvirt.simulation.measures import Span, Timeline
from gpuvirt.simulation.scenario import Job, Scenario
from gpuvirt.units import format_size

BARE = "bare"  # in place of a policy: time slicing of the hardware, and no arbiter


@dataclass(frozen=True, slots=True)
class Run:
    """What happened. begin: when counting began; end: of the run."""

    scenario: Scenario
    arbiters: tuple[Arbiter, ...]
    spans: tuple[Span, ...]
    begin: int
    end: int


class Host:
    """All of a scenario, from its start."""

    def __init__(self, scenario: Scenario) -> None:
        if scenario.policy == BARE:
            _check_fits(scenario)
        self.scenario = scenario
        self.agenda = Agenda()
        self.start = self.agenda.now
        self.timeline = Timeline()
        kind = Bare if scenario.policy == BARE else Arbiter
        self.arbiters = [
            kind(self.agenda, scenario, index, make_gpu(scenario, index), self.timeline)
            for index in range(scenario.gpus.count)
        ]
        for number, job in enumerate(scenario.jobs, 1):
            self._plan(number, job)
        self._look_at(self.start + scenario.warmup)

    def _plan(self, number: int, job: Job) -> None:
        arbiter = self.arbiters[job.gpu]
        self.agenda.after(job.start, lambda: arbiter.attach(job, number))
        if job.stop is not None:
            self.agenda.after(job.stop, lambda: arbiter.end(number))

    def _look_at(self, when: int) -> None:
        """What all have computed is counted when the warmup is over, and at the end of each window of the report."""

        def look() -> None:
            for arbiter in self.arbiters:
                arbiter.look()
            self._look_at(when + self.scenario.report)

        self.agenda.at(when, look)

    def run(self, duration: int | None = None) -> None:
        """On for so long (ns); None: to the end of the scenario."""
        end = self.start + self.scenario.duration if duration is None else self.agenda.now + duration
        self.agenda.run(end)

    def result(self) -> Run:
        """What happened until now."""
        now, begin = self.agenda.now, self.start + self.scenario.warmup
        for arbiter in self.arbiters:
            arbiter.look()
            arbiter.tally.wanted.until(now)
            for number, memory in arbiter.memories.items():
                tally = arbiter.tallies[arbiter.names[number]]
                tally.wanted.until(now)
                tally.held.until(now)
                tally.out, tally.copied, tally.inward = memory.out, memory.copied_out, memory.inward
        self.timeline.close(now)
        return Run(self.scenario, tuple(self.arbiters), tuple(self.timeline.spans), begin, now)


def make_gpu(scenario: Scenario, index: int) -> Gpu:
    """The facts of one GPU before anybody came. Raises ConfigError for a policy that does not exist."""
    if scenario.policy not in (*POLICIES, BARE):
        raise ConfigError(f"there is no policy '{scenario.policy}'", f"known: {', '.join([*POLICIES, BARE])}")
    gpu = Gpu(f"gpu{index}", scenario.gpus.memory, scenario.rules)
    if scenario.policy != BARE:
        gpu.policy = scenario.policy
    return gpu


def _check_fits(scenario: Scenario) -> None:
    """Without an arbiter nothing is swapped."""
    for index in range(scenario.gpus.count):
        needed = sum(job.memory for job in scenario.jobs if job.gpu == index)
        if needed > scenario.gpus.memory:
            raise ConfigError(
                f"the jobs of GPU {index} need {format_size(needed)}, it has {format_size(scenario.gpus.memory)}, and "
                f"without an arbiter nothing is swapped",
                "give it more memory, or leave 'bare' out",
            )
