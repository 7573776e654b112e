# SPDX-License-Identifier: Apache-2.0
"""Drains that do not end, because what is on the GPU waits for threads of its own job."""

from __future__ import annotations

import pytest
from scene import MS, Scene, sends, words

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Move, Word


def test_a_drain_that_waits_for_its_own_threads_gets_the_lease_back() -> None:
    scene = Scene(quantum=20 * MS, give_back=10 * MS, drain_budget=500 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    assert words(scene.later(20 * MS)) == [("a", Word.DRAIN)]
    epoch = scene.gpu.contenders["a"].epoch

    assert words(scene.stuck(a)) == []  # long work alone is no reason
    assert words(scene.want(a)) == [("a", Word.STEP)]  # a thread waits at its gate: perhaps for that
    assert scene.gpu.contenders["a"].epoch == epoch + 1
    assert scene.wake == scene.now + 10 * MS
    events.drained(scene.gpu, a, epoch)  # of an epoch that is over
    assert words(scene.decide()) == []
    assert words(scene.later(10 * MS)) == [("a", Word.DRAIN)]
    assert words(scene.drained(a))[0] == ("a", Word.CLOSED)
    assert scene.gpu.holder == "b"


def test_who_never_drains_gets_the_lease_back_ever_more_rarely() -> None:
    scene = Scene(quantum=20 * MS, give_back=10 * MS, drain_budget=500 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    scene.later(20 * MS)
    waits = []
    for _ in range(4):
        began = scene.now
        scene.want(a)
        actions = scene.stuck(a)
        while ("a", Word.STEP) not in words(actions):
            actions = scene.later_at_wake()
        waits.append((scene.now - began) // MS)
        while ("a", Word.DRAIN) not in words(actions):
            actions = scene.later_at_wake()
    assert waits == [0, 62, 125, 250]
    assert words(scene.drained(a))[0] == ("a", Word.CLOSED)
    assert scene.gpu.holder == "b"


@pytest.mark.parametrize("waits", [True, False])
def test_when_steps_do_not_help_all_may_go_on(waits: bool) -> None:
    """A thread that must give more to the very stream that waits, before it writes what that waits for."""
    scene = Scene(quantum=20 * MS, give_back=10 * MS, drain_budget=500 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    scene.later(20 * MS)
    given = []
    for _ in range(8):
        scene.want(a)
        actions = scene.stuck(a, waits)
        while not (back := [word for key, word in words(actions) if key == "a" and word is not Word.DRAIN]):
            actions = scene.later_at_wake()
        given += back
        while ("a", Word.DRAIN) not in words(actions):
            actions = scene.later_at_wake()
    assert given == [Word.STEP] * 4 + [Word.GRANTED if waits else Word.STEP, Word.STEP] * 2
    assert words(scene.drained(a))[0] == ("a", Word.CLOSED)
    assert scene.gpu.holder == "b"


def until_it_drains(scene: Scene, key: str) -> None:
    while scene.gpu.contenders[key].word is not Word.DRAIN:
        scene.later_at_wake()


def given_back(scene: Scene, client: int, times: int, waits: bool) -> list[tuple[Word, int]]:
    """What the job gets back for how long, so many times, while its drain does not end."""
    given: list[tuple[Word, int]] = []
    for _ in range(times):
        scene.want(client)
        actions = scene.stuck(client, waits)
        while not (back := [word for key, word in words(actions) if key == "a" and word is not Word.DRAIN]):
            actions = scene.later_at_wake()
        began = scene.now
        while ("a", Word.DRAIN) not in words(actions):
            actions = scene.later_at_wake()
        given.append((back[0], (scene.now - began) // MS))
    return given


@pytest.mark.parametrize(("waits", "steps"), [(True, 4), (False, 8)])
def test_each_time_all_may_go_on_is_longer_than_the_one_before(waits: bool, steps: int) -> None:
    """On a busy host the thread that must get on may not run for long."""
    scene = Scene(quantum=20 * MS, give_back=10 * MS, drain_budget=500 * MS)
    a = scene.run("a")
    scene.want(scene.attach("b"))
    scene.later(20 * MS)
    given = given_back(scene, a, steps + 8, waits)
    assert [word for word, _ in given] == [Word.STEP] * steps + [Word.GRANTED, Word.STEP] * 4
    grown = [40, 80, 160, 320] if waits else [40, 160, 640, 2000]  # one that waits for values is tried more often
    assert [length for word, length in given if word is Word.GRANTED] == grown


def test_who_needed_all_to_go_on_gets_that_first_the_next_time() -> None:
    scene = Scene(quantum=20 * MS, give_back=10 * MS, drain_budget=500 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    scene.later(20 * MS)
    assert given_back(scene, a, 5, True)[-1][0] is Word.GRANTED
    for first, times in ((Word.GRANTED, 1), (Word.GRANTED, 9), (Word.STEP, 1)):  # the second one did not help
        scene.want(a)
        scene.drained(a)
        assert scene.gpu.holder == "b"
        until_it_drains(scene, "b")
        scene.drained(b)
        assert scene.gpu.holder == "a"
        scene.want(b)
        until_it_drains(scene, "a")
        assert given_back(scene, a, times, True)[0][0] is first


def test_nobody_else_left_while_it_steps() -> None:
    scene = Scene(quantum=20 * MS, give_back=10 * MS)
    a = scene.run("a")
    b = scene.attach("b")
    scene.want(b)
    scene.later(20 * MS)
    scene.want(a)
    assert words(scene.stuck(a)) == [("a", Word.STEP)]
    events.gone(scene.gpu, b)
    assert words(scene.later(10 * MS)) == [("a", Word.OPEN)]


def test_what_a_restart_found_undrained_may_wait_for_its_own_threads() -> None:
    """The daemon was killed while a drain did not end: the next one is told so, and gives that job the lease first."""
    scene = Scene(give_back=10 * MS)
    a, b = scene.attach("a"), scene.attach("b")
    client = events.find(scene.gpu, a)[1]
    client.charged = client.resident = client.allowance = 30
    client.drained = client.restored = False
    scene.want(b, 20)
    scene.stuck(a, epoch=0)
    assert words(scene.decide()) == []  # none of its threads waits: its work is merely long
    assert sends(scene.want(a, 30)) == [(a, Move.RESTORE, 37)]
    assert words(scene.moved(a)) == [("a", Word.STEP)]
    assert words(scene.later(10 * MS)) == [("a", Word.DRAIN)]
    assert words(scene.drained(a))[0] == ("a", Word.CLOSED)
    scene.moved(b)
    assert scene.gpu.holder == "b"
