# SPDX-License-Identifier: Apache-2.0
"""The best that a link allows, and how the soft GPU is told of it."""

from __future__ import annotations

import pytest

from harness.link import Link

LINK = Link.even(1e9, 0.71)


def test_model_as_the_soft_gpu_reads_it() -> None:
    assert LINK.model == "link=1:1:71"
    assert Link.even(2.5e9, 1.0).model == "link=2.5:2.5:100"


def test_one_way_has_the_whole_rate() -> None:
    assert LINK.best(500_000_000, 0) == pytest.approx(0.5)
    assert LINK.best(0, 500_000_000) == pytest.approx(0.5)


def test_both_ways_share_until_the_shorter_ends() -> None:
    assert LINK.best(710_000_000, 710_000_000) == pytest.approx(1.0)
    assert LINK.best(710_000_000, 1_710_000_000) == pytest.approx(2.0)


def test_a_link_that_is_no_faster_with_both_is_one_after_the_other() -> None:
    assert Link.even(1e9, 0.5).best(300_000_000, 500_000_000) == pytest.approx(0.8)


def test_each_way_has_its_own_rates() -> None:
    link = Link(out=25e9, back=26e9, out_both=24e9, back_both=18e9)
    assert link.best(40_000_000_000, 0) == pytest.approx(1.6)
    assert link.best(24_000_000_000, 18_000_000_000) == pytest.approx(1.0)
    assert link.best(24_000_000_000, 44_000_000_000) == pytest.approx(2.0)
