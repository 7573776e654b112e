# SPDX-License-Identifier: Apache-2.0
"""Length of leases, patience with idle holders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.quantum import HEADROOM, expected_cost, idle_hold_ns, learned_rate, quantum_ns

MS = 1_000_000


def test_quantum_is_the_configured_one_when_nothing_moved() -> None:
    assert quantum_ns(20 * MS, 0, 0.05, 10_000 * MS) == 20 * MS


def test_quantum_grows_with_the_swap_up_to_a_limit() -> None:
    assert quantum_ns(20 * MS, 100 * MS, 0.05, 10_000 * MS) == pytest.approx(HEADROOM * 1900 * MS)
    assert quantum_ns(20 * MS, 60_000 * MS, 0.05, 10_000 * MS) == 10_000 * MS
    assert quantum_ns(20 * MS, 100 * MS, 1.0, 10_000 * MS) == 20 * MS


@given(swap=st.integers(0, 10**12), share=st.floats(0.01, 1.0))
def test_swapping_takes_at_most_its_share(swap: int, share: float) -> None:
    quantum = quantum_ns(20 * MS, swap, share, 1 << 62)
    assert swap / (swap + quantum) <= share + 1e-6


def test_idle_hold_is_half_of_a_switch() -> None:
    assert idle_hold_ns(200_000, 0, 8e9) == 200_000
    assert idle_hold_ns(200_000, 800_000_000, 8e9) == 100 * MS
    assert idle_hold_ns(200_000, 1000, 8e9) == 200_000


def test_rate_is_learned_from_large_moves_only() -> None:
    assert learned_rate(8e9, 1000, 1) == 8e9
    assert learned_rate(8e9, 1 << 30, 0) == 8e9
    assert learned_rate(8e9, 4_000_000_000, 1_000_000_000) == pytest.approx(6.8e9)
    assert 1e6 <= learned_rate(1e6, 1 << 21, 1 << 62) <= 1e12


@given(costs=st.lists(st.integers(0, 10**11), min_size=1, max_size=30), share=st.floats(0.01, 0.9))
def test_every_lease_pays_for_the_switch_before_it(costs: list[int], share: float) -> None:
    expected = 0
    for lost in costs:
        expected = expected_cost(expected, lost)
        quantum = quantum_ns(20 * MS, expected, share, 1 << 62)
        assert lost / (lost + quantum) <= share + 1e-6


def test_the_expected_cost_falls_smoothly_and_to_the_end() -> None:
    expected = expected_cost(0, 1000 * MS)
    assert expected == 1000 * MS
    before = expected
    for _ in range(8):
        expected = expected_cost(expected, 0)
        assert 0.7 * before <= expected < before  # no step of more than 30 %
        before = expected
    assert expected < 110 * MS
    for _ in range(200):
        expected = expected_cost(expected, 0)
    assert expected == 0
