# SPDX-License-Identifier: Apache-2.0
"""Terms and command ids: whatever comes twice, late, out of order or after a restart is carried out once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gpuvirt.fencing import Carry, Done, Fence, Order, Repeat, Reused, Stale, Wait

COMMANDS = ("a", "b", "c", "d")


def test_a_lower_term_is_refused_and_changes_nothing() -> None:
    fence = Fence()
    assert fence.admit(Order(3, "a"), "x") == Carry()
    fence.settle("a", b"done")
    for command in ("a", "b"):
        with pytest.raises(Stale, match="term 2 is over: a scheduler of term 3"):
            fence.admit(Order(2, command), "x")
    assert (fence.term, fence.open) == (3, {})


def test_the_next_scheduler_repeats_what_the_one_before_had_recorded() -> None:
    fence = Fence()
    fence.admit(Order(3, "a"), "x")
    fence.settle("a", b"done")
    assert fence.admit(Order(4, "a"), "x") == Repeat(b"done")
    assert fence.term == 4


def test_one_that_is_being_carried_out_is_waited_for() -> None:
    fence = Fence()
    assert fence.admit(Order(1, "a"), "x") == Carry()
    assert fence.admit(Order(1, "a"), "x") == Wait()
    fence.give_up("a")
    assert fence.admit(Order(1, "a"), "x") == Carry()


def test_an_id_belongs_to_one_command() -> None:
    fence = Fence()
    fence.admit(Order(1, "a"), "x")
    with pytest.raises(Reused):
        fence.admit(Order(1, "a"), "y")
    fence.settle("a", b"")
    with pytest.raises(Reused):
        fence.admit(Order(1, "a"), "y")


def test_the_oldest_outcomes_are_forgotten() -> None:
    fence = Fence(kept=2)
    forgotten = []
    for command in COMMANDS:
        fence.admit(Order(1, command), "x")
        forgotten += fence.settle(command, b"")[1]
    assert forgotten == ["a", "b"]
    assert list(fence.done) == ["c", "d"]


class Schedulers(RuleBasedStateMachine):
    """Schedulers of several terms send the same commands to one host that crashes at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.fence = Fence()
        self.disk: tuple[int, dict[str, Done]] = (0, {})
        self.effects: dict[str, int] = {}  # how often each command was carried out to its end
        self.told: dict[str, bytes] = {}  # what somebody was answered
        self.highest = 0

    def _write(self) -> None:
        self.disk = (self.fence.term, dict(self.fence.done))

    @rule(term=st.integers(1, 6), command=st.sampled_from(COMMANDS))
    def send(self, term: int, command: str) -> None:
        try:
            verdict = self.fence.admit(Order(term, command), f"do {command}")
        except Stale:
            assert term < self.highest
            return
        assert term >= self.highest
        self.highest = term
        self._write()  # before it acts
        if isinstance(verdict, Repeat):
            assert self.effects[command] == 1
            assert self.told.setdefault(command, verdict.outcome) == verdict.outcome
        elif isinstance(verdict, Carry):
            assert command not in self.told

    @precondition(lambda self: self.fence.open)
    @rule(data=st.data(), well=st.booleans())
    def ends(self, data: st.DataObject, well: bool) -> None:
        """What is being carried out ends: the effect and its record are one transaction of the host."""
        command = data.draw(st.sampled_from(sorted(self.fence.open)))
        if not well:
            self.fence.give_up(command)
            return
        self.effects[command] = self.effects.get(command, 0) + 1
        self.fence.settle(command, f"{command} {self.fence.term}".encode())
        self._write()
        self.told[command] = self.fence.done[command].outcome

    @rule()
    def crash(self) -> None:
        term, done = self.disk
        self.fence = Fence.of(term, done.values())

    @invariant()
    def nothing_twice(self) -> None:
        assert all(count == 1 for count in self.effects.values())

    @invariant()
    def a_term_never_falls(self) -> None:
        assert self.fence.term == self.highest


TestSchedulers = Schedulers.TestCase
TestSchedulers.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
