# SPDX-License-Identifier: Apache-2.0
"""Several GPUs and the jobs on them, decided together as gpuvirtd does it."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Action, Client, Contender, Gpu, Move, Rules, Send, Store, Word
from gpuvirt.arbitration.lease import decide
from gpuvirt.arbitration.together import form, settle

MS = 1_000_000
START = 1000 * MS
LAUNCHING = (Word.OPEN, Word.GRANTED, Word.STEP)


@dataclass
class Rank:
    """One process of a job."""

    number: int
    job: str
    gpu: Gpu
    charged: int = 0
    resident: int = 0
    asked: Send | None = None
    on_gpu: bool = False


class Several:
    """GPUs of 100 bytes. What is decided is checked against what is true: nobody runs beside another."""

    def __init__(self, count: int, policy: str = "fair", **rules: int | str) -> None:
        self.gpus = [Gpu(f"gpu{index}", 100, Rules(**rules), policy) for index in range(count)]  # type: ignore[arg-type]
        self.now = START
        self.ranks: dict[int, Rank] = {}
        self.words: dict[tuple[str, str], Word] = {}
        self.epochs: dict[tuple[str, str], int] = {}
        self.wakes: dict[str, int] = {}
        self.count = 0

    # ---- the edge

    def turn(self, gpu: Gpu) -> None:
        """Decide on one GPU, and act."""
        decision = decide(gpu, self.now)
        self.wakes.pop(gpu.name, None)
        if decision.wake_at is not None:
            self.wakes[gpu.name] = decision.wake_at
        for action in decision.actions:
            self.act(gpu, action)

    def act(self, gpu: Gpu, action: Action) -> None:
        if isinstance(action, Store):
            self.stored(gpu, action)
        elif isinstance(action, Send):
            rank = self.ranks[action.client]
            assert rank.asked is None
            assert action.move is Move.RESTORE or not rank.on_gpu, "EVICT under running work"
            rank.asked = action

    def stored(self, gpu: Gpu, action: Store) -> None:
        mine = self.of(action.contender, gpu)
        if action.word in LAUNCHING:
            for rank in self.ranks.values():
                assert rank.gpu is not gpu or rank.job == action.contender or not rank.on_gpu, (
                    f"{action.contender} is granted {gpu.name} beside {rank}"
                )
            for rank in mine:
                rank.on_gpu = True
        if action.word is Word.CLOSED:
            assert not any(rank.on_gpu for rank in mine), "closed before everybody drained"
        self.words[gpu.name, action.contender] = action.word
        self.epochs[gpu.name, action.contender] = action.epoch

    def settle(self, gpu: Gpu) -> None:
        """After something was heard on this GPU."""
        self.turn(gpu)
        assert settle(self.gpus, self.turn, lambda: self.now), "it must settle"

    # ---- what happens

    def join(self, job: str, index: int, weight: int = 1, **standing: int | str) -> Rank:
        self.count += 1
        gpu = self.gpus[index]
        rank = self.ranks[self.count] = Rank(self.count, job, gpu)
        contender = events.attach(gpu, job, weight, Client(self.count), **standing)  # type: ignore[arg-type]
        rank.on_gpu = contender.may_launch
        form(self.gpus)
        self.settle(gpu)
        return rank

    def leave(self, rank: Rank) -> None:
        del self.ranks[rank.number]
        events.gone(rank.gpu, rank.number)
        if not any(other.job == rank.job for other in self.ranks.values()):
            for gpu in self.gpus:
                events.ended(gpu, rank.job)
                self.words.pop((gpu.name, rank.job), None)
        form(self.gpus)
        for gpu in self.gpus:
            self.settle(gpu)

    def want(self, rank: Rank, charged: int = 0) -> None:
        client = events.find(rank.gpu, rank.number)[1]
        rank.charged = max(charged, rank.resident)
        if client.restored and rank.charged <= client.allowance:
            rank.resident = rank.charged
        events.want(rank.gpu, rank.number, rank.charged, rank.resident, self.now)
        self.settle(rank.gpu)

    def idle(self, rank: Rank) -> None:
        events.idle(rank.gpu, rank.number)
        self.settle(rank.gpu)

    def drained(self, rank: Rank) -> None:
        if self.word(rank) is Word.DRAIN:
            rank.on_gpu = False
            events.drained(rank.gpu, rank.number, self.epochs[rank.gpu.name, rank.job])
            self.settle(rank.gpu)

    def stuck(self, rank: Rank, waits: bool = False) -> None:
        if self.word(rank) is Word.DRAIN:
            events.stuck(rank.gpu, rank.number, self.epochs[rank.gpu.name, rank.job], waits)
            self.settle(rank.gpu)

    def answer(self, rank: Rank, status: int = 0) -> None:
        """To EVICT or RESTORE, as soon as it has the room."""
        asked, client = rank.asked, events.find(rank.gpu, rank.number)[1]
        if asked is not None and asked.move is Move.RESTORE and rank.charged > asked.bytes:
            status = 2  # it grew while that was on its way
        elif asked is None or (asked.move is Move.RESTORE and client.allowance < rank.charged and client.restoring):
            return
        elif asked.move is Move.RESTORE and client.allowance < rank.charged:
            status = 600  # it was called off
        assert asked is not None
        rank.asked, before = None, rank.resident
        if status == 0:
            rank.resident = rank.charged if asked.move is Move.RESTORE else min(before, asked.bytes)
        moved = abs(rank.resident - before)
        events.moved(
            rank.gpu, rank.number, asked.move, status, rank.charged, rank.resident, moved, 0, 1000, self.now
        )  # fmt: skip
        self.settle(rank.gpu)

    def later(self, nanoseconds: int) -> None:
        """Time passes; each GPU is looked at when it asked for it."""
        until = self.now + nanoseconds
        while self.wakes and min(self.wakes.values()) <= until:
            name = min(self.wakes, key=lambda key: (self.wakes[key], key))
            self.now = max(self.now, self.wakes[name])
            self.settle(next(gpu for gpu in self.gpus if gpu.name == name))
            if self.wakes.get(name, until + 1) <= self.now:
                self.wakes[name] = self.now + 1
        self.now = until
        for gpu in self.gpus:
            self.settle(gpu)

    # ---- to look at

    def word(self, rank: Rank) -> Word:
        return self.words.get((rank.gpu.name, rank.job), Word.CLOSED)

    def of(self, job: str, gpu: Gpu | None = None) -> list[Rank]:
        return [rank for rank in self.ranks.values() if rank.job == job and gpu in (None, rank.gpu)]

    def gpus_of(self, job: str) -> list[Gpu]:
        return [gpu for gpu in self.gpus if self.of(job, gpu)]

    def words_of(self, job: str) -> list[Word]:
        """On its GPUs, in their order."""
        return [self.words.get((gpu.name, job), Word.CLOSED) for gpu in self.gpus_of(job)]

    def contender(self, job: str, index: int) -> Contender:
        return self.gpus[index].contenders[job]


class Busy(Several):
    """All always have work; a drain takes a tenth of a millisecond, and what came back wants the GPU again at once."""

    def __init__(self, count: int, policy: str = "fair", **rules: int | str) -> None:
        super().__init__(count, policy, **rules)
        self.due: list[tuple[int, int, str, int]] = []
        self.order = 0
        self.held: dict[tuple[str, int], int] = {}
        self.since: dict[tuple[str, int], int] = {}

    def plan(self, delay: int, what: str, number: int) -> None:
        self.order += 1
        heapq.heappush(self.due, (self.now + delay, self.order, what, number))

    def stored(self, gpu: Gpu, action: Store) -> None:
        super().stored(gpu, action)
        place = (action.contender, self.gpus.index(gpu))
        if action.word in LAUNCHING:
            self.since.setdefault(place, self.now)
        elif action.word is Word.DRAIN:
            for rank in self.of(action.contender, gpu):
                self.plan(MS // 10, "drained", rank.number)
        else:
            if place in self.since:
                self.held[place] = self.held.get(place, 0) + self.now - self.since.pop(place)
            for rank in self.of(action.contender, gpu):
                self.plan(0, "want", rank.number)

    def begin(self, job: str, *indices: int, weight: int = 1, **standing: int | str) -> None:
        """A job with a process on each of these GPUs."""
        for rank in [self.join(job, index, weight, **standing) for index in indices]:
            events.find(rank.gpu, rank.number)[1].idle = False
            self.plan(0, "want", rank.number)

    def run(self, nanoseconds: int) -> None:
        until = self.now + nanoseconds
        while True:
            for rank in list(self.ranks.values()):
                here, client = events.find(rank.gpu, rank.number)
                if here.may_launch:
                    client.idle = False
            events_at = self.due[0][0] if self.due else until + 1
            wake_at = min(self.wakes.values(), default=until + 1)
            at = min(events_at, wake_at)
            if at > until:
                break
            self.now = max(self.now, at)
            if wake_at < events_at:
                name = min(self.wakes, key=lambda key: (self.wakes[key], key))
                self.settle(next(gpu for gpu in self.gpus if gpu.name == name))
                if self.wakes.get(name, until + 1) <= self.now:
                    self.wakes[name] = self.now + 1000
                continue
            _, _, what, number = heapq.heappop(self.due)
            if number in self.ranks:
                rank = self.ranks[number]
                self.drained(rank) if what == "drained" else self.wants(rank)
        self.now = until

    def wants(self, rank: Rank) -> None:
        if self.word(rank) not in LAUNCHING:
            self.want(rank, rank.charged)

    def shares(self, nanoseconds: int) -> dict[tuple[str, int], float]:
        """Part of the next time that each job has each GPU."""
        before = self._held()
        self.run(nanoseconds)
        return {place: (held - before.get(place, 0)) / nanoseconds for place, held in self._held().items()}

    def _held(self) -> dict[tuple[str, int], int]:
        places = self.held.keys() | self.since.keys()
        return {one: self.held.get(one, 0) + self.now - self.since.get(one, self.now) for one in places}
