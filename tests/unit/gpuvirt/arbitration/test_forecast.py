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
    checked = 0
    for _ in range(12):
        simulation.run(0.0137)
        waiting = [key for key, one in simulation.gpu.contenders.items() if one.waiting and not one.may_launch]
        for key in waiting[:1]:
            told = forecast(simulation.gpu, key, simulation.now, DRAIN)
            assert told.wait_ns is not None
            took = granted(simulation, key, 2 * SECOND)
            assert took == pytest.approx(told.wait_ns, abs=2 * MS)
            checked += 1
    assert checked >= 6


def test_short_turns_are_learned() -> None:
    simulation = Simulation(80 * GIB, 10.0 * GIB)
    simulation.add("long", 0)
    for n in range(3):
        simulation.add(f"short{n}", 0, work=2 * MS, thinks=MS)
    simulation.run(20)
    assert typical_turn(simulation.gpu.contenders["long"]) is None or simulation.gpu.contenders["long"].open_ns
    assert typical_turn(simulation.gpu.contenders["short0"]) == pytest.approx(2 * MS, rel=0.3)
    errors = []
    for _ in range(10):
        simulation.run(0.0171)
        key = next((k for k, one in simulation.gpu.contenders.items() if one.waiting and not one.may_launch), None)
        if key is not None:
            told = forecast(simulation.gpu, key, simulation.now, DRAIN)
            whole = forecast(simulation.gpu, key, simulation.now, DRAIN, whole=True)
            assert told.wait_ns is not None and whole.wait_ns is not None and told.wait_ns <= whole.wait_ns
            took = granted(simulation, key, 2 * SECOND)
            assert took is not None
            errors.append(abs(took - told.wait_ns))
    assert errors and sorted(errors)[len(errors) // 2] <= 5 * MS


def test_memory_that_must_move() -> None:
    simulation = Simulation(80 * GIB, 10.0 * GIB, Rules(quantum_max=4 * SECOND))
    for name in "abc":
        simulation.add(name, 50 * GIB)
    simulation.run(100)
    simulation.run(0.7)
    waiting = [key for key, one in simulation.gpu.contenders.items() if one.waiting and not one.may_launch]
    told = {key: forecast(simulation.gpu, key, simulation.now, DRAIN) for key in waiting}
    first = min(told, key=lambda key: told[key].wait_ns or 0)
    wait = told[first].wait_ns
    assert wait is not None
    took = granted(simulation, first, 60 * SECOND)
    assert took == pytest.approx(wait, rel=0.35, abs=100 * MS)


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
