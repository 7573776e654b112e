# SPDX-License-Identifier: Apache-2.0
"""tiers: guarantees are kept whenever they add up to at most 1."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sharing import MS, Sharing

from gpuvirt.arbitration.facts import Rules
from gpuvirt.arbitration.policies.tiers import LEFT

DRAINS = 0.006  # of the time, at most, goes to handing over here


@pytest.mark.parametrize(("tier", "part"), [("premium", 0.95), ("standard", 0.70)])
def test_reference_guarantees_beside_jobs_without(tier: str, part: float) -> None:
    made = Sharing("tiers")
    made.job("guaranteed", tier=tier)
    for index in range(3):
        made.job(f"j{index}")
    for _ in range(3):
        shares = made.shares(10)
        assert shares["guaranteed"] > part - LEFT - DRAINS
        assert sum(shares.values()) > 1 - DRAINS
        assert min(shares.values()) > 0.3 * (1 - part) / 3


@settings(max_examples=12, derandomize=True, deadline=None)
@given(parts=st.lists(st.integers(5, 60), min_size=1, max_size=4).filter(lambda parts: sum(parts) <= 100))
def test_kept_whenever_they_add_up_to_at_most_1(parts: list[int]) -> None:
    rules = Rules(tiers=tuple((f"t{index}", part / 100) for index, part in enumerate(parts)))
    made = Sharing("tiers", rules)
    for index in range(len(parts)):
        made.job(f"j{index}", tier=f"t{index}")
    made.job("rest")
    made.run(1)
    shares = made.shares(10)
    for index, part in enumerate(parts):
        assert shares[f"j{index}"] > part / 100 - LEFT - DRAINS, shares
    assert shares["rest"] > LEFT / 2


def test_too_many_guarantees_are_scaled_down_alike() -> None:
    made = Sharing("tiers")
    made.job("premium", tier="premium")
    made.job("standard", tier="standard")
    made.job("rest")
    made.run(1)
    shares = made.shares(20)
    assert shares["premium"] / shares["standard"] == pytest.approx(0.95 / 0.70, rel=0.03)
    assert shares["rest"] > LEFT / 2


def test_a_tier_that_does_not_want_the_gpu_leaves_it_to_the_others() -> None:
    made = Sharing("tiers")
    made.job("premium", tier="premium", work=10 * MS, thinks=90 * MS)
    made.job("rest")
    shares = made.shares(10)
    assert shares["rest"] > 0.85
    assert sum(shares.values()) > 0.97


def test_time_alone_is_no_debt() -> None:
    """Who had the GPU for itself keeps its guarantee when others come."""
    made = Sharing("tiers")
    made.job("premium", tier="premium")
    made.run(20)
    made.job("rest")
    assert made.longest_wait("premium", 1) < 0.05
    assert made.shares(10)["premium"] > 0.93


def test_guarantees_hold_in_the_window_although_quanta_are_long() -> None:
    made = Sharing("tiers", Rules(quantum=20 * MS))
    made.job("standard", tier="standard")
    made.job("rest")
    for contender in made.gpu.contenders.values():
        contender.switch_cost = 0
    made.gpu.rules = Rules(quantum=2000 * MS)
    assert made.shares(30)["standard"] > 0.65
