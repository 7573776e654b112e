# SPDX-License-Identifier: Apache-2.0
"""Hand-overs that were decided while the giver drained: they happen without the daemon's loop, or not at all."""

from __future__ import annotations

import select
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Decision, Gpu, Store, Word
from gpuvirt.arbitration.lease import decide
from gpuvirt.control.block import ClientPage, ClientWriter, LeasePage, LeaseState, LeaseView
from gpuvirtd.arbiter.ahead import Ahead

MS = 1_000_000


class Desk:
    """Two jobs of a process each; the first has the GPU and drains, the second waits."""

    def __init__(self) -> None:
        self.ahead = Ahead()
        self.gpu = Gpu("gpu", 1 << 30)
        self.pages = {"a": LeasePage(1), "b": LeasePage(1)}
        self.members = {1: SimpleNamespace(page=ClientPage()), 2: SimpleNamespace(page=ClientPage())}
        self.now = 1000 * MS
        for number, job in enumerate("ab", 1):
            events.attach(self.gpu, job, 1, Client(number))
            events.drained(self.gpu, number, 0)
            events.want(self.gpu, number, 0, 0, self.now)
            self.store(decide(self.gpu, self.now))
        self.now += 20 * MS
        events.find(self.gpu, 1)[1].idle = False
        self.store(decide(self.gpu, self.now))
        assert self.words == {"a": LeaseState.DRAIN, "b": LeaseState.CLOSED}

    def store(self, decision: Decision) -> None:
        for action in decision.actions:
            if isinstance(action, Store):
                state = LeaseState[action.word.name]
                self.pages[action.contender].store(action.epoch, state, deadline_ns=action.deadline, fits=action.fits)

    def arm(self) -> None:
        self.ahead.arm(self.gpu, self.now, self.pages, self.members)  # type: ignore[arg-type]

    def client_drains(self, number: int) -> None:
        contender, _ = events.find(self.gpu, number)
        writer = ClientWriter(self.members[number].page.fd)
        writer.set(drained_epoch=contender.epoch)
        writer.close()

    @property
    def words(self) -> dict[str, LeaseState]:
        return {job: LeaseView(page.fd).word[1] for job, page in self.pages.items()}

    def heard(self) -> bool:
        return bool(select.select([self.ahead.fd], [], [], 30)[0])

    def close(self) -> None:
        self.ahead.close()
        for page in (*self.pages.values(), *(member.page for member in self.members.values())):
            page.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    made = Desk()
    yield made
    made.close()


def test_the_next_job_has_the_gpu_before_anybody_decides(desk: Desk) -> None:
    desk.arm()
    desk.client_drains(1)
    assert desk.heard()
    assert desk.words == {"a": LeaseState.CLOSED, "b": LeaseState.OPEN}
    at = desk.ahead.take()
    assert at is not None
    assert desk.ahead.take() is None
    events.handed_over(desk.gpu, desk.ahead.taker)
    stores = [action for action in decide(desk.gpu, desk.now + MS).actions if isinstance(action, Store)]
    assert [(store.contender, store.word) for store in stores] == [("a", Word.CLOSED), ("b", Word.OPEN)]
    view = LeaseView(desk.pages["b"].fd)
    assert view.word == (stores[1].epoch, LeaseState.OPEN)
    assert view.fits
    assert desk.gpu.holder == "b"


def test_what_was_taken_does_not_happen(desk: Desk) -> None:
    desk.arm()
    assert desk.ahead.take() is None
    desk.client_drains(1)
    desk.ahead.leave(desk.members[1])  # type: ignore[arg-type]
    assert desk.words == {"a": LeaseState.DRAIN, "b": LeaseState.CLOSED}


def test_nothing_is_armed_for_who_must_be_brought_in_first(desk: Desk) -> None:
    events.want(desk.gpu, 2, 1 << 20, 0, desk.now)
    events.find(desk.gpu, 2)[1].restored = False
    desk.arm()
    desk.client_drains(1)
    assert desk.ahead.take() is None
    assert desk.words == {"a": LeaseState.DRAIN, "b": LeaseState.CLOSED}


def test_the_taker_may_die_at_the_very_moment(desk: Desk) -> None:
    desk.arm()
    desk.client_drains(1)
    assert desk.heard()
    assert desk.ahead.take() is not None
    events.handed_over(desk.gpu, desk.ahead.taker)
    events.gone(desk.gpu, 2)
    events.ended(desk.gpu, "b")
    decide(desk.gpu, desk.now + MS)
    assert desk.gpu.holder is None
    assert desk.gpu.contenders["a"].word is Word.CLOSED
