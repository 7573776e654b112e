# SPDX-License-Identifier: Apache-2.0
"""fair: shares follow the weights, of tenants first; nobody gains by having slept."""

from __future__ import annotations

import pytest
from sharing import MS, Sharing

from gpuvirt.arbitration.events import set_weight
from gpuvirt.arbitration.facts import Rules


@pytest.mark.parametrize("weights", [(1, 1), (1, 3), (1, 2, 4), (1,) * 8])
def test_reference_shares_by_weight(weights: tuple[int, ...]) -> None:
    made = Sharing("fair")
    for index, weight in enumerate(weights):
        made.job(f"j{index}", weight)
    made.run(1)
    for share, weight in zip(made.shares(10).values(), weights, strict=True):
        assert share == pytest.approx(weight / sum(weights), abs=0.01)


def test_a_tenant_gains_nothing_by_more_jobs() -> None:
    made = Sharing("fair")
    for name in ("a1", "a2", "a3"):
        made.job(name, tenant="A")
    made.job("b", tenant="B")
    made.run(1)
    shares = made.shares(10)
    assert shares.pop("b") == pytest.approx(0.5, abs=0.01)
    assert list(shares.values()) == pytest.approx([1 / 6] * 3, abs=0.01)


def test_weights_of_jobs_count_within_their_tenant_and_tenants_have_their_own() -> None:
    made = Sharing("fair", Rules(tenant_weights=(("B", 3),)))
    made.job("a1", weight=3, tenant="A")
    made.job("a2", weight=1, tenant="A")
    made.job("b", weight=1, tenant="B")
    made.run(1)
    expected = {"a1": 0.25 * 0.75, "a2": 0.25 * 0.25, "b": 0.75}
    assert made.shares(10) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("tenants", ["AAA", "ABB", "ABC"])
def test_who_slept_has_no_credit_for_it(tenants: str) -> None:
    made = Sharing("fair")
    for name, tenant in zip(("a", "b"), tenants, strict=False):
        made.job(name, tenant=tenant)
    made.run(5)
    made.job("late", tenant=tenants[2])
    sleeper = made.job("sleeper", tenant=tenants[2], work=10 * MS, thinks=4000 * MS)
    made.run(4.1)
    before = made.busy(made.jobs["late"])
    sleeper.work = 0  # from its next burst on it always wants the GPU
    made.run(8)
    others = [job for name, job in made.jobs.items() if name != "sleeper"]
    longest = max(made.longest_wait(job.name, 0.5) for job in others)
    assert longest < 0.2, "nobody waits while it catches up"
    assert made.busy(made.jobs["late"]) > before


def test_another_weight_holds_from_now_on() -> None:
    made = Sharing("fair")
    made.job("a")
    made.job("b")
    made.run(2)
    set_weight(made.gpu, "a", 3, made.now)
    assert made.shares(5) == pytest.approx({"a": 0.75, "b": 0.25}, abs=0.01)
    set_weight(made.gpu, "nobody", 3, made.now)
