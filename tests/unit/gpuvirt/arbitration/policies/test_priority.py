# SPDX-License-Identifier: Apache-2.0
"""priority: the higher first and at once, a floor for the others."""

from __future__ import annotations

import pytest
from sharing import MS, Sharing

from gpuvirt.arbitration.facts import SECOND, Rules


def mean_wait_ms(made: Sharing, name: str) -> float:
    contender = made.gpu.contenders[name]
    return contender.wait_ns / contender.waits / MS


def test_reference_the_others_have_the_floor() -> None:
    made = Sharing("priority", Rules(floor=0.1))
    made.job("high", priority=1)
    made.job("a", weight=1)
    made.job("b", weight=2)
    made.run(1)
    assert made.shares(20) == pytest.approx({"high": 0.9, "a": 0.1 / 3, "b": 0.2 / 3}, abs=0.01)
    assert made.longest_wait("a", 10) < 1.5


def test_every_lower_priority_has_a_floor() -> None:
    made = Sharing("priority", Rules(floor=0.05))
    for name, priority in (("high", 1), ("ordinary", 0), ("low", -1)):
        made.job(name, priority=priority)
    made.run(1)
    assert made.shares(20) == pytest.approx({"high": 0.9, "ordinary": 0.05, "low": 0.05}, abs=0.01)


def test_it_does_not_wait_for_the_end_of_a_quantum() -> None:
    made = Sharing("priority", Rules(quantum=200 * MS))
    made.job("service", priority=1, work=3 * MS, thinks=17 * MS)
    made.job("training")
    shares = made.shares(10)
    assert mean_wait_ms(made, "service") < 1, "0.1 ms to drain"
    assert shares["training"] > 0.8


def test_who_has_enough_between_the_turns_of_the_others_gets_nothing_extra() -> None:
    """A burst is never interrupted by the floor while the others have more than that over the window."""
    made = Sharing("priority")
    made.job("service", priority=1, work=400 * MS, thinks=400 * MS)  # far longer than the patience of the floor
    made.job("training")
    made.run(5)
    service = made.jobs["service"]
    turns, busy = service.turns, made.busy(service)
    made.run(40)
    assert (made.busy(service) - busy) / (service.turns - turns) > 380 * MS


def test_without_priorities_it_is_fair() -> None:
    made = Sharing("priority")
    made.job("a", weight=1)
    made.job("b", weight=3)
    made.run(1)
    assert made.shares(10) == pytest.approx({"a": 0.25, "b": 0.75}, abs=0.01)


def test_who_wakes_shares_with_its_equals_at_once() -> None:
    """Virtual times of different priorities are never compared: the high one has had far more."""
    made = Sharing("priority")
    made.job("high", priority=1)
    made.job("a")
    made.run(30)
    made.job("b")
    made.run(1)
    shares = made.shares(10)
    assert shares["b"] == pytest.approx(shares["a"], abs=0.01)


def test_nobody_is_interrupted_before_its_minimum_run() -> None:
    made = Sharing("priority", Rules(minimum_run=5 * MS))
    made.job("service", priority=1, work=MS, thinks=MS)
    training = made.job("training")
    made.run(2)
    assert made.busy(training) / training.turns > 4.9 * MS
    assert made.gpu.contenders["training"].held_ns + made.gpu.contenders["training"].open_ns > SECOND
