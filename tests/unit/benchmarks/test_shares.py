# SPDX-License-Identifier: Apache-2.0
"""Figures of sharing, and the pages by which jobs tell what they did."""

from __future__ import annotations

import itertools
import statistics
from pathlib import Path

import pytest

from harness import service, shares
from harness.loads import Load, Page


def test_throughput_is_normalised_by_what_each_does_alone() -> None:
    assert shares.normalised([5e9, 1e9], 10.0, [1e9, 0.2e9]) == pytest.approx([0.5, 0.5])


def test_equal_throughput_has_no_error_and_index_one() -> None:
    assert shares.share_error_pp([0.5, 0.5], [1, 1]) == pytest.approx(0.0)
    assert shares.jain([0.5, 0.5], [1, 1]) == pytest.approx(1.0)
    assert shares.loss_pct([0.5, 0.5]) == pytest.approx(0.0)


def test_shares_by_weight() -> None:
    assert shares.share_error_pp([0.1, 0.2, 0.4], [1, 2, 4]) == pytest.approx(0.0)
    assert shares.jain([0.1, 0.2, 0.4], [1, 2, 4]) == pytest.approx(1.0)
    assert shares.loss_pct([0.1, 0.2, 0.4]) == pytest.approx(30.0)
    assert shares.share_error_pp([1, 1, 1], [1, 2, 4]) == pytest.approx(100 * (4 / 7 - 1 / 3))


def test_one_that_gets_everything() -> None:
    assert shares.jain([1.0, 0.0, 0.0, 0.0], [1] * 4) == pytest.approx(0.25)
    assert shares.share_error_pp([1.0, 0.0], [1, 1]) == pytest.approx(50.0)
    assert shares.share_error_pp([0.0, 0.0], [1, 1]) == 100.0
    assert shares.jain([0.0, 0.0], [1, 1]) == 0.0


@pytest.mark.parametrize(("part", "value"), [(0.01, 1), (0.5, 50), (0.99, 99), (1.0, 100)])
def test_percentiles_are_measured_values(part: float, value: int) -> None:
    assert shares.percentile(list(range(100, 0, -1)), part) == value


def test_arrivals_are_the_same_for_the_same_seed_and_as_many_as_the_load_says() -> None:
    times = service.arrivals(0.5, 4e6, 100.0, seed=7)
    assert times == service.arrivals(0.5, 4e6, 100.0, seed=7) != service.arrivals(0.5, 4e6, 100.0, seed=8)
    assert list(times) == sorted(times) and times[-1] <= 100e9
    assert len(service.arrivals(0.5, 4e6, 0.0, seed=7)) == 1
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert statistics.mean(gaps) == pytest.approx(8e6, rel=0.05)
    assert statistics.pstdev(gaps) == pytest.approx(8e6, rel=0.05)  # exponential: as wide as it is long


def test_a_page_is_read_back(tmp_path: Path) -> None:
    page = Page(tmp_path / "page", arrivals=(10, 20, 30))
    words = (tmp_path / "page").read_bytes()
    assert len(words) == 4096 + 3 * 24
    assert words[88:96] == (3).to_bytes(8, "little")
    assert words[4096:4104] == (10).to_bytes(8, "little")
    assert (page.done_ns, page.ready, page.latencies(), page.services()) == (0, False, [0, 0, 0], [0, 0, 0])
    page.go(7)
    page.stop()
    words = (tmp_path / "page").read_bytes()
    assert words[72:80] == (7).to_bytes(8, "little") and words[80:88] == (1).to_bytes(8, "little")


def test_the_arguments_of_a_load() -> None:
    assert Load(5, 2, streams=3, depth=4, mode="graph").arguments() == ["5", "2", "3", "4", "graph"]


def test_short_is_what_the_one_worst_off_lacks() -> None:
    assert shares.short_pp([0.5, 0.6], [1, 1]) == 0.0
    assert shares.short_pp([0.2, 0.7], [1, 3]) == pytest.approx(5.0)
