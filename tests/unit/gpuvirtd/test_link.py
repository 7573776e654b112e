# SPDX-License-Identifier: Apache-2.0
"""The link's meter."""

from __future__ import annotations

from gpuvirtd.arbiter.link import KEPT, LinkMeter

SECOND = 1_000_000_000


def test_rates_of_the_last_seconds() -> None:
    meter = LinkMeter()
    assert meter.rates(0) == (0.0, 0.0)
    meter.begin(1)
    for second in range(20):
        meter.sample(second * SECOND, {1: (min(second, 10) * 100, second * 50)})
    assert meter.rates(10 * SECOND + 9 * SECOND) == (0.0, 50.0), "nothing left in the last five seconds"
    assert (meter.out, meter.inward) == (1000, 950)


def test_clients_come_and_go() -> None:
    meter = LinkMeter()
    meter.begin(1)
    meter.sample(0, {1: (0, 0)})
    meter.sample(SECOND, {1: (100, 10), 2: (0, 0)})
    meter.sample(SECOND + 1, {1: (100, 10), 2: (5000, 5000)})
    assert (meter.out, meter.inward) == (100, 10) and not meter.knows(2), "it has not said that it is back"
    meter.begin(2, (5000, 5000))
    meter.begin(2)
    meter.sample(SECOND + 2, {1: (100, 10), 2: (5000, 5000)})
    assert (meter.out, meter.inward) == (100, 10), "what it moved under the daemon of before is not counted twice"
    meter.sample(2 * SECOND, {2: (5001, 5002)})
    assert (meter.out, meter.inward) == (101, 12), "what the dead have moved was moved"
    meter.sample(3 * SECOND, {2: (0, 0)})
    assert (meter.out, meter.inward) == (101, 12), "a counter that falls is no movement"


def test_who_looks_all_the_time_does_not_shorten_the_window() -> None:
    meter = LinkMeter()
    meter.begin(1)
    now = 0
    for step in range(10_000):
        now = step * 1_000_000
        meter.sample(now, {1: (step, 0)})
    out, _ = meter.rates(now)
    assert 950 <= out <= 1050, "bytes a second"
    assert len(meter._samples) <= KEPT
