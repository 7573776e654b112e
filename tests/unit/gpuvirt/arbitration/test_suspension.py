# SPDX-License-Identifier: Apache-2.0
"""A suspended job loses its lease and its memory, and gets both back; whatever else happens meanwhile."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule
from scene import MS, Scene, sends, words
from test_lease_machine import EXAMPLES, Leases

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Move, Word
from gpuvirt.arbitration.suspension import is_away


def test_a_holder_drains_and_its_memory_leaves_although_nobody_else_wants_the_gpu() -> None:
    scene = Scene()
    a = scene.run("a", 60)
    events.set_suspended(scene.gpu, "a", True)
    assert words(scene.decide()) == [("a", Word.DRAIN)]
    actions = scene.drained(a)
    assert words(actions) == [("a", Word.CLOSED)]
    assert sends(actions) == [(a, Move.EVICT, 0)]
    assert not is_away(scene.gpu, "a")
    scene.moved(a)
    assert is_away(scene.gpu, "a")
    assert scene.want(a, 60) == []  # it may want as much as it likes
    events.set_suspended(scene.gpu, "a", False)
    assert [move for _, move, _ in sends(scene.decide())] == [Move.RESTORE]
    assert words(scene.moved(a)) == [("a", Word.OPEN)]


def test_what_cannot_be_moved_and_what_the_host_has_no_room_for_stays() -> None:
    scene = Scene()
    a = scene.run("a", 60)
    scene.want(a, 60, native=20)
    events.set_suspended(scene.gpu, "a", True)
    scene.gpu.host_room = 10
    scene.decide()
    assert sends(scene.drained(a)) == [(a, Move.EVICT, 50)]
    scene.gpu.host_room = 0
    scene.moved(a)
    assert is_away(scene.gpu, "a")


def test_a_restore_under_way_is_called_off() -> None:
    scene = Scene()
    a = scene.run("a", 80)
    b = scene.attach("b")
    scene.want(b, 90)
    scene.later(20 * MS)
    scene.drained(a)
    assert scene.gpu.next == "b"
    events.set_suspended(scene.gpu, "b", True)
    scene.decide()
    scene.moved(a)
    assert scene.gpu.next is None
    assert is_away(scene.gpu, "b") or events.find(scene.gpu, b)[1].request is not None


def test_a_drain_that_waits_for_its_own_threads_gets_its_moment() -> None:
    scene = Scene(quantum=20 * MS, give_back=10 * MS)
    a = scene.run("a")
    events.set_suspended(scene.gpu, "a", True)
    assert words(scene.decide()) == [("a", Word.DRAIN)]
    scene.want(a)
    assert words(scene.stuck(a)) == [("a", Word.STEP)]
    assert words(scene.later(5 * MS)) == []
    assert words(scene.later(5 * MS)) == [("a", Word.DRAIN)]
    assert words(scene.drained(a)) == [("a", Word.CLOSED)]


def test_the_owner_of_an_exclusive_gpu_makes_way() -> None:
    scene = Scene()
    a, b = scene.run("a"), scene.attach("b")
    events.set_policy(scene.gpu, "exclusive", scene.now)
    scene.want(b)
    assert words(scene.later(100 * MS)) == []
    events.set_suspended(scene.gpu, "a", True)
    scene.decide()
    scene.drained(a)
    assert scene.gpu.holder == "b"


class SuspendedLeases(Leases):
    """All that holds without suspension holds with it; and who is suspended is never granted anything."""

    taped = True

    @rule(job=st.sampled_from("abc"), suspended=st.booleans())
    def suspend(self, job: str, suspended: bool) -> None:
        before = self.epochs.get(job)
        events.set_suspended(self.gpu, job, suspended)
        self.act()
        if suspended and self.words.get(job) is Word.CLOSED:
            assert self.epochs.get(job) == before

    @invariant()
    def suspended_ones_are_not_next(self) -> None:
        if hasattr(self, "gpu"):
            nexts = self.gpu.contenders.get(self.gpu.next or "")
            assert nexts is None or not nexts.suspended or self.gpu.holder is not None

    def teardown(self) -> None:
        if hasattr(self, "gpu"):
            for job in "abc":
                self.suspend(job, False)
        super().teardown()


TestSuspendedLeases = SuspendedLeases.TestCase
TestSuspendedLeases.settings = settings(Leases.TestCase.settings, max_examples=EXAMPLES or 40)
