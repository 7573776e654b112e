# SPDX-License-Identifier: Apache-2.0
"""Memory of processes that moves over the link of a GPU, window by window, as the shim moves it.

A process that has to leave says PROGRESS after each window; one that comes in goes as far as its credit and says when
it waits for more. Both directions of the link are busy at the same time, each with one window after the other.
"""

from __future__ import annotations

from typing import Protocol

from gpuvirt.arbitration.facts import SECOND, Move
from gpuvirt.simulation.agenda import Agenda

WINDOW = 256 << 20  # bytes
CANCELLED = 600  # CUDA_ERROR_NOT_READY: a RESTORE that was called off


class Link:
    """rate: bytes/s of each direction."""

    def __init__(self, agenda: Agenda, rate: float) -> None:
        self.agenda, self.rate = agenda, rate
        self._free = dict.fromkeys(Move, 0)

    def take(self, move: Move, size: float) -> int:
        """So many bytes go one way; returns when they are there."""
        begin = max(self.agenda.now, self._free[move])
        self._free[move] = begin + int(size / self.rate * SECOND) + 1
        return self._free[move]


class Listener(Protocol):
    """Who is told how far it got."""

    def progress(self, memory: Memory) -> None:
        """One more window has left."""

    def waits(self, memory: Memory) -> None:
        """All its credit is used."""

    def moved(self, memory: Memory, move: Move, status: int, copied: int, elided: int, took: int) -> None:
        """EVICTED or RESTORED. Bytes, ns."""


class Memory:
    """Memory of one process. size: all of it; dirty: the part of it that it changes while it has the GPU."""

    def __init__(self, number: int, size: int, dirty: float, link: Link, listener: Listener) -> None:
        self.number, self.size, self.dirty = number, size, dirty
        self.link, self.listener = link, listener
        self.resident = 0
        self.out = self.copied_out = self.inward = 0
        self._fresh = True  # nothing was ever written: the first time it comes without being copied
        self._move: Move | None = None
        self._target = self._credit = 0
        self._since = self._done = self._copied = 0
        self._waiting = False
        self._turn = 0

    def asked(self, move: Move, size: int, credit: int) -> None:
        """EVICT down to `size`, or RESTORE with so much credit at first."""
        self._move, self._target, self._credit = move, size, credit
        self._since, self._done, self._copied, self._waiting = self.link.agenda.now, 0, 0, False
        self._turn += 1
        self._step()

    def credited(self, size: int, cancelled: bool) -> None:
        """CREDIT."""
        if self._move is not Move.RESTORE:
            return
        self._credit = size
        if cancelled and self.resident < self.size:
            self._turn += 1
            self._answer(CANCELLED)
        elif self._waiting:
            self._waiting = False
            self._step()

    def _step(self) -> None:
        move = self._move
        assert move is not None
        left = self.resident - self._target if move is Move.EVICT else min(self.size, self._credit) - self.resident
        if left <= 0:
            if move is Move.RESTORE and self.resident < self.size:
                self._waiting = True
                self.listener.waits(self)
            else:
                self._answer(0)
            return
        window = min(WINDOW, left)
        copied = window * self.dirty if move is Move.EVICT else 0 if self._fresh else window
        turn = self._turn
        self.link.agenda.at(self.link.take(move, copied), lambda: self._window(turn, window, int(copied)))

    def _window(self, turn: int, window: int, copied: int) -> None:
        if turn != self._turn:
            return  # it was called off, or the process died
        self._done += window
        self._copied += copied
        if self._move is Move.EVICT:
            self.resident -= window
            self.out += window
            self.copied_out += copied
            self.listener.progress(self)
        else:
            self.resident += window
            self.inward += copied
        self._step()

    def _answer(self, status: int) -> None:
        move, self._move = self._move, None
        assert move is not None
        if move is Move.RESTORE and status == 0:
            self._fresh = False
        took = self.link.agenda.now - self._since
        self.listener.moved(self, move, status, self._copied, self._done - self._copied, took)

    def stop(self) -> None:
        """The process died."""
        self._turn += 1
        self._move = None
