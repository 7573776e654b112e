# SPDX-License-Identifier: Apache-2.0
"""Switches read from the daemon's debug log."""

from __future__ import annotations

import json

from harness import switches

START = 1_700_000_000  # of the log's clock, seconds; CLOCK_MONOTONIC says 1,000 then
OFFSET = (START - 1000) * 10**9


def line(milliseconds: int, event: str, job: str, **fields: object) -> str:
    """As the daemon writes it."""
    stamp = f"2023-11-14T22:13:{20 + milliseconds // 1000:02}.{milliseconds % 1000:03}000Z"
    return json.dumps({"gpu": 0, "job": job, **fields, "event": event, "level": "debug", "timestamp": stamp})


LOG = [
    "not JSON",
    '{"event": "without a time"}',
    line(0, "lease", "j1", word="open", epoch=1),
    line(100, "lease", "j1", word="granted", epoch=1),
    line(500, "lease", "j1", word="drain", epoch=1),
    line(501, "lease", "j1", word="closed", epoch=1),
    line(900, "evicted", "j1", moved=4000, zero=3),
    line(910, "evicted", "j1", moved=100, zero=2),
    line(1200, "restored", "j2", moved=4096),
    line(1201, "lease", "j2", word="granted", epoch=2),
    line(1300, "lease", "j2", word="drain", epoch=2),
    line(1301, "lease", "j2", word="closed", epoch=2),
    line(1302, "lease", "j2", word="granted", epoch=3),  # back to who had it: no switch
    line(1400, "lease", "j2", word="drain", epoch=3),  # not over yet
]


def test_times_are_those_of_the_monotonic_clock() -> None:
    lines = switches.read(LOG, OFFSET)
    assert len(lines) == len(LOG) - 2
    assert lines[0].at == 1000 * 10**9
    assert (lines[0].event, lines[0].job, lines[0].fields["word"]) == ("lease", "j1", "open")


def test_a_switch_from_drain_to_grant_with_its_moves() -> None:
    (switch,) = switches.switches(switches.read(LOG, OFFSET))
    assert (switch.giver, switch.taker) == ("j1", "j2")
    at = [moment - 1000 * 10**9 for moment in (switch.told, switch.drained, switch.granted)]
    assert at == [500_000_000, 501_000_000, 1_201_000_000]
    assert switch.moved("evicted") == 4100
    assert switch.moved("evicted", "zero") == 5
    assert switch.moved("restored") == 4096
    assert switch.moved("restored", "zero") == 0
