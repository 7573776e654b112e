# SPDX-License-Identifier: Apache-2.0
"""The edge of the decisions in the simulation, as gpuvirtd.arbiter is in the daemon: facts in, actions out.

Messages take `costs.message`, its clock is late by `costs.timer`. All else is gpuvirt.arbitration, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Action, Client, Credit, Gpu, Move, Note, Send, Store, WakeUp, Word
from gpuvirt.arbitration.lease import decide
from gpuvirt.simulation.agenda import Agenda, Entry
from gpuvirt.simulation.engine import Engine, Owner
from gpuvirt.simulation.measures import GpuTally, Stepwise, Tally, Timeline
from gpuvirt.simulation.scenario import Job, Scenario
from gpuvirt.simulation.swapping import Link, Memory
from gpuvirt.simulation.worker import RUNS, Worker


class Arbiter:
    """One GPU with all its jobs."""

    def __init__(self, agenda: Agenda, scenario: Scenario, index: int, gpu: Gpu, timeline: Timeline) -> None:
        self.agenda, self.index, self.gpu, self.timeline = agenda, index, gpu, timeline
        self.scenario, self.costs = scenario, scenario.costs
        self.engine = Engine(agenda, scenario.gpus.slice, scenario.gpus.context_switch, self._changed)
        self.link = Link(agenda, scenario.gpus.link)
        self.counted_from = agenda.now + scenario.warmup
        self.tally = GpuTally(self._stepwise())
        self.tallies: dict[str, Tally] = {}
        self.workers: dict[int, Worker] = {}
        self.memories: dict[int, Memory] = {}
        self.names: dict[int, str] = {}
        self.numbers: dict[str, int] = {}
        self._everybody: dict[str, Worker] = {}
        self._computed: dict[str, int] = {}
        self._window_number = -1  # of the report; -1: warmup
        self._busy: set[int] = set()
        self._timer: Entry | None = None
        self._drain_began: dict[str, int] = {}

    def _stepwise(self) -> Stepwise:
        return Stepwise(self.counted_from, self.scenario.report)

    # ---- who is here

    def attach(self, job: Job, number: int) -> None:
        """A job starts."""
        worker = Worker(self.agenda, self.engine, self.costs, job, number, str(self.scenario.seed), self)
        self.workers[number], self.names[number], self.numbers[job.name] = worker, job.name, number
        self._everybody[job.name] = worker
        self.memories[number] = Memory(number, job.memory, job.dirty, self.link, self)
        self.tallies[job.name] = Tally(self._stepwise(), self._stepwise(), began=self.agenda.now)
        self.enter(job, number)
        worker.start()

    def enter(self, job: Job, number: int) -> None:
        """The daemon hears of it."""
        client = Client(number, granularity=self.scenario.gpus.granularity)
        rank = (job.tenant, job.priority, job.tier, job.due_in)
        events.attach(self.gpu, job.name, job.weight, client, *rank).soft = job.soft
        self.turn()

    def end(self, number: int) -> None:
        """A job has ended: its memory is free at once."""
        worker = self.workers.pop(number, None)
        if worker is None:
            return
        name, now = self.names[number], self.agenda.now
        worker.stop()
        self.memories[number].stop()
        tally = self.tallies[name]
        tally.ended = now
        tally.held.set(False, now)
        for kind in ("lease", "drain", "evict", "restore"):
            self.timeline.end(self.index, name, kind, now)
        self.leave(name, number)

    def leave(self, name: str, number: int) -> None:
        """The daemon hears of it."""
        events.gone(self.gpu, number)
        events.ended(self.gpu, name)
        self.turn()

    def look(self) -> None:
        """What all have computed since the last look belongs to the window of the report that ends now."""
        for name, worker in self._everybody.items():
            computed = self.engine.computed(worker)
            if self._window_number >= 0:
                self.tallies[name].computed[self._window_number] = computed - self._computed.get(name, 0)
            self._computed[name] = computed
        self._window_number += 1

    def _changed(self, owner: Owner, stopped: int) -> None:
        """Another process than before begins on a GPU that stood still since then."""
        assert isinstance(owner, Worker)
        if self.agenda.now >= self.counted_from:
            self.tally.handovers.append(self.agenda.now - max(stopped, owner.busy_since))

    # ---- what processes say (worker.Listener, swapping.Listener)

    def _heard(self, number: int, fold: Callable[[], None]) -> None:
        """A message on its way."""

        def arrive() -> None:
            if number in self.workers:
                fold()
                self.turn()

        self.agenda.after(self.costs.message, arrive)

    def want(self, worker: Worker) -> None:
        number, memory = worker.number, self.memories[worker.number]
        size, resident = memory.size, memory.resident
        self._heard(number, lambda: events.want(self.gpu, number, size, resident, self.agenda.now))

    def idle(self, worker: Worker) -> None:
        self._heard(worker.number, lambda: events.idle(self.gpu, worker.number))

    def drained(self, worker: Worker, epoch: int) -> None:
        self._heard(worker.number, lambda: events.drained(self.gpu, worker.number, epoch))

    def progress(self, memory: Memory) -> None:
        number, resident = memory.number, memory.resident
        self._heard(number, lambda: self._progress(number, resident))

    def _progress(self, number: int, resident: int) -> None:
        request = events.find(self.gpu, number)[1].request
        if request is not None and request.move is Move.EVICT:
            events.progress(self.gpu, number, resident, self.agenda.now)

    def waits(self, memory: Memory) -> None:
        number, size, resident = memory.number, memory.size, memory.resident
        self._heard(number, lambda: events.memory(self.gpu, number, size, resident, 0))

    def moved(self, memory: Memory, move: Move, status: int, copied: int, elided: int, took: int) -> None:
        number, size, resident, name = memory.number, memory.size, memory.resident, self.names[memory.number]
        self.timeline.end(self.index, name, move.value, self.agenda.now)

        def fold() -> None:
            now = self.agenda.now
            events.moved(self.gpu, number, move, status, size, resident, copied, 0, took, now, 0, elided)

        self._heard(number, fold)

    def busy(self, worker: Worker, busy: bool) -> None:
        (self._busy.add if busy else self._busy.discard)(worker.number)
        now = self.agenda.now
        self.tallies[self.names[worker.number]].wanted.set(busy, now)
        self.tally.wanted.set(bool(self._busy), now)

    def served(self, worker: Worker, arrived: int) -> None:
        now, tally = self.agenda.now, self.tallies[self.names[worker.number]]
        if now >= self.counted_from:
            tally.requests += 1
            if arrived >= self.counted_from:
                tally.latencies.append(now - arrived)

    def finished(self, worker: Worker) -> None:
        self.agenda.after(0, lambda: self.end(worker.number))

    # ---- decisions

    def turn(self) -> None:
        """Decide and act."""
        now = self.agenda.now
        holder = self.gpu.contenders.get(self.gpu.holder) if self.gpu.holder is not None else None
        if holder is not None and holder.may_launch:  # their pages say it
            for number, client in holder.clients.items():
                client.idle = self.workers[number].idle
        waiting = {key: one.waiting_since for key, one in self.gpu.contenders.items()}
        decision = decide(self.gpu, now)
        for action in decision.actions:
            self._act(action, waiting)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if decision.wake_at is not None:
            when = max(now, decision.wake_at) + self.costs.timer
            self._timer = self.agenda.at(when, self.turn)

    def _act(self, action: Action, waiting: dict[str, int | None]) -> None:
        match action:
            case Store():
                self._stored(action, waiting.get(action.contender))
            case Send(number, move, size, credit):
                self.timeline.begin(self.index, self.names[number], move.value, self.agenda.now)
                self._later(number, lambda: self.memories[number].asked(move, size, credit))
            case Credit(number, size, cancelled):
                self._later(number, lambda: self.memories[number].credited(size, cancelled))
            case WakeUp(number):
                self.workers[number].woken()
            case Note(level, event, contender, _):
                if level == "warning" and contender in self.tallies:
                    contenders = self.gpu.contenders
                    self.tallies[contender].reason = contenders[contender].reason if contender in contenders else event

    def _later(self, number: int, action: Callable[[], None]) -> None:
        """A message to a process."""

        def arrive() -> None:
            if number in self.workers:
                action()

        self.agenda.after(self.costs.wake, arrive)

    def _stored(self, action: Store, waiting_since: int | None) -> None:
        name, word, now = action.contender, action.word, self.agenda.now
        worker = self.workers.get(self.numbers[name])
        tally, counts = self.tallies[name], now >= self.counted_from
        if word in RUNS and (worker is None or worker.word not in RUNS):
            tally.turns += counts
            if counts:
                tally.quanta.append(self.gpu.contenders[name].quantum)
            self.tally.switches += counts
            if waiting_since is not None and counts:
                tally.waits.append(now - waiting_since)
            self.timeline.begin(self.index, name, "lease", now)
        elif word is Word.DRAIN:
            self._drain_began[name] = now
            self.timeline.end(self.index, name, "lease", now)
            self.timeline.begin(self.index, name, "drain", now)
        elif word is Word.CLOSED:
            began = self._drain_began.pop(name, None)
            if began is not None and counts:
                tally.drains.append(now - began)
            self.timeline.end(self.index, name, "lease", now)
            self.timeline.end(self.index, name, "drain", now)
        tally.held.set(word is not Word.CLOSED, now)
        if worker is not None:
            worker.stored(word, action.epoch, self._window(action, word))

    def _window(self, action: Store, word: Word) -> int:
        """GPU time that may be in flight (ns): what the lease says, where it says it, else what the scenario says."""
        lease: int = getattr(action, "window", 0)
        return lease or (self.costs.window if word is Word.GRANTED else 0)


class Bare(Arbiter):
    """Nobody arbitrates: all launch what they like, and the hardware slices its time. All memory must fit."""

    def enter(self, job: Job, number: int) -> None:
        self.memories[number].resident = job.memory
        self.tallies[job.name].held.set(True, self.agenda.now)
        self.workers[number].stored(Word.OPEN, 1, 0)

    def leave(self, name: str, number: int) -> None:
        """Nobody hears of it."""

    def want(self, worker: Worker) -> None:
        """Nobody is asked."""
