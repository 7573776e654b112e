# SPDX-License-Identifier: Apache-2.0
"""Records of what happened: each lane, that they add up to what the arbiter charges, and that they are bounded."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gpuvirt.arbitration.facts import Client, Contender, Gpu, Move, Request, Word
from gpuvirtd.arbiter.timeline import GPU, LEASE, MEMORY, NOTE, SWAP, Moved, Record, Timeline

MS = 1_000_000


@dataclass
class Answer:
    status: int = 0
    moved_bytes: int = 0
    zero_bytes: int = 0
    clean_bytes: int = 0
    duplicate_bytes: int = 0
    copy_ns: int = 0
    hash_ns: int = 0
    map_ns: int = 0
    duration_ns: int = 0


class Scene:
    """A GPU with jobs of one client each, and its timeline."""

    def __init__(self, *jobs: str, kept: int = 1000) -> None:
        self.gpu = Gpu("gpu", capacity=100)
        self.timeline = Timeline(kept)
        self.clients: dict[str, Client] = {}
        for number, job in enumerate(jobs, 1):
            self.clients[job] = Client(number)
            self.gpu.contenders[job] = Contender(job, clients={number: self.clients[job]})
        self.look(0)

    def look(self, now: int) -> None:
        self.timeline.look(self.gpu, now)

    def word(self, job: str, word: Word, epoch: int, now: int) -> None:
        contender = self.gpu.contenders[job]
        contender.word, contender.epoch = word, epoch
        self.gpu.holder = job if word is not Word.CLOSED else None
        if word is not Word.CLOSED:
            self.clients[job].waiting = False
        self.look(now)

    def records(self, lane: str) -> list[Record]:
        return [record for record in self.timeline.since(0, 1000) if record.lane == lane]


def told(records: list[Record]) -> list[tuple[str, str, int, int]]:
    return [(record.job, record.name, record.begin, record.end) for record in records]


def test_a_turn_and_the_wait_for_it() -> None:
    scene = Scene("a", "b")
    scene.word("a", Word.OPEN, 1, 10)
    scene.clients["b"].waiting = True
    scene.word("a", Word.GRANTED, 1, 20)
    scene.look(25)
    scene.word("a", Word.DRAIN, 1, 50)
    scene.word("a", Word.CLOSED, 1, 60)
    scene.word("b", Word.OPEN, 2, 60)
    assert told(scene.records(LEASE)) == [
        ("a", "alone", 10, 20),
        ("a", "held", 20, 50),
        ("a", "drain", 50, 60),
        ("b", "waits", 20, 60),
    ]
    assert [record.epoch for record in scene.records(LEASE)] == [1, 1, 1, 0]
    assert [(record.job, record.name, record.begin, record.end) for record in scene.timeline.open()] == [
        ("b", "alone", 60, 0)
    ]


def test_a_turn_after_a_turn_is_another_record() -> None:
    """DRAIN, CLOSED and GRANTED in one decision."""
    scene = Scene("a")
    scene.word("a", Word.GRANTED, 1, 10)
    scene.word("a", Word.GRANTED, 2, 30)
    scene.word("a", Word.CLOSED, 2, 40)
    assert told(scene.records(LEASE)) == [("a", "held", 10, 30), ("a", "held", 30, 40)]


def test_waits_are_counted_as_the_machine_counts_them() -> None:
    scene = Scene("a")
    contender = scene.gpu.contenders["a"]
    contender.waits, contender.wait_ns = 1, 5 * MS
    scene.look(10)
    contender.waits, contender.wait_ns = 2, 8 * MS
    scene.look(20)
    waits = scene.timeline.waits["a"]
    assert list(waits.lately) == [5 * MS, 3 * MS] and waits.typical() == 5 * MS
    assert sum(scene.timeline.waited.counts) == 2 and scene.timeline.waited.total_ns == 8 * MS


def test_pauses_between_turns() -> None:
    scene = Scene("a")
    waits = scene.timeline.waits["a"]
    for turn, (begin, end) in enumerate(((10, 20), (25, 40), (49, 60)), 1):
        scene.word("a", Word.OPEN, turn, begin)
        scene.word("a", Word.CLOSED, turn, end)
    assert list(waits.pauses) == [5, 9] and waits.pause() == 9
    scene.clients["a"].waiting = True
    scene.look(61)
    scene.word("a", Word.OPEN, 4, 70)
    scene.clients["a"].waiting = True  # it has more to do
    scene.word("a", Word.CLOSED, 4, 80)
    assert list(waits.pauses) == [5, 9, 1], "waiting is no pause"


def test_what_a_process_moves() -> None:
    scene = Scene("a", "b")
    client = scene.clients["a"]
    client.resident = 80
    client.request = Request(Move.EVICT, 20, 80, 0)
    scene.look(10)
    client.resident = 20
    scene.timeline.answered(1, Answer(moved_bytes=40, zero_bytes=15, clean_bytes=5))
    client.request = Request(Move.RESTORE, 80, 20, 0)
    scene.look(30)
    client.request.waits = True
    scene.look(40)
    client.request.waits, client.request.late = False, True
    scene.look(50)
    client.request = None
    client.resident = 80
    scene.look(60)
    assert told(scene.records(SWAP)) == [
        ("a", "evict", 10, 30),
        ("a", "restore", 30, 40),
        ("a", "restore waits", 40, 50),
        ("a", "restore overdue", 50, 60),
    ]
    assert scene.records(SWAP)[0].moved == Moved(80, 20, 40, 20, 0)
    assert scene.records(SWAP)[3].moved == Moved(20, 80)
    assert [(record.begin, record.bytes) for record in scene.records(MEMORY)] == [(10, 80), (30, 20), (60, 80)]


def test_waiting_for_memory_is_not_waiting_for_a_turn() -> None:
    scene = Scene("a", "b")
    scene.gpu.holder, scene.gpu.next = None, "b"
    scene.clients["b"].waiting = True
    scene.look(10)
    scene.clients["a"].request = Request(Move.EVICT, 0, 80, 0)
    scene.look(20)
    scene.clients["a"].request = None
    scene.gpu.next = None
    scene.word("b", Word.OPEN, 1, 50)
    assert told(scene.records(LEASE)) == [("b", "waits", 10, 20), ("b", "waits for memory", 20, 50)]
    assert told(scene.records(GPU)) == [("b", "prepares", 10, 50)]


def test_who_ends_in_the_middle_of_it_all() -> None:
    scene = Scene("a", "b")
    scene.clients["a"].resident = 50
    scene.clients["a"].request = Request(Move.RESTORE, 80, 20, 0)
    scene.clients["a"].waiting = True
    scene.look(10)
    scene.gpu.contenders["a"].clients.clear()
    scene.look(20)
    assert told(scene.records(SWAP)) == [("a", "restore", 10, 20)]
    del scene.gpu.contenders["a"]
    scene.look(30)
    assert list(scene.timeline.open()) == [] and set(scene.timeline.waits) == {"b"}
    assert scene.timeline.resident() == {}


def test_reasons_are_noted_once() -> None:
    scene = Scene("a")
    for now, reason in ((10, "no room"), (20, "no room"), (30, ""), (40, "no room")):
        scene.gpu.contenders["a"].reason = reason
        scene.look(now)
    assert [(record.begin, record.name) for record in scene.records(NOTE)] == [(10, "no room"), (40, "no room")]


def test_bounded_and_numbered() -> None:
    scene = Scene("a", kept=10)
    for turn in range(40):
        scene.word("a", Word.GRANTED if turn % 2 else Word.DRAIN, turn // 2, 10 * turn + 10)
    timeline = scene.timeline
    assert timeline.kept == 10 and timeline.count == 39
    assert [record.end for record in timeline.since(0, 3)] == [310, 320, 330], "the oldest there are"
    assert [record.end for record in timeline.since(37, 100)] == [390, 400]
    assert timeline.since(39, 10) == []
    assert timeline.first(0) == 29 and timeline.first(385) == 37 and timeline.first(1000) == 39


@pytest.mark.parametrize("nothing", [0, 1000])
def test_it_does_not_grow_while_nothing_happens(nothing: int) -> None:
    scene = Scene("a", "b")
    for now in range(nothing):
        scene.look(now)
    assert scene.timeline.count == 0
