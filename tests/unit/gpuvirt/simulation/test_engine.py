# SPDX-License-Identifier: Apache-2.0
"""The simulated GPU: kernels in order, slices in a circle, nothing lost and nothing twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvirt.simulation.agenda import Agenda
from gpuvirt.simulation.engine import Engine

SLICE, SWITCH = 1000, 50


class Process:
    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.ends: list[int] = []

    def completed(self) -> None:
        self.ends.append(self.agenda.now)


def machine(count: int) -> tuple[Agenda, Engine, list[Process]]:
    agenda = Agenda(0)
    return agenda, Engine(agenda, SLICE, SWITCH), [Process(agenda) for _ in range(count)]


def test_kernels_of_a_process_follow_each_other() -> None:
    agenda, engine, (one,) = machine(1)
    for length in (300, 2500, 1):
        engine.submit(one, length)
    agenda.run(1000)
    assert engine.computed(one) == 1000
    agenda.run(10_000)
    assert one.ends == [300, 2800, 2801]
    assert engine.computed(one) == 2801 and engine.queued(one) == 0


def test_two_take_slices_and_pay_for_the_switch() -> None:
    agenda, engine, (one, two) = machine(2)
    engine.submit(one, 2000)
    engine.submit(two, 1500)
    agenda.run(100_000)
    # one 0-1000, two 1050-2050, one 2100-3100, two 3150-3650
    assert (one.ends, two.ends) == ([3100], [3650])
    assert (engine.computed(one), engine.computed(two)) == (2000, 1500)


def test_a_long_kernel_alone_is_interrupted_when_somebody_comes() -> None:
    agenda, engine, (one, two) = machine(2)
    engine.submit(one, 10_000)
    agenda.run(2300)
    engine.submit(two, 100)
    agenda.run(100_000)
    assert two.ends == [3000 + SWITCH + 100]  # at the end of the third slice
    assert one.ends == [10_000 + 100 + 2 * SWITCH]


def test_work_that_can_end_anywhere_does() -> None:
    agenda, engine, (one,) = machine(1)
    engine.submit(one, 1_000_000)
    agenda.run(400)
    assert engine.cut(one, 100) == 1_000_000 - 400 - 100
    agenda.run(5000)
    assert one.ends == [500]
    assert engine.cut(one, 100) == 0


def test_who_dies_takes_its_work_along() -> None:
    agenda, engine, (one, two) = machine(2)
    engine.submit(one, 5000)
    engine.submit(two, 700)
    agenda.run(200)
    engine.remove(one)
    agenda.run(5000)
    assert (one.ends, two.ends) == ([], [200 + SWITCH + 700])
    assert engine.computed(one) == 200


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5000), st.integers(1, 4000)), min_size=1, max_size=30))
def test_nothing_is_lost(work: list[tuple[int, int, int]]) -> None:
    """Each kernel ends once, in the order of its process; what was computed is what was given; never two at a time."""
    agenda, engine, processes = machine(3)
    given_ns, asked = [0, 0, 0], [0, 0, 0]
    for who, after, length in work:

        def submit(who: int = who, length: int = length) -> None:
            engine.submit(processes[who], length)

        agenda.at(after, submit)
        given_ns[who] += length
        asked[who] += 1
    agenda.run(10_000_000)
    assert [len(process.ends) for process in processes] == asked
    assert [engine.computed(process) for process in processes] == given_ns
    last = max(end for process in processes for end in process.ends)
    assert sum(given_ns) <= last
    assert last <= 5000 + sum(given_ns) + SWITCH * (2 * len(work) + sum(given_ns) // SLICE + 2)
