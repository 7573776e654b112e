# SPDX-License-Identifier: Apache-2.0
"""Processes that do not answer EVICT or RESTORE: nobody else waits for ever, and the answer may come late."""

from __future__ import annotations

from scene import MS, Scene, cancelled, credits, sends, words

from gpuvirt.arbitration import events, ledger
from gpuvirt.arbitration.facts import Move, Word

LONG = 6000 * MS


def stuck_restore() -> tuple[Scene, int, int, int]:
    """b is next and was asked to RESTORE; c waits, too, and fits."""
    scene = Scene()
    a = scene.run("a", 60)
    b, c = scene.attach("b"), scene.attach("c")
    scene.want(b, 60)
    scene.later_at_wake()
    scene.want(c, 10)
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 40), (b, Move.RESTORE, 60)]
    assert credits(scene.moved(a)) == [(b, 60)]
    return scene, a, b, c


def test_a_restore_that_is_not_answered_lets_the_others_go_on() -> None:
    scene, a, b, _ = stuck_restore()
    events.want(scene.gpu, a, 10, 10, scene.now)
    assert scene.wake is not None  # somebody will look again
    actions = scene.later(LONG)
    assert scene.gpu.contenders["b"].reason == f"does not answer RESTORE: client {b}"
    assert sends(actions)
    while open_ := [client for client in scene.gpu.clients() if client.request and not client.request.late]:
        scene.moved(open_[0].number)
    assert scene.gpu.holder in ("a", "c")
    assert ledger.promised(scene.gpu.clients()) <= scene.gpu.capacity
    scene.moved(b)  # the answer, late
    assert scene.gpu.contenders["b"].reason == ""
    for _ in range(20):
        if scene.gpu.holder == "b":
            break
        holder = scene.gpu.contenders[scene.gpu.holder] if scene.gpu.holder is not None else None
        if holder is not None and holder.word is Word.DRAIN:
            scene.drained(next(iter(holder.clients)))
        for client in scene.gpu.clients():
            if client.request is not None:
                scene.moved(client.number)
        scene.later(30 * MS)
    assert scene.gpu.holder == "b"


def test_an_evict_that_is_not_answered_lets_go_on_who_needs_no_room() -> None:
    scene = Scene()
    a = scene.run("a", 60)
    b, c = scene.attach("b"), scene.attach("c")
    scene.want(b, 60)
    scene.later_at_wake()
    scene.want(c)
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 40), (b, Move.RESTORE, 60)]
    actions = scene.later(LONG)
    assert cancelled(actions) == [b]  # what it waits for will not come
    assert words(actions) == [("c", Word.OPEN)]
    scene.moved(b, status=600)
    assert scene.gpu.contenders["a"].reason == f"does not answer EVICT: client {a}"
    assert "do not answer" in scene.gpu.contenders["b"].reason
    scene.moved(a)
    scene.later(30 * MS)
    assert scene.gpu.contenders["c"].word is Word.DRAIN  # b can have its room now
    scene.drained(c)
    assert words(scene.moved(b)) == [("b", Word.OPEN)]  # it had its RESTORE ahead


def test_a_silent_process_that_dies_frees_everything() -> None:
    scene, _, b, c = stuck_restore()
    scene.later(LONG)
    events.gone(scene.gpu, b)
    scene.decide()
    events.ended(scene.gpu, "b")
    assert {client.number for client in scene.gpu.clients()} >= {c}
    assert ledger.promised(scene.gpu.clients()) <= scene.gpu.capacity
