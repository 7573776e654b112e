# SPDX-License-Identifier: Apache-2.0
"""A GPU and clients for tests of the lease machine that go step by step."""

from __future__ import annotations

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import (
    Action,
    Client,
    Credit,
    Gpu,
    Move,
    Rules,
    Send,
    Signal,
    Store,
    WakeUp,
    Word,
)
from gpuvirt.arbitration.lease import decide

MS = 1_000_000
START = 1000 * MS


class Scene:
    """A GPU of 100 bytes and clients that answer when told to."""

    def __init__(self, **rules: int | str) -> None:
        self.gpu = Gpu("gpu", 100, Rules(**rules))  # type: ignore[arg-type]
        self.now = START
        self.wake: int | None = None
        self.count = 0

    def attach(self, job: str, weight: int = 100) -> int:
        self.count += 1
        events.attach(self.gpu, job, weight, Client(self.count))
        self.decide()
        return self.count

    def decide(self) -> list[Action]:
        decision = decide(self.gpu, self.now)
        self.wake = decision.wake_at
        return [action for action in decision.actions if isinstance(action, Store | Send | Credit | WakeUp | Signal)]

    def want(self, number: int, charged: int = 0, native: int = 0) -> list[Action]:
        client = events.find(self.gpu, number)[1]
        events.want(self.gpu, number, charged, min(client.resident, charged), self.now, native)
        return self.decide()

    def drained(self, number: int) -> list[Action]:
        events.drained(self.gpu, number, events.find(self.gpu, number)[0].epoch)
        return self.decide()

    def stuck(self, number: int, waits: bool = False, epoch: int | None = None) -> list[Action]:
        epoch = events.find(self.gpu, number)[0].epoch if epoch is None else epoch
        events.stuck(self.gpu, number, epoch, waits)
        return self.decide()

    def moved(self, number: int, status: int = 0, short: int = 0) -> list[Action]:
        client = events.find(self.gpu, number)[1]
        assert client.request is not None
        move, size = client.request.move, client.request.bytes
        resident = client.resident
        if status == 0:
            resident = client.charged if move is Move.RESTORE else min(resident, max(size, client.native))
        events.moved(
            self.gpu,
            number,
            move,
            status,
            client.charged,
            resident,
            abs(resident - client.resident),
            short,
            1,
            self.now,
            client.native,
        )
        return self.decide()

    def progress(self, number: int, resident: int) -> list[Action]:
        events.progress(self.gpu, number, resident, self.now)
        return self.decide()

    def later(self, nanoseconds: int) -> list[Action]:
        self.now += nanoseconds
        return self.decide()

    def later_at_wake(self) -> list[Action]:
        assert self.wake is not None
        self.now = self.wake
        return self.decide()

    def run(self, job: str, charged: int = 0) -> int:
        """A client that holds the GPU."""
        number = self.attach(job)
        self.want(number, charged)
        if charged:
            self.moved(number)
        assert self.gpu.holder == job
        return number


def words(actions: list[Action]) -> list[tuple[str, Word]]:
    return [(action.contender, action.word) for action in actions if isinstance(action, Store)]


def sends(actions: list[Action]) -> list[tuple[int, Move, int]]:
    return [(action.client, action.move, action.bytes) for action in actions if isinstance(action, Send)]


def credits(actions: list[Action]) -> list[tuple[int, int]]:
    return [(action.client, action.bytes) for action in actions if isinstance(action, Credit) and not action.cancelled]


def cancelled(actions: list[Action]) -> list[int]:
    return [action.client for action in actions if isinstance(action, Credit) and action.cancelled]
