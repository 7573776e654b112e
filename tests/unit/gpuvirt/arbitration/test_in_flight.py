# SPDX-License-Identifier: Apache-2.0
"""How much work may be in flight: nothing is bounded alone, and little beside a job that must not wait."""

from __future__ import annotations

from scene import MS, Scene

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Action, Store, Word


def windows(actions: list[Action]) -> list[tuple[str, Word, int]]:
    return [(action.contender, action.word, action.window) for action in actions if isinstance(action, Store)]


def rank(scene: Scene, job: str, priority: int) -> None:
    scene.gpu.policy = "priority"
    scene.gpu.contenders[job].priority = priority


def test_alone_nothing_is_bounded_and_beside_a_waiter_a_tenth_of_the_quantum() -> None:
    scene = Scene(quantum=20 * MS)
    first = scene.attach("a")
    assert windows(scene.want(first)) == [("a", Word.OPEN, 0)]
    second = scene.attach("b")  # it is there, and wants nothing
    assert scene.gpu.contenders["a"].window == 0
    assert windows(scene.want(second)) == [("a", Word.GRANTED, 2 * MS)]
    events.gone(scene.gpu, second)
    assert windows(scene.decide()) == [("a", Word.OPEN, 0)]


def test_a_long_quantum_does_not_make_a_long_window() -> None:
    scene = Scene(quantum=100 * MS, window_max=5 * MS)
    scene.run("a")
    assert windows(scene.want(scene.attach("b"))) == [("a", Word.GRANTED, 5 * MS)]


def test_a_quantum_that_is_long_for_dear_switches_has_a_longer_window() -> None:
    scene = Scene(quantum=20 * MS, window_max=5 * MS)
    scene.run("a")
    scene.gpu.contenders["a"].quantum = 2000 * MS
    assert windows(scene.want(scene.attach("b"))) == [("a", Word.GRANTED, 50 * MS)]


def test_a_bound_of_nothing_is_none() -> None:
    scene = Scene(quantum=20 * MS, window_max=0)
    scene.run("a")
    second = scene.attach("b")
    assert windows(scene.want(second)) == [("a", Word.GRANTED, 0)]
    events.gone(scene.gpu, second)
    scene.attach("c")
    rank(scene, "c", 1)
    scene.decide()
    assert scene.gpu.contenders["a"].window == scene.gpu.rules.window_urgent, "the other bound is another setting"


def test_who_had_the_gpu_a_moment_ago_is_expected_back_and_the_bound_stays() -> None:
    scene = Scene(quantum=20 * MS)
    first = scene.run("a")
    second = scene.attach("b")
    scene.want(second)
    scene.later_at_wake()
    assert ("b", Word.OPEN, 2 * MS) in windows(scene.drained(first))
    scene.later(999 * MS)
    assert windows(scene.decide()) == []
    scene.later_at_wake()
    assert scene.gpu.contenders["b"].window == 0


def test_an_urgent_job_that_is_idle_makes_the_window_small_and_its_end_wide() -> None:
    scene = Scene(quantum=20 * MS, window_urgent=MS // 2)
    scene.run("a")
    urgent = scene.attach("b")
    rank(scene, "b", 1)
    assert windows(scene.decide()) == [("a", Word.OPEN, MS // 2)]
    assert windows(scene.decide()) == []  # once
    assert windows(scene.want(urgent)) == [("a", Word.GRANTED, MS // 2)]
    rank(scene, "b", 0)
    assert windows(scene.decide()) == [("a", Word.GRANTED, 2 * MS)]
    rank(scene, "b", 1)
    scene.decide()
    events.gone(scene.gpu, urgent)
    assert windows(scene.decide()) == [("a", Word.OPEN, 0)]


def test_the_urgent_job_itself_is_not_bounded_by_those_that_can_wait() -> None:
    scene = Scene(quantum=20 * MS)
    scene.attach("a")
    first = scene.attach("b")
    rank(scene, "b", 1)
    assert windows(scene.want(first)) == [("b", Word.OPEN, 0)]


def test_work_that_waits_for_its_own_threads_is_not_bounded() -> None:
    scene = Scene(quantum=20 * MS)
    first = scene.run("a")
    scene.want(scene.attach("b"))
    scene.later_at_wake()
    scene.want(first)
    assert windows(scene.stuck(first)) == [("a", Word.STEP, 0)]
