# SPDX-License-Identifier: Apache-2.0
"""Several jobs on one GPU over simulated hours: what switching costs, and whom it costs."""

from __future__ import annotations

import itertools

import pytest
from simulation import Simulation

from gpuvirt.arbitration.facts import SECOND, Rules

GIB = 1 << 30
RATE = 10.0 * GIB


def lost_share(simulation: Simulation, seconds: float) -> float:
    """Part of the next `seconds` in which nobody has the GPU."""
    before = {name: job.busy for name, job in simulation.jobs.items()}
    began = simulation.now
    simulation.run(seconds)
    ran = sum(job.busy - before[name] for name, job in simulation.jobs.items())
    return 1 - ran / (simulation.now - began)


@pytest.mark.parametrize(("jobs", "oversubscribed"), [(2, 1.5), (4, 2.0), (8, 4.0)])
@pytest.mark.parametrize("share", [0.05, 0.2])
def test_moving_takes_at_most_its_share_of_the_time(jobs: int, oversubscribed: float, share: float) -> None:
    simulation = Simulation(80 * GIB, RATE, Rules(swap_share=share, quantum_max=3600 * SECOND))
    for n in range(jobs):
        simulation.add(f"j{n}", int(80 * GIB * oversubscribed / jobs))
    simulation.run(600)
    assert lost_share(simulation, 3000) <= share * 1.02
    turns = [job.turns for job in simulation.jobs.values()]
    assert min(turns) >= 3  # nobody starves
    held = [job.busy for job in simulation.jobs.values()]
    assert max(held) <= 1.35 * min(held)


def test_only_what_is_missing_moves() -> None:
    """Two jobs of 50 GiB on 80 GiB: 20 GiB leave at a switch, not 50."""
    simulation = Simulation(80 * GIB, RATE)
    first, second = simulation.add("a", 50 * GIB), simulation.add("b", 50 * GIB)
    simulation.run(600)
    switches = first.turns + second.turns
    out = (first.memory.out + second.memory.out) / GIB
    assert switches > 4
    assert out / switches <= 22


def test_the_quantum_shrinks_again_when_moving_gets_cheap() -> None:
    simulation = Simulation(80 * GIB, RATE, Rules(quantum_max=600 * SECOND))
    jobs = [simulation.add(name, 60 * GIB) for name in "ab"]
    simulation.run(600)
    slow = jobs[0].quanta[-1]
    simulation.arbiter.link.rate = 10 * RATE
    simulation.run(1200)
    fast = jobs[0].quanta[-1]
    assert slow > 4 * fast
    falling = jobs[0].quanta[jobs[0].quanta.index(slow) :]
    assert all(after >= 0.7 * before for before, after in itertools.pairwise(falling))  # no jumps
    for job in jobs:
        job.memory.dirty = 0.0
    simulation.arbiter.link.rate = 1000 * RATE
    simulation.run(120)
    assert jobs[0].quanta[-1] < SECOND // 4


def test_weights_hold_while_memory_moves() -> None:
    simulation = Simulation(80 * GIB, RATE)
    light, heavy = simulation.add("light", 60 * GIB), simulation.add("heavy", 60 * GIB, weight=3)
    simulation.run(3600)
    assert heavy.busy / light.busy == pytest.approx(3, rel=0.1)


def test_who_is_idle_gives_way_and_the_one_beyond_its_soft_limit_first() -> None:
    simulation = Simulation(80 * GIB, RATE)
    work = {"work": "5s", "think": "100h"}  # once
    idle, greedy = simulation.add("idle", 30 * GIB, **work), simulation.add("greedy", 30 * GIB, soft=5 * GIB, **work)
    simulation.run(60)
    simulation.add("busy", 40 * GIB)
    simulation.run(60)
    assert idle.memory.out == 0
    assert 20 * GIB <= greedy.memory.out <= 21 * GIB


def test_clean_memory_goes_before_dirty_memory() -> None:
    """Jobs that are idle for as long on average: after the first switches it is known whose memory costs nothing."""
    simulation = Simulation(100 * GIB, RATE)
    pause = {"work": "1s", "think": {"exponential": "60s"}}
    dirty = simulation.add("dirty", 40 * GIB, dirty=1.0, **pause)
    clean = simulation.add("clean", 40 * GIB, dirty=0.05, **pause)
    simulation.add("third", 60 * GIB, **pause)
    simulation.run(600)
    before = (dirty.memory.out, clean.memory.out)
    simulation.run(3600)
    assert clean.memory.out - before[1] > dirty.memory.out - before[0]


def test_no_thrash_among_jobs_that_pause_often() -> None:
    """Each works for 50 ms and thinks for 20: moving 30 GiB for every burst would leave nothing for work."""
    simulation = Simulation(80 * GIB, RATE)
    for n in range(3):
        simulation.add(f"j{n}", 40 * GIB, work="50ms", think="20ms")
    simulation.run(60)
    moved = sum(job.memory.inward for job in simulation.jobs.values())
    simulation.run(240)
    bursts = sum(job.busy for job in simulation.jobs.values()) / 50_000_000
    moved = sum(job.memory.inward for job in simulation.jobs.values()) - moved
    assert moved / bursts < 2 * GIB
    assert min(job.turns for job in simulation.jobs.values()) > 5
