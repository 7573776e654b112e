# SPDX-License-Identifier: Apache-2.0
"""Memory that cannot be moved, step by step: it stays, and whoever waits because of it is told."""

from __future__ import annotations

from scene import Scene, sends

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Move
from gpuvirt.arbitration.ledger import quota


def client_of(scene: Scene, number: int) -> Client:
    return events.find(scene.gpu, number)[1]


def holding(scene: Scene, charged: int, native: int) -> int:
    """A job "a" that has so much and has given the GPU back."""
    number = scene.run("a", charged)
    events.memory(scene.gpu, number, charged, charged, native)
    return number


def test_only_the_movable_part_is_evicted() -> None:
    scene = Scene()
    a = holding(scene, 80, 30)
    b = scene.attach("b")
    scene.want(b, 60)
    scene.later_at_wake()
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 40), (b, Move.RESTORE, 60)]
    assert client_of(scene, a).native == 30
    scene.moved(a)
    assert sends(scene.decide()) == []
    assert client_of(scene, b).request is not None  # RESTORE is out
    scene.moved(b)
    assert scene.gpu.holder == "b"


def test_who_waits_for_fixed_memory_of_others_is_told_whose_and_what() -> None:
    scene = Scene()
    a = holding(scene, 80, 50)
    client_of(scene, a).fixed_kinds = ("CUDA arrays",)
    b = scene.attach("b")
    scene.want(b, 60)
    scene.later_at_wake()
    assert sends(scene.drained(a)) == []  # nothing would help: no copy for nothing
    reason = scene.gpu.contenders["b"].reason
    assert "job a holds 50 B that cannot be moved: CUDA arrays" in reason
    assert "needs 60 B of 100 B" in reason
    events.memory(scene.gpu, a, 30, 30, 0)  # it frees them
    events.gone(scene.gpu, a)
    scene.decide()
    assert client_of(scene, b).request is not None


def test_an_answer_above_the_target_is_believed_and_not_asked_again_at_once() -> None:
    scene = Scene()
    a = holding(scene, 80, 0)
    b = scene.attach("b")
    scene.want(b, 60)
    scene.later_at_wake()
    scene.drained(a)
    request = client_of(scene, a).request
    assert request is not None
    assert request.bytes == 40
    # 70 of its bytes became fixed while the EVICT was on its way.
    events.moved(scene.gpu, a, Move.EVICT, 0, 80, 70, 10, 0, 1, scene.now, 70)
    assert (client_of(scene, a).allowance, client_of(scene, a).native) == (70, 70)
    assert sends(scene.decide()) == []
    assert "job a holds 70 B that cannot be moved" in scene.gpu.contenders["b"].reason


def test_the_holder_gets_room_for_fixed_memory_without_losing_its_lease() -> None:
    scene = Scene()
    a = scene.run("a", 50)
    b = scene.attach("b")
    scene.want(b, 40)
    scene.later_at_wake()
    scene.drained(a)
    scene.moved(a)  # what it was promised and does not use
    scene.moved(b)
    assert scene.gpu.holder == "b"
    # It wants 30 more that must be there at once: charged, not resident.
    asked = scene.want(b, 70, native=0)
    assert (a, Move.EVICT, 30) in sends(asked)
    assert (b, Move.RESTORE, 70) in sends(scene.moved(a))
    assert scene.gpu.holder == "b"


def test_nobody_has_more_fixed_memory_than_it_may_have_at_all() -> None:
    scene = Scene()
    a = scene.run("a", 50)
    allowance = client_of(scene, a).allowance
    events.memory(scene.gpu, a, 40, 1000, 1000)
    assert client_of(scene, a).native <= min(40, allowance)


def test_fixed_memory_needs_no_host_memory() -> None:
    assert quota(None, 100, 0, host_room=30, here=80).bytes == 30
    assert quota(None, 100, 20, host_room=30, here=80, native=20).bytes == 50
