# SPDX-License-Identifier: Apache-2.0
"""deadline: what can be in time is, with few interruptions; the rest shares."""

from __future__ import annotations

import pytest
from sharing import MS, Sharing

from gpuvirt.arbitration.bursts import begin_burst, remaining_ns
from gpuvirt.arbitration.facts import Client, Contender, Gpu, Rules
from gpuvirt.arbitration.policies.deadline import due_at, latest_start


def late(made: Sharing, name: str, seconds: float) -> int:
    """How many of the bursts of the next `seconds` took longer than they may."""
    contender = made.gpu.contenders[name]
    count, counted = 0, True
    before = contender.ready_since
    for _ in range(round(seconds * 1000)):
        made.run(0.001)
        if contender.ready_since != before:
            before, counted = contender.ready_since, False
        job = made.jobs[name]
        if job.worker.busy and not counted and made.now > (before or 0) + contender.due_in + MS:
            count, counted = count + 1, True
    return count


def test_reference_deadlines_are_met_and_the_rest_has_what_is_left() -> None:
    made = Sharing("deadline", Rules(quantum=100 * MS))
    made.job("camera", due_in=30 * MS, work=8 * MS, thinks=24 * MS)
    made.job("planner", due_in=200 * MS, work=30 * MS, thinks=90 * MS)
    made.job("training")
    made.run(2)
    assert late(made, "camera", 5) == 0
    assert late(made, "planner", 5) == 0
    assert made.shares(5)["training"] > 0.35


def test_what_is_due_much_later_interrupts_nobody() -> None:
    made = Sharing("deadline")
    made.job("report", due_in=500 * MS, work=10 * MS, thinks=500 * MS)
    made.job("training")
    made.run(10)
    switches = made.gpu.switches
    made.run(10)
    assert made.gpu.switches - switches < 45  # to it and back, once in half a second


def test_who_never_pauses_is_like_the_rest() -> None:
    made = Sharing("deadline")
    made.job("hog", due_in=10 * MS)
    made.job("training")
    made.run(1)
    assert made.shares(10) == pytest.approx({"hog": 0.5, "training": 0.5}, abs=0.02)


def test_the_rest_has_a_floor() -> None:
    made = Sharing("deadline", Rules(floor=0.1))
    for index in range(12):  # together they want the GPU always, with time to spare for each
        made.job(f"d{index}", due_in=2000 * MS, work=100 * MS, thinks=10 * MS)
    made.job("training")
    made.run(1)
    assert made.shares(20)["training"] > 0.08


def test_when_it_must_begin() -> None:
    gpu = Gpu("gpu", 100, Rules(quantum=20 * MS, minimum_run=MS))
    soon = Contender("soon", due_in=50 * MS, ready_since=0, work_ns=20 * MS)
    later = Contender("later", due_in=60 * MS, ready_since=0, work_ns=35 * MS)
    for contender in (soon, later):
        contender.clients[len(gpu.contenders)] = Client(len(gpu.contenders), waiting=True)
        gpu.contenders[contender.key] = contender
    assert latest_start(gpu, 0) == 60 * MS - 55 * MS - 6 * MS, "both, one after the other, and the time to drain"
    later.work_ns = 0
    assert latest_start(gpu, 3) == 3, "who knows how long it takes"
    assert due_at(soon, 30 * MS) == 50 * MS
    assert due_at(soon, 31 * MS) is None, "it cannot be in time any more"


def test_what_a_burst_takes_is_learned() -> None:
    job = Contender("job")
    begin_burst(job, 0)
    assert remaining_ns(job) == 0
    job.burst_ns = 8 * MS
    begin_burst(job, 10)
    assert remaining_ns(job) == 8 * MS
    job.burst_ns = 3 * MS
    assert remaining_ns(job) == 5 * MS
    begin_burst(job, 20)
    assert 4 * MS < remaining_ns(job) < 8 * MS, "it falls slowly"
    assert job.ready_since == 20
