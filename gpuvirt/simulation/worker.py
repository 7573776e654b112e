# SPDX-License-Identifier: Apache-2.0
"""A process behind its gate: requests come, a thread launches their kernels while the lease word allows it, the GPU
computes them, and the process says what the shim would say.

The thread launches ahead of the GPU, as programs do: up to `depth` kernels, and `window` of GPU time while others wait.
What it has launched cannot be taken back: that is what a drain waits for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Protocol

from gpuvirt.arbitration.facts import Word
from gpuvirt.simulation.agenda import Agenda, Entry
from gpuvirt.simulation.engine import Engine
from gpuvirt.simulation.scenario import Costs, Job

RUNS = (Word.OPEN, Word.GRANTED)


class Listener(Protocol):
    """Who is told what happens to a process, at once (it is no part of the model how long that takes)."""

    def want(self, worker: Worker) -> None:
        """A thread waits at the gate."""

    def idle(self, worker: Worker) -> None:
        """It has had nothing to do for a while, and others wait."""

    def drained(self, worker: Worker, epoch: int) -> None:
        """Nothing of it is on the GPU, and nothing can come."""

    def busy(self, worker: Worker, busy: bool) -> None:
        """It has something to do from now on, or nothing."""

    def served(self, worker: Worker, arrived: int) -> None:
        """A request is done that came then."""

    def finished(self, worker: Worker) -> None:
        """All its requests are done."""


class Worker:
    """One process of a job."""

    def __init__(
        self, agenda: Agenda, engine: Engine, costs: Costs, job: Job, number: int, seed: str, listener: Listener
    ) -> None:
        self.agenda, self.engine, self.costs, self.job, self.number = agenda, engine, costs, job, number
        self.listener = listener
        self.word, self.epoch, self.window = Word.CLOSED, 0, 0
        self.served = 0
        self.busy_since = 0
        self.alive = True
        self._length = job.kernel.draw(Random(f"{seed}/{job.seed}/kernels"))
        self._gap: Callable[[], int] = job.arrivals.gap.draw(Random(f"{seed}/{job.seed}/arrivals"))
        self._came = 0
        self._requests: deque[int] = deque()  # when they came
        self._arrived: int | None = None  # the request whose kernels are being launched
        self._left = 0  # its kernels after `_next`
        self._next: int | None = None  # the length of the kernel to be launched next
        self._flight: deque[tuple[int, int | None]] = deque()  # length, and when its request came if it is the last
        self._flight_ns = 0
        self._thread_at = 0  # when the thread can launch again
        self._blocked = False
        self._alarm: Entry | None = None
        self._knocked = False
        self._draining: int | None = None
        self._busy = False
        self._quiet: Entry | None = None

    # ---- requests

    def start(self) -> None:
        """Its first request comes, or the time until it does begins."""
        arrivals = self.job.arrivals
        if arrivals.kind == "list":
            for when in arrivals.times:
                self.agenda.after(when, self._arrive)
        elif arrivals.kind == "poisson":
            self.agenda.after(self._gap(), self._arrive)
        else:
            self._arrive()

    def stop(self) -> None:
        """The process dies."""
        self.alive = False
        self._say_busy(False)
        self.engine.remove(self)

    @property
    def busy(self) -> bool:
        """It has something to do."""
        return self._busy

    @property
    def idle(self) -> bool:
        """Nothing on the GPU, nothing at the gate."""
        return not self._flight and self._next is None and not self._requests

    def _arrive(self) -> None:
        if not self.alive or (self.job.requests and self._came >= self.job.requests):
            return
        self._came += 1
        self._requests.append(self.agenda.now)
        if self.job.arrivals.kind in ("poisson", "period"):
            self.agenda.after(self._gap(), self._arrive)
        self._look()

    def _come_again(self) -> None:
        """A closed loop: the next request follows the one before."""
        gap = self._gap()
        if gap > 0:
            self.agenda.after(gap, self._arrive)
        elif not self.job.requests or self._came < self.job.requests:
            self._came += 1
            self._requests.append(self.agenda.now)

    def _take(self) -> None:
        """The thread begins with the next request, if it has none, and has not to wait for the GPU first."""
        if self._next is not None or not self._requests or (self.job.wait and self._flight):
            return
        self._arrived = self._requests.popleft()
        self._left = self.job.kernels - 1
        self._next = self._length()
        self._thread_at = max(self._thread_at, self.agenda.now)

    def _look(self) -> None:
        self._take()
        if self._next is None:
            if not self._flight:
                self._say_busy(False)
            return
        self._say_busy(True)
        if self.word in RUNS:
            self._launch()
        elif not self._knocked:
            self._knocked = True
            self.listener.want(self)

    def _say_busy(self, busy: bool) -> None:
        if busy == self._busy:
            return
        self._busy, self.busy_since = busy, self.agenda.now
        self.listener.busy(self, busy)
        if self._quiet is not None:
            self._quiet.cancel()
            self._quiet = None
        if not busy and self.word is Word.GRANTED and self.alive:
            self._quiet = self.agenda.after(self.costs.idle_lasts, self._say_idle)

    def _say_idle(self) -> None:
        self._quiet = None
        if self.word is Word.GRANTED:
            self.listener.idle(self)

    # ---- the gate

    def stored(self, word: Word, epoch: int, window: int) -> None:
        """Its lease word was written; window: GPU time that it may have in flight (ns), 0: any."""
        if self.word in RUNS:
            self._launch()  # what it has launched until now
        before, self.word, self.epoch, self.window = self.word, word, epoch, window
        if word in RUNS:
            self._knocked = False
            self._draining = None
            if before not in RUNS and self._next is not None:
                self._thread_at = max(self._thread_at, self.agenda.now + self.costs.wake)
            self._blocked = False
            self._look()
        elif word is Word.DRAIN:
            self._cancel_alarm()
            self._interrupt()
            self.agenda.after(self.costs.wake, lambda: self._drain(epoch))
            self._look()

    def woken(self) -> None:
        """The daemon asks for a sign."""
        if self.word is Word.GRANTED and not self._busy and self._quiet is None:
            self._quiet = self.agenda.after(self.costs.wake, self._say_idle)

    def _drain(self, epoch: int) -> None:
        if self.word is Word.DRAIN and self.epoch == epoch and self.alive:
            self._draining = epoch
            self._drained()

    def _drained(self) -> None:
        if self._draining is not None and not self._flight:
            epoch, self._draining = self._draining, None
            self.listener.drained(self, epoch)

    # ---- kernels

    def _launch(self) -> None:
        """All that the thread has launched until now; kernels behind others are seen when one of those ends."""
        while self._next is not None and self.word in RUNS:
            if self._flight and (
                len(self._flight) >= self.costs.depth or (self.window and self._flight_ns + self._next > self.window)
            ):
                self._blocked = True
                return
            if self._thread_at > self.agenda.now:
                if not self._flight and self._alarm is None:
                    self._alarm = self.agenda.at(self._thread_at, self._ring)
                return
            self._thread_at += self.costs.launch
            self._submit(self._next)

    def _submit(self, length: int) -> None:
        last = self._left == 0
        self._flight.append((length, self._arrived if last else None))
        self._flight_ns += length
        self.engine.submit(self, length)
        if not last:
            self._left -= 1
            self._next = self._length()
            return
        self._next = None
        if not self.job.wait:
            if not self.job.arrivals.open:
                self._come_again()
            self._take()

    def _ring(self) -> None:
        self._alarm = None
        self._launch()

    def _cancel_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _interrupt(self) -> None:
        """Work without kernels ends wherever it is; the rest of it is for the next lease."""
        if not self.job.divisible or not self._flight:
            return
        lost = self.engine.cut(self, self.costs.residue)
        if lost > 0:
            length, arrived = self._flight.pop()
            self._flight.append((length - lost, None))
            self._flight_ns -= lost
            self._next, self._left, self._arrived = lost, 0, arrived

    def completed(self) -> None:
        """Its oldest kernel has ended."""
        if not self.alive:
            return
        if self.word in RUNS:
            self._launch()
        length, arrived = self._flight.popleft()
        self._flight_ns -= length
        if self._blocked:
            self._blocked = False
            self._thread_at = max(self._thread_at, self.agenda.now)
        if arrived is not None:
            self.served += 1
            self.listener.served(self, arrived)
            if self.job.requests and self.served >= self.job.requests:
                self.listener.finished(self)
                return
            if self.job.wait and not self.job.arrivals.open:
                self._come_again()
        self._drained()
        self._look()
