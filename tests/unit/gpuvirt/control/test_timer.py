# SPDX-License-Identifier: Apache-2.0
"""The timer for ends of leases."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from gpuvirt.control.timer import Timer


@pytest.fixture
def timer() -> Iterator[Timer]:
    made = Timer()
    yield made
    made.close()
    made.close()  # twice is once


def comes(timer: Timer, seconds: float) -> bool:
    return bool(select.select([timer.fd], [], [], seconds)[0])


def test_it_comes_once_and_never_early(timer: Timer) -> None:
    began = time.monotonic_ns()
    timer.start(3_000_000)
    assert comes(timer, 30)
    assert time.monotonic_ns() - began >= 3_000_000
    assert timer.take()
    assert not timer.take()
    assert not comes(timer, 0)


def test_what_is_over_comes_at_once(timer: Timer) -> None:
    timer.start(-5)
    assert comes(timer, 30)


def test_a_later_start_replaces_an_earlier_one(timer: Timer) -> None:
    timer.start(1)
    assert comes(timer, 30)
    timer.start(3600 * 10**9)
    assert not comes(timer, 0)
    assert not timer.take()


def test_stopped_it_does_not_come(timer: Timer) -> None:
    timer.start(1)
    assert comes(timer, 30)
    timer.stop()
    assert not comes(timer, 0)
    timer.stop()
