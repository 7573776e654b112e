# SPDX-License-Identifier: Apache-2.0
"""Hand-overs and shares from turns as jobs saw them."""

from __future__ import annotations

import pytest

from harness import turns

JOBS = {"a": [(0, 100), (210, 300)], "b": [(110, 200), (320, 400)]}


def test_gaps_between_turns_of_different_jobs() -> None:
    assert turns.hand_overs(JOBS) == [turns.HandOver("b", "a", 10, 200)]  # only while both were there: 110 to 300


def test_overlap_is_a_negative_gap() -> None:
    seen = turns.hand_overs({"a": [(0, 100), (150, 300)], "b": [(50, 170), (310, 400)]})
    assert [event.gap for event in seen] == [-50, -20]


def test_two_turns_of_one_job_are_no_hand_over() -> None:
    seen = turns.hand_overs({"a": [(0, 10), (20, 30), (60, 100)], "b": [(0, 1), (40, 50), (99, 100)]})
    assert [(event.giver, event.taker) for event in seen] == [("b", "a"), ("a", "b"), ("b", "a"), ("a", "b")]


def test_shares_count_only_common_time() -> None:
    shares = turns.shares({"a": [(0, 100), (200, 300)], "b": [(100, 200), (300, 900)]})
    assert shares == {"a": pytest.approx(0.5), "b": pytest.approx(0.5)}


def test_jobs_that_never_met_have_no_share() -> None:
    assert turns.shares({"a": [(0, 10)], "b": [(20, 30)]}) == {"a": 0.0, "b": 0.0}
    assert turns.hand_overs({"a": [(0, 10)], "b": [(20, 30)]}) == []
