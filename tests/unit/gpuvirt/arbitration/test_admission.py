# SPDX-License-Identifier: Apache-2.0
"""Who may start, who waits, in which order, for how long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.admission import Applicant, Budgets, Place, Running, estimate, line, order

GIB = 1 << 30
HOST = Budgets(host=100, tenants={}, devices=0)


def applicant(key: str, need: int, arrival: int, tenant: int = 1) -> Applicant:
    return Applicant(key, tenant, need, arrival)


def running(key: str, committed: int, age_s: float = 0.0, tenant: int = 1) -> Running:
    return Running(key, tenant, committed, age_s)


def positions(places: list[Place]) -> dict[str, int]:
    return {place.key: place.position for place in places}


def test_room_for_some() -> None:
    applicants = [applicant("a", 60, 1), applicant("b", 60, 2), applicant("c", 10, 3)]
    assert positions(line(applicants, [], HOST, None)) == {"a": 0, "b": 1, "c": 2}  # nobody overtakes the head
    assert positions(line(applicants, [running("x", 30)], HOST, None)) == {"a": 0, "b": 1, "c": 2}
    assert positions(line(applicants, [running("x", 50)], HOST, None)) == {"a": 1, "b": 2, "c": 3}


def test_who_would_be_alone_starts_however_large() -> None:
    assert positions(line([applicant("huge", 1000, 1), applicant("b", 1, 2)], [], HOST, None)) == {"huge": 0, "b": 1}


def test_what_fits_on_the_devices_needs_no_host_memory() -> None:
    large = Budgets(host=10, tenants={}, devices=200)
    assert positions(line([applicant("a", 80, 1)], [running("x", 120)], large, None)) == {"a": 0}
    assert positions(line([applicant("a", 81, 1)], [running("x", 120)], large, None)) == {"a": 1}


def test_jobs_that_declare_nothing_wait_only_while_the_budget_is_exceeded() -> None:
    assert positions(line([applicant("a", 0, 1)], [running("x", 100)], HOST, None)) == {"a": 0}
    assert positions(line([applicant("a", 0, 1)], [running("x", 101)], HOST, None)) == {"a": 1}


def test_every_tenants_first_before_any_tenants_second() -> None:
    many = [applicant(f"a{n}", 1, n, tenant=1) for n in range(4)]
    few = [applicant("b0", 1, 10, tenant=2), applicant("c0", 1, 11, tenant=3), applicant("b1", 1, 12, tenant=2)]
    assert [one.key for one in order(many + few)] == ["a0", "b0", "c0", "a1", "b1", "a2", "a3"]


def test_a_tenants_own_budget() -> None:
    budgets = Budgets(host=100, tenants={1: 50, 2: None}, devices=0)
    busy = [running("x", 40, tenant=1)]
    [mine] = line([applicant("a", 20, 1, tenant=1)], busy, budgets, None)
    assert mine.position == 1
    assert "of this user" in mine.reason
    assert positions(line([applicant("b", 20, 1, tenant=2)], busy, budgets, None)) == {"b": 0}


def test_a_tenants_own_budget_stops_nobody_else() -> None:
    budgets = Budgets(host=100, tenants={1: 50, 2: 50}, devices=0)
    busy = [running("x", 40, tenant=1)]
    queue = [
        applicant("a", 20, 1),
        applicant("b", 20, 2, tenant=2),
        applicant("c", 5, 3),
        applicant("d", 9, 4, tenant=2),
    ]
    found = line(queue, busy, budgets, None)
    assert positions(found) == {"a": 1, "b": 0, "c": 2, "d": 0}  # c would fit, and does not overtake a
    assert {place.key: place.reason for place in found}["c"] == "waits behind the head of the line"
    tight = [*queue[:1], applicant("large", 50, 2, tenant=2), *queue[2:]]  # the host has no room for it: all wait
    assert positions(line(tight, [*busy, running("y", 20, tenant=3)], budgets, None)) == {
        "a": 1,
        "large": 2,
        "c": 3,
        "d": 4,
    }


def test_reasons_name_the_budget_and_what_is_declared() -> None:
    [place] = line([applicant("a", 3 * GIB, 1)], [running("x", 2 * GIB)], Budgets(4 * GIB, {}, 0), None)
    assert place.reason == (
        "the host memory budget of 4 GiB is taken: 2 GiB by 1 job that runs, and this one declares 3 GiB"
    )
    assert place.estimate_s is None


def test_estimates() -> None:
    a, b = applicant("a", 60, 1), applicant("b", 60, 2)
    busy = [running("x", 50, age_s=70.0), running("y", 50, age_s=10.0)]
    assert estimate(a, [], busy, HOST, 100.0) == 90.0  # both must go
    assert estimate(applicant("small", 40, 1), [], busy, HOST, 100.0) == 30.0
    assert estimate(b, [a], busy, HOST, 100.0) == 190.0  # and then a, which starts after 90 s
    assert estimate(a, [], [running("old", 50, age_s=300.0)], HOST, 100.0) == 100.0  # (300 - 100) / 2
    assert estimate(a, [], busy, HOST, None) is None


@given(
    queue=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 120)), max_size=8),
    jobs=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 80)), max_size=5),
    host=st.integers(0, 150),
    devices=st.integers(0, 150),
)
def test_admission_never_exceeds_what_there_is_and_never_starves(
    queue: list[tuple[int, int]], jobs: list[tuple[int, int]], host: int, devices: int
) -> None:
    applicants = [applicant(f"q{n}", need, n, tenant) for n, (tenant, need) in enumerate(queue)]
    busy = [running(f"r{n}", size, float(n), tenant) for n, (tenant, size) in enumerate(jobs)]
    budgets = Budgets(host, {}, devices)
    places = line(applicants, busy, budgets, 10.0)
    assert sorted(place.key for place in places) == sorted(one.key for one in applicants)
    admitted = [place.key for place in places if place.position == 0]
    needs = {one.key: one.need for one in applicants}
    total = sum(one.committed for one in busy) + sum(needs[key] for key in admitted)
    if admitted and (busy or len(admitted) > 1):
        assert total <= max(host, devices)
    assert [place.position for place in places if place.position] == list(range(1, len(places) - len(admitted) + 1))
    waits = [place.estimate_s for place in places if place.position]
    assert all(value is not None and value >= 0 for value in waits)
    assert waits == sorted(value for value in waits if value is not None)
    # When everybody who runs has ended, the head of the line starts.
    rest = [one for one in applicants if one.key not in admitted]
    if rest:
        assert line(rest, [], budgets, None)[0].position == 0
