# SPDX-License-Identifier: Apache-2.0
"""A holder that has nothing to do: how long it keeps the GPU from whom."""

from __future__ import annotations

import pytest
from scene import MS, Scene, words

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Grounds, Word


def idle(scene: Scene, policy: str) -> tuple[int, int]:
    """a has the GPU since some time and has just become idle; b is there."""
    scene.gpu.policy = policy
    first, second = scene.run("a"), scene.attach("b")
    scene.now += 1  # far less than a minimum run
    events.idle(scene.gpu, first)
    return first, second


def urgent(scene: Scene, policy: str) -> None:
    contender = scene.gpu.contenders["b"]
    if policy == "priority":
        contender.priority = 1
    else:
        contender.due_in, contender.work_ns = 1000 * MS, MS  # far away: nobody who works would be interrupted for it


@pytest.mark.parametrize("policy", ["priority", "deadline"])
def test_who_outranks_it_has_the_idle_gpu_at_once(policy: str) -> None:
    scene = Scene(quantum=20 * MS, idle_hold=MS, overlap="never")
    first, second = idle(scene, policy)
    urgent(scene, policy)
    assert words(scene.want(second))[-1] == ("a", Word.DRAIN)
    assert words(scene.drained(first)) == [("a", Word.CLOSED), ("b", Word.OPEN)]


@pytest.mark.parametrize("policy", ["priority", "deadline", "fair"])
def test_among_equals_it_keeps_the_gpu_for_a_moment(policy: str) -> None:
    scene = Scene(quantum=20 * MS, idle_hold=MS)
    _, second = idle(scene, policy)
    assert words(scene.want(second)) == [("a", Word.GRANTED)]
    assert words(scene.later(MS - 1)) == []
    assert words(scene.later(1)) == [("a", Word.DRAIN)]


@pytest.mark.parametrize("policy", ["priority", "deadline"])
def test_work_is_not_interrupted_before_its_minimum_run(policy: str) -> None:
    scene = Scene(quantum=20 * MS, minimum_run=3 * MS, overlap="never")
    scene.gpu.policy = policy
    scene.run("a")
    second = scene.attach("b")
    urgent(scene, policy)
    assert words(scene.want(second)) == [("a", Word.GRANTED)]
    assert words(scene.later(3 * MS - 1)) == []


def test_the_floor_is_no_shorter_for_a_pause() -> None:
    scene = Scene(quantum=20 * MS, idle_hold=MS, overlap="never")
    _, second = idle(scene, "priority")
    scene.gpu.contenders["a"].grounds = Grounds.FLOOR
    urgent(scene, "priority")
    assert words(scene.want(second)) == [("a", Word.GRANTED)]
    assert words(scene.later(MS)) == [("a", Word.DRAIN)]
