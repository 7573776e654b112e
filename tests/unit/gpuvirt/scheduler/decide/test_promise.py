# SPDX-License-Identifier: Apache-2.0
"""What a job was served, counted in slices of a window."""

from __future__ import annotations

from dataclasses import replace

import pytest
from clusters import Cluster, node, spec
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.scheduler.decide.promise import SLICES, counted, credit, fraction, grown, margin, totals
from gpuvirt.scheduler.state import Job, Phase, Rules, Served

WINDOW = 600.0


def job(phase: Phase, tier: str = "standard") -> Job:
    return Job("j", "j", spec(tier=tier), 0.0, phase=phase, served=Served(until=0.0))


def served(*stretches: tuple[float, bool]) -> Served:
    """So many seconds each with and without GPUs, all wanted."""
    found, now = Served(until=0.0), 0.0
    for seconds, had in stretches:
        now += seconds
        found = grown(found, now, wanted=True, had=had, gpus=2.0, window=WINDOW)
    return found


def test_what_was_had_of_what_was_wanted() -> None:
    found = served((100, True), (50, False))
    assert totals(found) == (150, 100)
    assert fraction(found) == pytest.approx(2 / 3)
    assert found.gpu_seconds == 200


def test_what_is_older_than_the_window_is_forgotten_but_not_the_gpu_time() -> None:
    found = served((600, True), (605, False))
    wanted, had = totals(found)
    assert WINDOW <= wanted <= WINDOW + 2 * WINDOW / SLICES
    assert had <= WINDOW / SLICES
    assert found.gpu_seconds == 1200


@given(st.lists(st.tuples(st.floats(0.001, 2000), st.booleans()), max_size=20))
def test_counting_often_and_counting_once_are_the_same(stretches: list[tuple[float, bool]]) -> None:
    found = served(*stretches)
    fine = Served(until=0.0)
    now = 0.0
    for seconds, had in stretches:
        for part in range(1, 4):
            fine = grown(fine, now + seconds * part / 3, wanted=True, had=had, gpus=2.0, window=WINDOW)
        now += seconds
    assert fine.gpu_seconds == pytest.approx(found.gpu_seconds)
    assert totals(fine) == pytest.approx(totals(found), abs=2 * WINDOW / SLICES)
    assert len(found.slices) <= SLICES + 2
    assert totals(found)[1] <= totals(found)[0] <= min(now, WINDOW + 2 * WINDOW / SLICES) + 1e-6


def test_who_wants_nothing_loses_nothing() -> None:
    found = grown(served((100, True)), 400.0, wanted=False, had=False, gpus=1.0, window=WINDOW)
    assert fraction(found) == 1.0


def test_a_job_that_its_user_has_put_aside_wants_nothing() -> None:
    rules = Rules(window=WINDOW)
    aside = replace(job(Phase.SUSPENDED), held=True)
    assert totals(counted(aside, 100.0, rules)) == (0.0, 0.0)
    assert totals(counted(replace(aside, held=False), 100.0, rules)) == (100.0, 0.0)


def test_credit_grows_while_it_runs_and_falls_while_it_waits() -> None:
    rules = Rules(window=WINDOW)
    runs = job(Phase.RUNNING)
    runs = replace(runs, served=counted(runs, 100.0, rules))
    assert credit(runs, rules) == pytest.approx(30.0)
    waits = replace(runs, phase=Phase.SUSPENDED)
    waits = replace(waits, served=counted(waits, 110.0, rules))
    assert credit(waits, rules) == pytest.approx(23.0)
    assert credit(replace(runs, guaranteed=False), rules) == float("inf")


def test_the_margin_leaves_every_tier_some_credit_to_gather() -> None:
    rules = Rules(moves=True, hysteresis=10_000.0)
    for tier, part in rules.fractions.items():
        if part:
            assert margin(job(Phase.RUNNING, tier), rules) <= rules.window * (1 - part) / 2


def test_a_promise_of_small_jobs_leaves_no_whole_host() -> None:
    cluster = Cluster(node("a", 4), node("b", 4))
    cluster.submit(spec(tier="premium"), "small")
    for name in ("large", "larger"):
        cluster.submit(spec(gpus=4, tier="premium"), name)
    cluster.once()
    assert [cluster.jobs[name].guaranteed for name in ("small", "large", "larger")] in (
        [True, True, False],
        [False, True, True],
    )
