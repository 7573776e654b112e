# SPDX-License-Identifier: Apache-2.0
"""Engines on random fleets: nothing is overcommitted, and the index finds what looking at every node finds."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvirt.scheduler.model import Demand, Fleet, Node, Placed
from gpuvirt.scheduler.placement import POLICIES
from gpuvirt.scheduler.placement.base import Policy, gpus_for
from gpuvirt.scheduler.placement.engine import Engine
from gpuvirt.scheduler.placement.random import RandomEngine

SHAPES = [(8_000, 4_000, 2, "A"), (8_000, 4_000, 1, "B"), (16_000, 8_000, 4, "A"), (4_000, 4_000, 0, "")]
KINDS = [
    Demand(1_000, 500),
    Demand(500, 1_000, 1, 300),
    Demand(1_000, 500, 1, 500),
    Demand(2_000, 500, 1, 1000),
    Demand(3_000, 1_500, 2, 1000),
    Demand(500, 500, 1, 200, frozenset({"B"})),
    Demand(500, 500, 2, 500, frozenset({"A", "B"})),
]
fleets = st.lists(st.sampled_from(SHAPES), min_size=1, max_size=6).map(
    lambda shapes: [Node(f"n{number}", *shape) for number, shape in enumerate(shapes)]
)
steps = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=40)


def by_looking_everywhere(fleet: Fleet, policy: Policy, demand: Demand) -> Placed | None:
    """The best of all nodes, by a scorer that has only just seen the fleet."""
    nodes = np.flatnonzero(fleet.fits(np.arange(len(fleet)), demand, fleet.accepted(demand)))
    if not len(nodes):
        return None
    scores, gpus = policy.scorer(fleet, KINDS).scores(nodes, demand)
    best = int(scores.argmax())
    return Placed(int(nodes[best]), gpus_for(fleet, int(nodes[best]), demand, int(gpus[best])))


def check(fleet: Fleet, there: list[tuple[Demand, Placed]]) -> None:
    """What is left is what there was less what is there, and never less than nothing."""
    for number, node in enumerate(fleet.nodes):
        mine = [(demand, placed) for demand, placed in there if placed.node == number]
        assert fleet.cpu[number] == node.cpu_milli - sum(demand.cpu_milli for demand, _ in mine) >= 0
        assert fleet.memory[number] == node.memory_mib - sum(demand.memory_mib for demand, _ in mine) >= 0
        for gpu in range(node.gpus):
            used = sum(demand.gpu_milli for demand, placed in mine if gpu in placed.gpus)
            assert fleet.left[number, gpu] == 1000 - used >= 0
        for demand, placed in mine:
            assert len(placed.gpus) == demand.gpus and all(0 <= gpu < node.gpus for gpu in placed.gpus)
            assert not demand.models or node.model in demand.models


@pytest.mark.parametrize("name", POLICIES)
@given(nodes=fleets, steps=steps)
@settings(max_examples=25, deadline=None)
def test_the_index_finds_the_best_and_nothing_is_overcommitted(
    name: str, nodes: list[Node], steps: list[tuple[Demand, int]]
) -> None:
    policy, there = POLICIES[name], list[tuple[Demand, Placed]]()
    fleet = Fleet(nodes)
    engine = Engine(fleet, policy, KINDS)
    for demand, leaves in steps:
        expected = by_looking_everywhere(fleet, policy, demand)
        assert engine.find(demand) == expected
        placed = engine.place(demand)
        assert placed == expected
        if placed is not None:
            there.append((demand, placed))
        if leaves < 4 and there:
            engine.release(*there.pop(leaves % len(there)))
        check(fleet, there)


@given(nodes=fleets, steps=steps)
@settings(max_examples=25, deadline=None)
def test_random_takes_what_fits(nodes: list[Node], steps: list[tuple[Demand, int]]) -> None:
    fleet, there = Fleet(nodes), list[tuple[Demand, Placed]]()
    engine = RandomEngine(fleet, Random(1))
    for demand, leaves in steps:
        fits = fleet.fits(np.arange(len(fleet)), demand, fleet.accepted(demand)).any()
        placed = engine.place(demand)
        assert (placed is not None) == fits
        if placed is not None:
            there.append((demand, placed))
        if leaves < 4 and there:
            engine.release(*there.pop(leaves % len(there)))
        check(fleet, there)


def test_a_long_history_is_forgotten() -> None:
    fleet = Fleet([Node("n0", *SHAPES[0]), Node("n1", *SHAPES[0])])
    engine = Engine(fleet, POLICIES["BestFit"], KINDS)
    engine.place(KINDS[1])
    for _ in range(110_000 // 2):
        placed = engine.place(KINDS[0])
        assert placed == Placed(0, ())
        engine.release(KINDS[0], placed)
    assert len(engine._log) < 101_000
    assert engine.find(KINDS[2]) == Placed(0, (0,))


def test_a_fleet_in_use_is_taken_over() -> None:
    fleet = Fleet([Node("n0", *SHAPES[0]), Node("n1", *SHAPES[0])])
    fleet.place(KINDS[2], Placed(1, (1,)))
    engine = Engine(fleet, POLICIES["BestFit"], KINDS)
    assert engine.find(KINDS[2]) == Placed(1, (1,))
