# SPDX-License-Identifier: Apache-2.0
"""A job that does not give the GPU back, and jobs that need not wait for the end of a drain."""

from __future__ import annotations

import pytest
from scene import MS, Scene, sends, words

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Action, Move, Signal, Signals, Word
from gpuvirt.arbitration.fairshare import charged_vtime

SECOND = 1000 * MS


def signals(actions: list[Action]) -> list[tuple[str, Signals]]:
    return [(action.contender, action.kind) for action in actions if isinstance(action, Signal)]


def draining(scene: Scene, charged: int = 0) -> tuple[int, int]:
    """a drains, b waits."""
    first = scene.run("a", charged)
    second = scene.attach("b")
    scene.want(second)
    assert words(scene.later_at_wake()) == [("a", Word.DRAIN)]
    return first, second


# ---- the ladder


def test_by_default_nothing_happens_to_it() -> None:
    scene = Scene()
    draining(scene)
    for _ in range(100):
        actions = scene.later(SECOND)
        assert signals(actions) == words(actions) == []


def test_killed_after_so_long_if_somebody_waits() -> None:
    scene = Scene(on_overrun="kill", overrun_after=2 * SECOND)
    first, _ = draining(scene)
    assert signals(scene.later(2 * SECOND - 1)) == []
    assert scene.wake == scene.now + 1
    assert signals(scene.later(1)) == [("a", Signals.KILL)]
    assert signals(scene.later(5 * SECOND)) == []  # once
    events.gone(scene.gpu, first)
    assert words(scene.decide()) == [("a", Word.CLOSED), ("b", Word.OPEN)]


@pytest.mark.parametrize("rung", ["stop", "kill"])
def test_nobody_suffers_nothing_happens(rung: str) -> None:
    scene = Scene(on_overrun=rung, overrun_after=2 * SECOND)
    _, second = draining(scene)
    events.gone(scene.gpu, second)
    assert signals(scene.later(10 * SECOND)) == []
    assert signals(scene.want(scene.attach("c"))) == [("a", Signals(rung))]


def test_the_time_runs_on_while_it_gets_the_lease_back_for_moments() -> None:
    scene = Scene(on_overrun="kill", overrun_after=SECOND)
    first, _ = draining(scene)
    scene.want(first)
    asked = scene.gpu.contenders["a"].asked_ns
    killed: list[tuple[str, Signals]] = []
    while not killed and scene.now < asked + 3 * SECOND:
        killed = signals(scene.stuck(first)) + signals(scene.later_at_wake())
    assert killed == [("a", Signals.KILL)]
    assert scene.now - asked < 2 * SECOND


def test_stopped_it_goes_on_at_its_turn() -> None:
    scene = Scene(on_overrun="stop", overrun_after=2 * SECOND, quantum=20 * MS)
    first, second = draining(scene)
    actions = scene.later(2 * SECOND)
    assert signals(actions) == [("a", Signals.STOP)]
    assert words(actions) == [("b", Word.GRANTED)]  # a waits: for its next turn
    turns = []
    for _ in range(300):  # it has had a hundred quanta
        actions = scene.later_at_wake()
        turns += words(actions)
        if ("b", Word.DRAIN) in words(actions):
            scene.want(second)
            turns += words(actions := scene.drained(second))
            if signals(actions):
                break
    assert signals(actions) == [("a", Signals.CONTINUE)]
    assert turns[-1] == ("a", Word.GRANTED)
    assert scene.gpu.contenders["a"].overrun_ns > 0
    scene.later_at_wake()
    assert words(scene.drained(first)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


def test_stopped_it_goes_on_when_the_others_have_gone() -> None:
    scene = Scene(on_overrun="stop", overrun_after=SECOND)
    first, second = draining(scene)
    assert words(scene.later(SECOND)) == [("b", Word.GRANTED)]
    events.gone(scene.gpu, second)
    actions = scene.decide()
    assert signals(actions) == [("a", Signals.CONTINUE)]
    assert words(actions) == [("b", Word.CLOSED), ("a", Word.OPEN)]
    assert scene.gpu.holder == "a"
    events.gone(scene.gpu, first)
    scene.decide()
    assert scene.gpu.holder is None


def test_memory_of_a_stopped_job_stays_and_others_use_the_rest() -> None:
    scene = Scene(on_overrun="stop", overrun_after=SECOND)
    first = scene.run("a", 60)
    events.find(scene.gpu, first)[1].allowance = 60  # what it does not use went to others before
    second = scene.attach("b")
    scene.want(second, 30)
    scene.later_at_wake()
    scene.moved(second)  # there is room: it came in while a was at work
    actions = scene.later(SECOND)
    assert signals(actions) == [("a", Signals.STOP)]
    assert words(actions) == [("b", Word.GRANTED)]
    actions = scene.want(second, 50)  # it grows beyond what is left
    assert all(number != first for number, _, _ in sends(actions))
    assert events.find(scene.gpu, first)[1].allowance == 60
    assert "60 B are held by processes that do not answer" in scene.gpu.contenders["b"].reason


# ---- overlap


def urgent(scene: Scene, job: str = "b") -> None:
    scene.gpu.policy = "priority"
    scene.gpu.contenders[job].priority = 1


def test_who_must_not_wait_gets_the_gpu_when_the_drain_begins() -> None:
    scene = Scene()
    first = scene.run("a")
    second = scene.attach("b")
    urgent(scene)
    scene.want(second)
    assert words(scene.later_at_wake()) == [("a", Word.DRAIN), ("b", Word.OPEN)]
    before = scene.gpu.contenders["a"].vtime
    scene.now += 3 * MS
    assert words(scene.drained(first)) == [("a", Word.CLOSED)]
    a = scene.gpu.contenders["a"]
    assert a.vtime - before == charged_vtime(3 * MS, a.weight)  # what was left of it is its debt
    assert a.overrun_ns == 3 * MS
    assert scene.gpu.holder == "b"


def test_among_equals_the_drain_comes_first() -> None:
    scene = Scene()
    first, _ = draining(scene)
    assert words(scene.drained(first)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


@pytest.mark.parametrize(("overlap", "beside"), [("always", True), ("never", False)])
def test_overlap_as_configured(overlap: str, beside: bool) -> None:
    scene = Scene(overlap=overlap)
    scene.run("a")
    second = scene.attach("b")
    urgent(scene)
    scene.want(second)
    assert (("b", Word.OPEN) in words(scene.later_at_wake())) is beside


def test_no_overlap_when_memory_must_move() -> None:
    scene = Scene(overlap="always")
    first = scene.run("a", 60)
    second = scene.attach("b")
    scene.want(second, 60)
    assert words(scene.later_at_wake()) == [("a", Word.DRAIN)]
    assert sends(scene.drained(first)) == [(first, Move.EVICT, 40), (second, Move.RESTORE, 60)]


def test_its_rest_runs_on_and_it_is_granted_again_before_that_has_ended() -> None:
    scene = Scene()
    first = scene.run("a")
    second = scene.attach("b")
    urgent(scene)
    scene.want(second)
    scene.later_at_wake()
    scene.want(first)
    events.idle(scene.gpu, second)
    scene.later(5 * MS)  # b has nothing to do: its lease ends
    scene.later_at_wake()
    assert ("a", Word.OPEN) in words(scene.drained(second)) or scene.gpu.holder == "a"


def test_a_third_one_waits_for_the_drain_of_the_first() -> None:
    scene = Scene(quantum=20 * MS)
    first = scene.run("a")
    second, third = scene.attach("b"), scene.attach("c")
    urgent(scene)
    scene.want(second)
    scene.want(third)
    scene.later_at_wake()
    assert scene.gpu.holder == "b"
    events.idle(scene.gpu, second)
    scene.later_at_wake()
    scene.later_at_wake()
    assert words(scene.drained(second)) == [("b", Word.CLOSED)]
    assert scene.gpu.holder == "a"  # it drains; c comes after it
    assert words(scene.drained(first)) == [("a", Word.CLOSED), ("c", Word.OPEN)]


def test_what_stands_aside_may_die() -> None:
    scene = Scene(overlap="always")
    first = scene.run("a")
    second = scene.attach("b")
    scene.want(second)
    scene.later_at_wake()
    events.gone(scene.gpu, first)
    assert words(scene.decide()) == [("a", Word.CLOSED), ("b", Word.OPEN)]  # nobody else is there: no bound any more
    assert scene.gpu.holder == "b"
