# SPDX-License-Identifier: Apache-2.0
"""Nodes, demands, and what is left."""

from __future__ import annotations

import pytest

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.model import Demand, Fleet, Node, Placed, fullest_fitting, requested_milli

PAIR = Node("pair", 8_000, 1_000, 2, "V100")
PLAIN = Node("plain", 4_000, 500, 0, "")


def test_what_is_taken_comes_back() -> None:
    fleet = Fleet([PAIR, PLAIN])
    part, placed = Demand(1_000, 100, 1, 300), Placed(0, (1,))
    fleet.place(part, placed)
    assert (fleet.cpu[0], fleet.memory[0], fleet.left[0].tolist()) == (7_000, 900, [1000, 700])
    assert (fleet.allocated_milli(), fleet.empty(0), fleet.tags[0]) == (300, False, {0: 1})
    fleet.release(part, placed)
    assert (fleet.left[0].tolist(), fleet.left[1].tolist()) == ([1000, 1000], [-1, -1])
    assert (fleet.allocated_milli(), fleet.empty(0), fleet.tags[0]) == (0, True, {})


@pytest.mark.parametrize(
    ("demand", "placed"),
    [
        (Demand(8_001, 0), Placed(0, ())),
        (Demand(0, 1_001), Placed(0, ())),
        (Demand(0, 0, 1, 800), Placed(0, (0,))),  # 500 are left
        (Demand(0, 0, 2, 1000), Placed(0, (1, 1))),  # the same GPU twice
        (Demand(0, 0, 1, 100), Placed(0, ())),
        (Demand(0, 0, 1, 100), Placed(1, (0,))),  # no such GPU
        (Demand(0, 0, 1, 100, frozenset({"A100"})), Placed(0, (1,))),
    ],
)
def test_nothing_is_taken_that_is_not_there(demand: Demand, placed: Placed) -> None:
    fleet = Fleet([PAIR, PLAIN])
    fleet.place(Demand(0, 0, 1, 500), Placed(0, (0,)))
    with pytest.raises(ConfigError, match="has no room for"):
        fleet.place(demand, placed)
    assert (fleet.cpu[0], fleet.left[0].tolist(), fleet.left[1].tolist()) == (8_000, [500, 1000], [-1, -1])


@pytest.mark.parametrize("numbers", [(-1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 5), (0, 0, 1, 1001), (0, -1, 0, 0)])
def test_demands_make_sense(numbers: tuple[int, int, int, int]) -> None:
    with pytest.raises(ConfigError):
        Demand(*numbers)


def test_nodes_make_sense() -> None:
    with pytest.raises(ConfigError, match="node 'x'"):
        Node("x", 1, -1, 1, "")
    with pytest.raises(ConfigError, match="without nodes"):
        Fleet([])


def test_the_fullest_that_fit() -> None:
    left = Fleet([Node("four", 1, 1, 4, "")]).left[0]
    left[:] = [1000, 300, 500, 500]
    assert fullest_fitting(left, Demand(0, 0, 1, 400)) == (2,)
    assert fullest_fitting(left, Demand(0, 0, 3, 400)) == (0, 2, 3)


def test_kinds_of_demand() -> None:
    whole, part = Demand(0, 0, 1, 1000), Demand(0, 0, 1, 999)
    assert (whole.shares, whole.tag, part.shares, part.tag, Demand(0, 0, 4, 1000).tag) == (False, 1, True, 0, 4)
    assert requested_milli([whole, part, Demand(0, 0, 4, 500), Demand(5, 5)]) == 3999
