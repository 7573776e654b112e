# SPDX-License-Identifier: Apache-2.0
"""Whose commands a host carries out, and which of them again: a pure state machine over terms and command ids.

Schedulers come one after the other, each with a higher term. One that was paused and goes on does not know that it is
none any more: its commands carry a term below the highest that the host has heard, and are refused. A command that is
sent twice (its answer was lost, a new scheduler repeats what the one before had recorded) is carried out once: what
came of it is kept under its id, and told again.

    admit(order, content) -> Carry     carry it out, then say settle(id, outcome), or give up(id)
                             Repeat    it was carried out: tell this outcome again
                             Wait      it is being carried out: wait for its outcome
                          or Stale, Reused, raised: refused

The owner writes down `term` and every Done before it acts on an answer or gives one; `Fence.of` is what it read back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gpuvirt.errors import GpuvirtError

KEPT = 4096  # outcomes; the oldest are forgotten first


class Stale(GpuvirtError):
    """The term is below one that was heard already."""


class Reused(GpuvirtError):
    """The id belongs to another command."""


@dataclass(frozen=True, slots=True)
class Order:
    """What every command carries."""

    term: int
    command: str  # id


@dataclass(frozen=True, slots=True)
class Done:
    """A command that was carried out."""

    command: str
    content: str  # digest of what was asked
    outcome: bytes


@dataclass(frozen=True, slots=True)
class Carry:
    """New: carry it out."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """Carried out before, with this outcome."""

    outcome: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Being carried out now."""


Verdict = Carry | Repeat | Wait


@dataclass(slots=True)
class Fence:
    """What one host knows of schedulers and their commands."""

    term: int = 0
    done: dict[str, Done] = field(default_factory=dict)  # the oldest first
    open: dict[str, str] = field(default_factory=dict)  # being carried out: id -> digest
    kept: int = KEPT

    @staticmethod
    def of(term: int, done: Iterable[Done], kept: int = KEPT) -> Fence:
        """As it was written down. What was being carried out then is not known to have happened: it is new again."""
        fence = Fence(term, kept=kept)
        for one in done:
            fence.done[one.command] = one
        return fence

    def hear(self, term: int) -> bool:
        """A scheduler of this term speaks. True if it is a new one. Raises Stale."""
        if term < self.term:
            raise Stale(
                f"term {term} is over: a scheduler of term {self.term} has spoken to this host",
                "a scheduler that reads this must step down",
            )
        new, self.term = term > self.term, term
        return new

    def admit(self, order: Order, content: str) -> Verdict:
        """May this command be carried out? Raises Stale, Reused."""
        self.hear(order.term)
        known = self.done.get(order.command)
        if known is not None:
            self._same(order.command, known.content, content)
            return Repeat(known.outcome)
        if order.command in self.open:
            self._same(order.command, self.open[order.command], content)
            return Wait()
        self.open[order.command] = content
        return Carry()

    def settle(self, command: str, outcome: bytes) -> tuple[Done, list[str]]:
        """It was carried out. What is to be written down, and ids that may be forgotten."""
        done = Done(command, self.open.pop(command), outcome)
        self.done[command] = done
        forgotten = list(self.done)[: max(0, len(self.done) - self.kept)]
        for one in forgotten:
            del self.done[one]
        return done, forgotten

    def give_up(self, command: str) -> None:
        """It was not carried out, and nothing of it remains: the same id may be tried again."""
        self.open.pop(command, None)

    @staticmethod
    def _same(command: str, known: str, content: str) -> None:
        if known != content:
            raise Reused(f"command {command} was another command", "give every command an id of its own")
