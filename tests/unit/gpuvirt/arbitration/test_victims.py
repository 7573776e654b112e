# SPDX-License-Identifier: Apache-2.0
"""Who is evicted, and how far."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.arbitration.facts import SECOND, Client, Contender, Move, Request
from gpuvirt.arbitration.victims import Eviction, candidates, choose_victims, learned_copies, residence_ns

PLENTY = 1 << 62


def client(number: int, charged: int, allowance: int | None = None, **facts: object) -> Client:
    resident = charged if allowance is None else min(charged, allowance)
    made = Client(number, charged=charged, resident=resident, allowance=charged if allowance is None else allowance)
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def job(key: str, *clients: Client, **facts: object) -> Contender:
    made = Contender(key, clients={one.number: one for one in clients})
    for name, value in facts.items():
        setattr(made, name, value)
    return made


def able_of(jobs: Sequence[Contender], excluded: str, now: int = 0) -> list[tuple[Contender, Client]]:
    """Those that can be evicted, where turns come by virtual time."""
    queue = sorted((one for one in jobs if one.waiting), key=lambda one: one.vtime)
    return candidates(jobs, excluded, now, {one.key: place for place, one in enumerate(queue)})


def order(*jobs: Contender, excluded: str = "", now: int = 0) -> list[int]:
    return [one.number for _, one in able_of(jobs, excluded, now)]


def plan(*jobs: Contender, deficit: int, room: int = PLENTY, excluded: str = "") -> dict[int, int] | None:
    chosen = choose_victims(able_of(jobs, excluded), excluded, deficit, room)
    return None if chosen is None else {eviction.client.number: eviction.target for eviction in chosen}


def test_idle_before_waiting_longest_idle_first_then_the_biggest() -> None:
    jobs = [
        job("waiting", client(1, 9, waiting=True), last_run_ns=1),
        job("idle", client(2, 5), last_run_ns=7),
        job("long idle", client(3, 5), client(4, 8), last_run_ns=3),
    ]
    assert order(*jobs, now=10) == [4, 3, 2, 1]


def test_of_idle_ones_the_least_worth_keeping_goes_first() -> None:
    heavy = job("heavy", client(1, 5), weight=4, last_run_ns=0)
    light = job("light", client(2, 5), weight=1, last_run_ns=60)
    assert order(heavy, light, now=100) == [2, 1]  # idle for 100 at weight 4 is worth more than 40 at weight 1
    light.last_run_ns = 90
    assert order(heavy, light, now=100) == [1, 2]
    dirty, clean = job("dirty", client(3, 5, copies=1.0)), job("clean", client(4, 5, copies=0.1))
    assert order(dirty, clean, now=100) == [4, 3]
    dirty.last_run_ns = clean.last_run_ns = 99
    assert order(dirty, clean, job("old", client(5, 5), last_run_ns=50), now=100) == [5, 4, 3]


def test_what_was_just_brought_in_is_not_the_first_to_leave() -> None:
    jobs = [
        job("fresh", client(1, 5, stays_until=50), last_run_ns=0),
        job("stale", client(2, 5), last_run_ns=30),
        job("waits", client(3, 5, waiting=True)),
    ]
    assert order(*jobs, now=40) == [2, 1, 3]
    assert order(*jobs, now=50) == [1, 2, 3]
    assert plan(*jobs, deficit=15) == {1: 0, 2: 0, 3: 0}  # it goes when nothing else is left


def test_a_job_that_has_had_its_turn_is_not_protected_from_who_is_next() -> None:
    """Under a round robin the one that ran last is served last, however short the turns are."""
    ran = job("ran", client(1, 5, waiting=True, stays_until=1000), vtime=30)
    assert order(ran, job("next but one", client(2, 5, waiting=True), vtime=20), now=10) == [1, 2]


def test_beyond_its_soft_limit_a_job_is_the_first_to_be_swapped() -> None:
    idle = job("idle", client(1, 50), last_run_ns=0)
    greedy = job("greedy", client(2, 30, waiting=True), client(3, 30, waiting=True), soft=40, vtime=1)
    assert plan(idle, greedy, deficit=15) == {2: 15}
    assert plan(idle, greedy, deficit=20) == {2: 10}
    assert plan(idle, greedy, deficit=25) == {1: 45, 2: 10}  # the rest of it is like any other's
    assert plan(idle, greedy, deficit=90) == {1: 0, 2: 0, 3: 20}


def test_the_soft_limit_counts_what_is_on_the_device_and_needs_host_room_as_all_do() -> None:
    swapped = job("swapped", client(1, 60, 30, restored=False), soft=40)
    other = job("other", client(2, 30), last_run_ns=5)
    assert plan(swapped, other, deficit=10) == {1: 20}  # not beyond: by age, as ever
    greedy = job("greedy", client(3, 60), soft=40)
    assert plan(greedy, deficit=20, room=5) is None
    assert plan(greedy, deficit=20, excluded="greedy") is None


def test_cost_is_learned_from_what_was_really_copied() -> None:
    assert learned_copies(1.0, 0, 0) == 1.0
    assert learned_copies(1.0, 0, 100) == 0.5
    assert learned_copies(0.5, 100, 0) == 0.75
    share = 1.0
    for _ in range(10):
        share = learned_copies(share, 10, 90)
    assert abs(share - 0.1) < 0.01


def test_residence_is_bounded() -> None:
    assert residence_ns(0) == 0
    assert residence_ns(SECOND) == 2 * SECOND
    assert residence_ns(1 << 60) == 10 * SECOND


def test_of_the_waiting_ones_the_last_to_be_served_goes_first() -> None:
    jobs = [job(key, client(n, 5, waiting=True), vtime=v) for key, n, v in (("a", 1, 10), ("b", 2, 30), ("c", 3, 20))]
    assert order(*jobs) == [2, 3, 1]


def test_who_cannot_be_evicted_now() -> None:
    jobs = [
        job("lost", client(1, 5, connected=False)),
        job("at work", client(2, 5, drained=False)),
        job("busy", client(3, 5, request=Request(Move.EVICT, 0, 5, 0))),
        job("failed", client(4, 5, evict_not_before=10)),
        job("fine", client(5, 5)),
    ]
    assert order(*jobs, now=9) == [5]
    assert order(*jobs, now=10) == [4, 5]


def test_unused_promises_go_before_bytes_and_only_the_deficit() -> None:
    first, second = job("a", client(1, 40, 40), last_run_ns=1), job("b", client(2, 20, 50), last_run_ns=2)
    assert plan(first, second, deficit=10) == {2: 40}
    assert plan(first, second, deficit=30) == {2: 20}
    assert plan(first, second, deficit=35) == {1: 35, 2: 20}
    assert plan(first, second, deficit=90) == {1: 0, 2: 0}
    assert plan(first, second, deficit=91) is None


def test_host_budget_limits_bytes_not_promises() -> None:
    one = job("a", client(1, 40, 60))
    assert plan(one, deficit=20, room=0) == {1: 40}
    assert plan(one, deficit=30, room=10) == {1: 30}
    assert plan(one, deficit=31, room=10) is None


def test_the_job_that_is_to_run_gives_unused_promises_only() -> None:
    mine = job("a", client(1, 40, 60), client(2, 10, 0))
    assert plan(mine, deficit=10, excluded="a") == {1: 50}
    assert plan(mine, deficit=21, excluded="a") is None
    swapped = job("a", client(1, 40, 60, restored=False, resident=20))
    assert plan(swapped, deficit=21, excluded="a") is None  # its own 20 swapped bytes come back in a moment


def test_fixed_memory_is_never_a_victim() -> None:
    holder = job("a", client(1, 40, 60, native=30))
    assert plan(holder, deficit=20) == {1: 40}  # what is promised and not used
    assert plan(holder, deficit=25) == {1: 35}
    assert plan(holder, deficit=30) == {1: 30}
    assert plan(holder, deficit=31) is None
    assert plan(holder, job("b", client(2, 10)), deficit=31) == {1: 30, 2: 9}


@given(
    figures=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50)), max_size=6),
    deficit=st.integers(1, 300),
    room=st.integers(0, 200),
    real=st.booleans(),
)
def test_no_target_is_below_fixed_memory(
    figures: list[tuple[int, int, int]], deficit: int, room: int, real: bool
) -> None:
    """And a plan is found whenever what can move is enough."""
    jobs = []
    for n, (charged, allowance, native) in enumerate(figures):
        one = client(n, charged, allowance, restored=charged <= allowance)
        one.native = min(native, one.resident)
        jobs.append(job(f"j{n}", one, vtime=n))
    able = able_of(jobs, "")
    chosen = choose_victims(able, "", deficit, room, real)
    if chosen is not None:
        assert all(eviction.target >= eviction.client.native for eviction in chosen)
    elif not real:
        unused = sum(c.allowance - c.resident for _, c in able)
        assert unused + min(room, sum(c.resident - c.native for _, c in able)) < deficit


@given(
    figures=st.lists(
        st.tuples(st.integers(0, 50), st.integers(0, 50), st.booleans(), st.none() | st.integers(0, 60)), max_size=6
    ),
    deficit=st.integers(1, 300),
    room=st.integers(0, 200),
)
def test_plans_free_exactly_the_deficit(
    figures: list[tuple[int, int, bool, int | None]], deficit: int, room: int
) -> None:
    jobs = [
        job(f"j{n}", client(n, charged, allowance, restored=charged <= allowance, waiting=waiting), vtime=n, soft=soft)
        for n, (charged, allowance, waiting, soft) in enumerate(figures)
    ]
    able = able_of(jobs, "")
    chosen = choose_victims(able, "", deficit, room)
    if chosen is None:
        unused = sum(max(0, c.allowance - c.resident) for _, c in able)
        assert unused + min(room, sum(c.allowance for _, c in able) - unused) < deficit
        return
    assert all(isinstance(eviction, Eviction) and eviction.target >= 0 for eviction in chosen)
    assert sum(eviction.client.allowance - eviction.target for eviction in chosen) == deficit
    assert sum(max(0, eviction.client.resident - eviction.target) for eviction in chosen) <= room
