# SPDX-License-Identifier: Apache-2.0
"""The daemon's failpoints: what the variable says, and when a rule acts."""

from __future__ import annotations

import pytest

from gpuvirt.control import messages
from gpuvirt.control.block import LeaseState
from gpuvirtd import failpoints
from gpuvirtd.failpoints import Point, Rule, parse


def test_the_variable() -> None:
    rules = parse("evict_sent:kill, grant_stored:fail:3,restored_taken:stall=250:2,back_taken:stop")
    assert rules == {
        Point.EVICT_SENT: Rule("kill"),
        Point.GRANT_STORED: Rule("fail", 3),
        Point.RESTORED_TAKEN: Rule("stall", 2, 0.25),
        Point.BACK_TAKEN: Rule("stop"),
    }


@pytest.mark.parametrize("text", ["", "evict_sent", "evict_sent:explode", "nothing:fail", ":", ",,"])
def test_what_is_misspelt_is_left_out(text: str) -> None:
    assert parse(text) == {}


def test_a_rule_acts_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(failpoints, "RULES", parse("evict_sent:fail:2"))
    evict = messages.Evict(1)
    assert [failpoints.message(evict) for _ in range(4)] == [False, True, False, False]
    assert not failpoints.message(messages.Wake())
    assert not failpoints.lease(LeaseState.DRAIN)
    assert capsys.readouterr().err == "failpoint evict_sent\n"


def test_every_point_belongs_to_a_step() -> None:
    assert {*failpoints.BY_MESSAGE.values(), *failpoints.BY_STATE.values()} == set(Point)
