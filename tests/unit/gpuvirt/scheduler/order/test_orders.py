# SPDX-License-Identifier: Apache-2.0
"""What each order of the queue does with a few jobs, and what holds for all of them with any."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpuvirt.scheduler.order import DEFAULT, POLICIES
from gpuvirt.scheduler.order.base import Plan
from gpuvirt.scheduler.order.job import Job, Terms
from gpuvirt.scheduler.order.queue import Queue
from gpuvirt.scheduler.simulate.engine import Engine, Request, Run

HOUR = 3600.0


def run(policy: str, jobs: list[Request], gpus: int = 4, suspend: float = 0.0, resume: float = 0.0) -> Run:
    return Engine(jobs, Terms(gpus, suspend, resume), POLICIES[policy]).run()


def ends(policy: str, jobs: list[Request], gpus: int = 4) -> list[float | None]:
    return [job.ended for job in run(policy, jobs, gpus).jobs]


# arrival, GPUs, seconds
BLOCKED = [Request(0, 3, 100), Request(1, 4, 100), Request(2, 1, 50), Request(3, 1, 150)]


def test_fifo_lets_nobody_pass() -> None:
    assert ends("fifo", BLOCKED) == [100, 200, 250, 350]


def test_fit_first_lets_smaller_ones_pass() -> None:
    assert ends("fit-first", BLOCKED) == [100, 302, 52, 202]


def test_backfill_lets_pass_who_is_done_in_time() -> None:
    assert ends("backfill", BLOCKED) == [100, 200, 52, 350]


def test_backfill_uses_what_the_reservation_leaves_over() -> None:
    jobs = [Request(0, 2, 100), Request(0, 1, 200), Request(1, 3, 100), Request(2, 1, 500), Request(3, 1, 500)]
    # at 100 s the third has its three; of five GPUs one is left over: for the fourth, not for the fifth too
    assert ends("backfill", jobs, gpus=5) == [100, 200, 200, 502, 600 + 100]


def test_backfill_delays_no_reservation() -> None:
    jobs = [Request(0, 2, 100), Request(1, 4, 10), *(Request(2 + i, 1, 30) for i in range(9))]
    first = run("backfill", jobs).jobs[1]
    assert first.started == 100


def test_srtf_preempts_what_needs_longer() -> None:
    assert ends("srtf", [Request(0, 4, 100), Request(10, 4, 50), Request(20, 4, 60)]) == [210, 60, 120]


def test_srtf_gpu_counts_gpus() -> None:
    jobs = [Request(0, 4, 30), Request(1, 1, 60)]
    assert ends("srtf", jobs) == [30, 90]
    assert ends("srtf-gpu", jobs) == [90, 61]


@pytest.mark.parametrize("policy", ["las", "attained"])
def test_who_has_had_much_makes_room_for_who_has_had_nothing(policy: str) -> None:
    jobs = [Request(0, 4, 10 * HOUR), Request(5 * HOUR, 4, 60)]
    assert ends(policy, jobs) == [10 * HOUR + 60, 5 * HOUR + 60]


@pytest.mark.parametrize("policy", ["las", "attained"])
def test_long_jobs_do_not_take_gpus_from_each_other(policy: str) -> None:
    done = run(policy, [Request(0, 4, 100 * HOUR), Request(1, 4, 100 * HOUR)])
    assert sum(job.suspensions for job in done.jobs) <= 4, "once a level, not again and again"


def test_default_takes_back_first_what_it_suspended_last() -> None:
    """A and B run long, C and D come: B, suspended after A, comes back before it."""
    jobs = [
        Request(0, 2, 50 * HOUR),
        Request(0, 2, 50 * HOUR),
        Request(5 * HOUR, 2, 9000),
        Request(5 * HOUR + 60, 2, 60),
    ]
    done = run("attained", jobs)
    first, second = sorted(done.jobs[:2], key=lambda job: job.ended or 0)
    assert (first.suspensions, second.suspensions) in {(0, 1), (1, 0), (1, 1)}
    queue = Queue(Terms(2), POLICIES["attained"](Terms(2)))
    old, new = (
        Job(number, 0, 2, 50 * HOUR, attained=5 * HOUR, suspensions=1, changed=changed)
        for number, changed in ((0, 100.0), (1, 200.0))
    )
    for job in (old, new):
        queue.wait(job, 300)
    assert POLICIES["attained"](Terms(2)).plan(queue, 300).start == [new]


def test_las_takes_who_comes_down_behind_those_that_wait() -> None:
    policy = POLICIES["las"](Terms(4))
    waits = Job(0, 0, 4, 50 * HOUR, attained=2000, suspensions=1, changed=10)
    comes = Job(1, 0, 4, 50 * HOUR, running=True, begins=0, changed=0)
    now = comes.serves_until(3250 / 4)
    assert waits.service(now) > 7200 > comes.service(now)
    waits.attained = 900
    assert policy.rank(comes, now) > policy.rank(waits, now)
    assert policy.rank(comes, now + 1) < policy.rank(waits, now + 1)


def test_las_does_not_take_who_is_being_resumed_for_one_who_comes_down() -> None:
    """It lost its GPUs at the very moment at which it came down; now it has them back and resuming takes a minute."""
    policy = POLICIES["las"](Terms(4, resume=60))
    back = Job(0, 0, 4, 50 * HOUR, running=True, attained=3250 / 4, begins=160, changed=100, suspensions=1)
    waits = Job(1, 0, 4, 50 * HOUR, attained=3250 / 4, suspensions=1, changed=90)
    for now in (100, 130, 160, 161):
        assert policy.rank(back, now) < policy.rank(waits, now)


def test_drf_serves_the_tenant_that_has_least() -> None:
    jobs = [Request(0, 1, 100, "a") for _ in range(8)] + [Request(1, 1, 100, "b")]
    assert ends("drf", jobs)[8] == 200
    assert ends("fit-first", jobs)[8] == 300


@st.composite
def workloads(draw: st.DrawFn) -> list[Request]:
    one = st.builds(
        Request,
        st.integers(0, 40_000).map(float),
        st.integers(1, 8),
        st.integers(1, 30_000).map(float),
        st.sampled_from(["a", "b", "c"]),
    )
    return draw(st.lists(one, min_size=1, max_size=25))


class Blind(Job):
    """Its run time is nobody's business."""

    def remaining(self, now: float) -> float:
        raise AssertionError("looked at the run time")


@pytest.mark.parametrize("policy", sorted(POLICIES))
@settings(max_examples=25, deadline=None)
@given(jobs=workloads(), resume=st.sampled_from([0.0, 1.0, 60.0]), suspend=st.sampled_from([0.0, 7.0]))
def test_every_job_ends_and_nothing_is_given_twice(
    policy: str, jobs: list[Request], resume: float, suspend: float
) -> None:
    engine = Engine(jobs, Terms(8, suspend, resume), POLICIES[policy])
    plan = engine.policy.plan

    def checked(queue: Queue, now: float) -> Plan:
        assert queue.free == 8 - sum(job.gpus for job in queue.running.values()) >= 0
        decided = plan(queue, now)
        assert decided == plan(queue, now), "not deterministic"
        assert all(job.running for job in decided.stop) and not any(job.running for job in decided.start)
        assert len({job.number for job in decided.start}) == len(decided.start)
        freed = queue.free + sum(job.gpus for job in decided.stop)
        assert freed >= sum(job.gpus for job in decided.start), "overcommitted"
        assert engine.policy.preempts or not decided.stop
        if not queue.running:
            assert decided.start or not queue.waiting, "everybody waits for nobody"
        return decided

    engine.policy.plan = checked  # type: ignore[method-assign]
    done = engine.run()
    used = 0.0
    for job in done.jobs:
        assert job.started is not None and job.ended is not None
        assert job.ended - job.arrival >= job.work - 1e-3
        assert job.attained == job.work
        used += job.gpus * job.work
    assert done.lost >= 0
    assert (done.lost == 0) or suspend + resume > 0
    span = max(job.ended or 0 for job in done.jobs) - min(job.arrival for job in done.jobs)
    assert used + done.lost <= 8 * span + 1e-3


@pytest.mark.parametrize("policy", sorted(POLICIES))
def test_without_estimates_nobody_looks_at_run_times(policy: str) -> None:
    terms = Terms(2)
    order = POLICIES[policy](terms)
    queue = Queue(terms, order)
    waits = Blind(1, 0.0, 1, 100.0)
    runs = Blind(0, 0.0, 2, 100.0, running=True)
    queue.running[0] = runs
    queue.free = 0
    if order.estimates and order.preempts:
        with pytest.raises(AssertionError, match="run time"):
            queue.wait(waits, 1.0)
    else:
        queue.wait(waits, 1.0)
        order.plan(queue, 1.0)
        order.changes_at(runs, 1.0)


def test_names_and_default() -> None:
    assert DEFAULT in POLICIES and not POLICIES[DEFAULT](Terms(1)).estimates
    for name, make in POLICIES.items():
        assert make(Terms(1)).name == name and make(Terms(1)).summary
