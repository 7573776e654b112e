# SPDX-License-Identifier: Apache-2.0
"""The sliding window against a list of all that was counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.window import BUCKETS, Window

LENGTH = 1000 * BUCKETS


@given(steps=st.lists(st.tuples(st.integers(0, 2 * LENGTH), st.integers(0, 2 * LENGTH)), max_size=20))
def test_it_says_what_was_counted_within_it(steps: list[tuple[int, int]]) -> None:
    """Up to a bucket at its old end."""
    window, now = Window(), 10 * LENGTH
    pieces: list[tuple[int, int]] = []
    for pause, duration in steps:
        start, now = now + pause, now + pause + duration
        window.add(start, now, LENGTH)
        pieces.append((start, now))
        truth = sum(max(0, end - max(begin, now - LENGTH)) for begin, end in pieces)
        assert abs(window.used(now, LENGTH) - truth) <= LENGTH // BUCKETS
        assert len(window.buckets) <= BUCKETS + 1
    assert window.used(now + LENGTH + LENGTH // BUCKETS, LENGTH) == 0
    assert window.total == 0


def test_nothing_was_counted() -> None:
    assert Window().used(5, LENGTH) == 0
