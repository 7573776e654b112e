# SPDX-License-Identifier: Apache-2.0
"""Shares follow weights; sleepers do not hoard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.facts import Contender, Gpu
from gpuvirt.arbitration.fairshare import charged_vtime, vtime_on_wake
from gpuvirt.arbitration.policies import choose

MS = 1_000_000
GPU = Gpu("gpu", 100)


def contender(key: str, vtime: int = 0, since: int = 0, weight: int = 100) -> Contender:
    return Contender(key, weight=weight, vtime=vtime, waiting_since=since)


def test_smallest_virtual_time_is_next() -> None:
    assert choose(GPU, [], 0) is None
    first, second = contender("a", 20), contender("b", 10)
    assert choose(GPU, [first, second], 0) is second


def test_ties_go_to_the_longest_waiter_then_to_the_key() -> None:
    assert choose(GPU, [contender("a", since=9), contender("b", since=3)], 0).key == "b"  # type: ignore[union-attr]
    assert choose(GPU, [contender("b", since=3), contender("a", since=3)], 0).key == "a"  # type: ignore[union-attr]


@pytest.mark.parametrize("weights", [(100, 100), (100, 200, 400), (1, 1000), (3, 5, 7)])
def test_shares_follow_weights(weights: tuple[int, ...]) -> None:
    jobs = [contender(f"j{index}", weight=weight) for index, weight in enumerate(weights)]
    held = dict.fromkeys((job.key for job in jobs), 0)
    for _ in range(20 * sum(weights) // min(weights)):
        best = choose(GPU, jobs, 0)
        assert best is not None
        held[best.key] += 20 * MS
        best.vtime += charged_vtime(20 * MS, best.weight)
    for job in jobs:
        share = held[job.key] / sum(held.values())
        assert share == pytest.approx(job.weight / sum(weights), abs=0.01)


@given(vtime=st.integers(0, 10**15), vnow=st.integers(0, 10**15), weight=st.integers(1, 1000))
def test_waking_gives_at_most_one_quantum_of_credit(vtime: int, vnow: int, weight: int) -> None:
    woken = vtime_on_wake(vtime, vnow, 20 * MS, weight)
    assert woken >= vtime
    assert vnow - woken <= charged_vtime(20 * MS, weight)
