# SPDX-License-Identifier: Apache-2.0
"""Every policy's score, worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpuvirt.scheduler.model import Demand, Fleet, Node, Placed
from gpuvirt.scheduler.placement import DEFAULT, POLICIES
from gpuvirt.scheduler.placement.potential import Potential, Weights, classes

NODE = Node("n", 64_000, 1_000_000, 4, "A")
PART, ONE, TWO, PLAIN = Demand(8_000, 0, 1, 500), Demand(8_000, 0, 1, 1000), Demand(8_000, 0, 2, 1000), Demand(8_000, 0)


def score(name: str, demand: Demand, *there: tuple[Demand, Placed], typical: list[Demand] | None = None) -> int:
    fleet = Fleet([NODE])
    for one, placed in there:
        fleet.place(one, placed)
    scores, _ = POLICIES[name].scorer(fleet, typical or [demand]).scores(np.array([0]), demand)
    return int(scores[0])


def test_dot_product() -> None:
    # cpu 64/128 x 8/128 = 0.03125, gpu 4/8 x 2/8 = 0.125: 100 x (1 - 0.078125)
    assert score("DotProd", TWO) == 92


def test_best_fit() -> None:
    # cpu 56/128 = 0.4375, gpu 2/8 = 0.25: 100 x (1 - 0.34375)
    assert score("BestFit", TWO) == 65


@pytest.mark.parametrize(
    ("demand", "there", "expected"),
    [
        (PLAIN, [], 0),
        (ONE, [], 25 + 12),
        (ONE, [(PLAIN, Placed(0, ()))], 25 + 12),  # company that asks for no GPU is none
        (ONE, [(ONE, Placed(0, (0,)))], 75 + 15),
        (ONE, [(ONE, Placed(0, (0,))), (PART, Placed(0, (1,)))], 50 + 17),
        (PART, [(ONE, Placed(0, (0,)))], 0 + 15),
    ],
)
def test_clustering(demand: Demand, there: list[tuple[Demand, Placed]], expected: int) -> None:
    assert score("Clustering", demand, *there) == expected


@pytest.mark.parametrize(
    ("demand", "there", "expected"),
    [
        (PLAIN, [], 0),
        (TWO, [], 33 - 4),
        (TWO, [(ONE, Placed(0, (0,)))], 50 - 2),
        (PART, [(PART, Placed(0, (0,)))], 100 - 5),
        (Demand(0, 0, 1, 200), [(Demand(0, 0, 1, 800), Placed(0, (0,)))], 100 - 2),
    ],
)
def test_packing(demand: Demand, there: list[tuple[Demand, Placed]], expected: int) -> None:
    assert score("Packing", demand, *there) == expected


def test_fgd() -> None:
    # three typical kinds; of 4 idle GPUs none is a fragment but for PLAIN, who wants none: F = 4000 / 4
    typical = [PART, ONE, PLAIN, PART]
    fleet = Fleet([NODE])
    potential = Potential(fleet, typical, Weights(share=1))
    assert potential.now[0] == pytest.approx(1000)
    # PART on an idle GPU: PLAIN's 3500 / 4, and the other half is too little for ONE: 500 / 4
    after, gpu = potential.after(np.array([0]), PART)
    assert (after[0], gpu[0]) == (pytest.approx(1000), 0)
    assert score("FGD", PART, typical=typical) == 50
    # the second half: PLAIN's 3000 / 4, no fragment left
    assert score("FGD", PART, (PART, Placed(0, (2,))), typical=typical) == int(100 / (1 + math.exp(-0.25)))


def test_fgd_counts_a_node_without_cpu_as_lost() -> None:
    fleet = Fleet([NODE])
    potential = Potential(fleet, [ONE], Weights())
    hungry = Demand(60_000, 0)
    after, _ = potential.after(np.array([0]), hungry)
    assert (potential.now[0], after[0]) == (0, pytest.approx(4000))
    fleet.place(hungry, Placed(0, ()))
    potential.changed(0)
    assert potential.now[0] == pytest.approx(4000)


def test_the_default_counts_copies_memory_and_cpu() -> None:
    hungry = Demand(1_000, 400_000, 1, 1000)
    weights = Weights(fragments=1, copies=1, starved=1, cpu_per_gpu=20_000, memory=True, share=1)
    potential = Potential(Fleet([NODE]), [hungry], weights)
    # memory holds two copies only: -2000; 64 cores feed 3.2 of 4 GPUs: +800
    assert potential.now[0] == pytest.approx(-2000 + 800)
    after, _ = potential.after(np.array([0]), hungry)
    # one copy: -1000; 3 idle GPUs are fed by 63 cores
    assert after[0] == pytest.approx(-1000)


def test_the_default_spares_cpu_beside_idle_gpus() -> None:
    """A demand without GPU goes where the CPU is not needed; FGD does not care."""
    fleet = Fleet([NODE, Node("plain", 64_000, 1_000_000, 0, "")])
    scorer = POLICIES[DEFAULT].scorer(fleet, [PART, ONE, TWO, PLAIN])
    scores, _ = scorer.scores(np.array([0, 1]), Demand(40_000, 0))
    assert scores[1] > scores[0]


def test_typical_demands() -> None:
    found = classes([PART] * 6 + [ONE] * 3 + [TWO], memory=False, share=0.85)
    assert [kind for kind, _ in found] == [PART, ONE]
    assert [weight for _, weight in found] == pytest.approx([6 / 9, 3 / 9])
    assert len(classes([PART, Demand(8_000, 7, 1, 500)], memory=False, share=1)) == 1
    assert len(classes([PART, Demand(8_000, 7, 1, 500)], memory=True, share=1)) == 2
