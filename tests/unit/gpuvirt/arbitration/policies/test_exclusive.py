# SPDX-License-Identifier: Apache-2.0
"""exclusive: one after the other, in the order in which they came."""

from __future__ import annotations

from scene import MS, Scene, words

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Word
from gpuvirt.arbitration.policies import policy_of


def test_reference_one_job_after_the_other() -> None:
    scene = Scene()
    scene.gpu.policy = "exclusive"
    first = scene.run("first")
    late, later = scene.attach("late"), scene.attach("later")
    scene.later(MS)
    assert scene.want(later) == []
    scene.later(MS)
    assert scene.want(late) == []
    assert scene.later(3_600_000 * MS) == []
    events.idle(scene.gpu, first)
    assert scene.later(3_600_000 * MS) == [], "it has nothing to do and keeps the GPU"
    assert scene.gpu.contenders["first"].word is Word.OPEN
    assert "job first has the GPU" in policy_of(scene.gpu).admits(scene.gpu, scene.gpu.contenders["late"])
    events.gone(scene.gpu, first)
    assert ("later", Word.OPEN) in words(scene.decide()), "who waited longest, for itself"
    assert policy_of(scene.gpu).admits(scene.gpu, scene.gpu.contenders["later"]) == ""
    events.gone(scene.gpu, later)
    assert ("late", Word.OPEN) in words(scene.decide())


def test_who_holds_the_gpu_when_it_becomes_exclusive_keeps_it() -> None:
    scene = Scene()
    first, second = scene.run("first"), scene.attach("second")
    scene.want(second)
    events.set_policy(scene.gpu, "exclusive", scene.now)
    assert words(scene.decide()) == [("first", Word.OPEN)]
    assert scene.later(3_600_000 * MS) == []
    events.set_policy(scene.gpu, "fair", scene.now)
    assert words(scene.decide()) == [("first", Word.GRANTED)]
    scene.later_at_wake()
    scene.drained(first)
    assert scene.gpu.holder == "second"
