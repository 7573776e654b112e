# SPDX-License-Identifier: Apache-2.0
"""What is foretold of a waiting job against what then happens, on simulated clocks and by the real decisions."""

from __future__ import annotations

import copy

import pytest
from scene import MS, Scene
from simulation import Simulation

from gpuvirt.arbitration.facts import SECOND, Rules, Word
from gpuvirt.arbitration.forecast import forecast, typical_turn

GIB = 1 << 30
DRAIN = MS // 10  # as the simulation has it


def waiting(simulation: Simulation) -> list[str]:
    """Jobs that wait for a turn."""
    return [key for key, one in simulation.arbiter.gpu.contenders.items() if one.waiting and not one.may_launch]


def told(simulation: Simulation, key: str, pauses: dict[str, int] | None = None, whole: bool = False) -> int | None:
    drains = sorted(drain for job in simulation.jobs.values() for drain in job.tally.drains)
    drain = drains[len(drains) // 2]
    return forecast(simulation.arbiter.gpu, key, simulation.now, drain, pauses, whole).wait_ns


def granted(simulation: Simulation, job: str, limit: int) -> int | None:
    """How long it takes from now until the job may launch (ns)."""
    began, turns = simulation.now, simulation.jobs[job].turns
    while simulation.now - began < limit:
        simulation.run(0.0005)
        if simulation.jobs[job].turns > turns:
            return simulation.now - began
    return None


@pytest.mark.parametrize("jobs", [2, 4, 8])
def test_jobs_that_always_have_work(jobs: int) -> None:
    simulation = Simulation(80 * GIB, 10.0 * GIB)
    for n in range(jobs):
        simulation.add(f"j{n}", 0, weight=1 + n % 2)
    simulation.run(10)
    errors = []
    for _ in range(12):
        simulation.run(0.0137)
        for key in waiting(simulation)[:1]:
            wait, took = told(simulation, key), granted(simulation, key, 2 * SECOND)
            assert wait is not None and took is not None
            errors.append(abs(took - wait))
    # Who of two that have had nearly the same comes first, a message that is late decides.
    assert len(errors) >= 6 and sorted(errors)[len(errors) // 2] <= 3 * MS and max(errors) <= 45 * MS


def test_short_turns_are_learned() -> None:
    simulation = Simulation(80 * GIB, 10.0 * GIB)
    simulation.add("long", 0)
    for n in range(3):
        simulation.add(f"short{n}", 0, work="2ms", think="1ms")
    simulation.run(20)
    assert typical_turn(simulation.arbiter.gpu.contenders["short0"]) == pytest.approx(2 * MS, rel=0.5)
    errors, pauses = [], {f"short{n}": MS for n in range(3)}
    for _ in range(10):
        simulation.run(0.0171)
        for key in waiting(simulation)[:1]:
            wait, most = (told(simulation, key, pauses, whole) for whole in (False, True))
            assert wait is not None and most is not None and wait <= most
            took = granted(simulation, key, 2 * SECOND)
            assert took is not None
            errors.append(abs(took - wait))
    assert errors and sorted(errors)[len(errors) // 2] <= 5 * MS


def test_memory_that_must_move() -> None:
    simulation = Simulation(80 * GIB, 10.0 * GIB, Rules(quantum_max=4 * SECOND))
    for name in "abc":
        simulation.add(name, 50 * GIB)
    simulation.run(100)
    while not (simulation.arbiter.gpu.holder and waiting(simulation)):
        simulation.run(0.1)
    waits = {key: told(simulation, key) for key in waiting(simulation)}
    first = min(waits, key=lambda key: waits[key] or 0)
    wait = waits[first]
    assert wait is not None
    assert granted(simulation, first, 60 * SECOND) == pytest.approx(wait, rel=0.35, abs=100 * MS)


def test_places_are_in_the_order_of_the_policy() -> None:
    scene = Scene()
    scene.run("a")
    others = {name: scene.attach(name) for name in "bcd"}
    for name in "bcd":
        scene.later(MS)
        scene.want(others[name])
    assert [forecast(scene.gpu, name, scene.now, DRAIN).ahead for name in "bcd"] == [(), ("b",), ("b", "c")]
    assert forecast(scene.gpu, "a", scene.now, DRAIN).wait_ns == 0, "it has it"
    assert forecast(scene.gpu, "unknown", scene.now, DRAIN).wait_ns == 0


def test_the_facts_stay_as_they_are() -> None:
    scene = Scene()
    scene.run("a", charged=60)
    scene.want(scene.attach("b"), charged=60)
    before = copy.deepcopy(scene.gpu)
    told = forecast(scene.gpu, "b", scene.now, DRAIN)
    assert told.wait_ns is not None and told.wait_ns >= 20 * MS
    assert scene.gpu == before


def test_what_does_not_answer_will_not() -> None:
    scene = Scene()
    number = scene.run("a")
    scene.want(scene.attach("b"))
    scene.later_at_wake()  # the quantum is over
    assert scene.gpu.contenders["a"].word is Word.DRAIN
    assert forecast(scene.gpu, "b", scene.now, DRAIN).wait_ns == DRAIN
    scene.later(10 * SECOND)  # and it does not drain
    assert forecast(scene.gpu, "b", scene.now, DRAIN).wait_ns is None
    scene.drained(number)
    assert forecast(scene.gpu, "b", scene.now, DRAIN).wait_ns == 0


def test_a_process_that_has_lost_its_connection_is_not_waited_for() -> None:
    scene = Scene()
    number = scene.run("a", charged=60)
    other = scene.attach("b")
    scene.want(other, charged=60)
    scene.gpu.contenders["a"].clients[number].connected = False
    assert forecast(scene.gpu, "b", scene.now, DRAIN).wait_ns is None
