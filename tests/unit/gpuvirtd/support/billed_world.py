# SPDX-License-Identifier: Apache-2.0
"""Jobs on one GPU under the real decisions and the real books, on a clock that is moved by hand.

It knows by itself what each job has had: after each step the time up to the next belongs to whoever holds the GPU, and
to everybody who waits. Daemons die and jobs come back when the test says so.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import SECOND, Client, Gpu, Rules, Word
from gpuvirt.arbitration.lease import decide
from gpuvirt.clock import ManualClock
from gpuvirtd.accounts.account import Sums
from gpuvirtd.accounts.books import Books
from gpuvirtd.accounts.database import Database
from gpuvirtd.accounts.live import Live

GPU = "GPU-1"
WALL = 1_800_000_000 * SECOND  # of CLOCK_MONOTONIC 0; on a full minute


@dataclass
class FakeJob:
    """A job with one process, and what its page would say."""

    id: str
    uid: int
    number: int
    since: float
    name: str = "train"
    user: str = "ada"
    busy_ns: int = 0
    past: dict[str, dict[str, int]] = field(default_factory=dict)
    members: dict[int, Any] = field(default_factory=dict)


class World:
    """Make it inside of a running loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = ManualClock()
        self.jobs: dict[str, FakeJob] = {}
        self.truth: dict[str, Counter[str]] = {}
        self.gone: set[str] = set()  # jobs whose process has not come back after a crash
        self.wall_step = 0
        self.errors: list[str] = []
        self._dead: list[Books] = []  # what the kernel closes for a daemon that is really killed
        self._daemon()

    def _daemon(self) -> None:
        self.gpu = Gpu(GPU, 100, Rules())
        device = SimpleNamespace(uuid=GPU, index=0)
        self.arbiter: Any = SimpleNamespace(device=device, gpu=self.gpu, jobs=dict(self.jobs))
        host: Any = SimpleNamespace(
            clock=self.clock,
            loop=asyncio.get_running_loop(),
            arbiters={b"1": self.arbiter},
            jobs=SimpleNamespace(by_id=self.jobs),
            recovery=SimpleNamespace(lacks=lambda arbiter, job: job in self.gone),
            log=SimpleNamespace(error=lambda event, **details: self.errors.append(event)),
        )
        live, database = Live(self.folder / "accounts.live"), Database(self.folder / "accounts.db")
        self.books = Books(host, live, database, 400 * 86400.0, self.wall)

    def wall(self) -> int:
        return WALL + self.clock.now() + self.wall_step

    # ---- jobs

    def start(self, uid: int = 1000) -> FakeJob:
        number = len(self.truth) + 1
        job = FakeJob(f"j{number}", uid, number, since=float(number), user=f"u{uid}")
        job.members[number] = SimpleNamespace(
            busy=lambda now: job.busy_ns, arbiter=SimpleNamespace(device=SimpleNamespace(uuid=GPU))
        )
        self.jobs[job.id] = self.arbiter.jobs[job.id] = job
        self.truth[job.id] = Counter()
        events.attach(self.gpu, job.id, 1, Client(number))
        self.turn()
        return job

    def want(self, job: FakeJob) -> None:
        events.want(self.gpu, job.number, 0, 0, self.clock.now())
        self.turn()

    def idle(self, job: FakeJob) -> None:
        events.idle(self.gpu, job.number)
        self.turn()

    def drained(self, job: FakeJob) -> None:
        contender = self.gpu.contenders[job.id]
        events.drained(self.gpu, job.number, 0 if contender.word is Word.CLOSED else contender.epoch)
        self.turn()

    def kill(self, job: FakeJob) -> None:
        """Process and job end. One that had not come back is missed by the new daemon no more."""
        job.past[GPU] = {"busy_ns": job.busy_ns}
        job.members.clear()
        self.gone.discard(job.id)
        if job.id in self.gpu.contenders:
            events.gone(self.gpu, job.number)
            self.turn()
            events.ended(self.gpu, job.id)
        del self.jobs[job.id], self.arbiter.jobs[job.id]
        self.turn()

    def later(self, ns: int) -> None:
        """So much passes. Whoever may use the GPU alone is busy for half of it."""
        for key, (holds, waits) in self.now_is.items():
            self.truth[key].update({holds: ns} if holds else {})
            self.truth[key].update({"wait": ns} if waits else {})
            if holds == "alone" and key in self.jobs:
                self.jobs[key].busy_ns += ns // 2
                self.truth[key]["busy"] += ns // 2
        self.clock.advance(ns)
        self.turn()

    # ---- the daemon

    def turn(self) -> None:
        """Decide; the books are told; from now on everybody has what was decided."""
        now = self.clock.now()
        decide(self.gpu, now)
        self.books.look(self.arbiter, now)
        self.now_is = {
            key: now_is
            for key, now_is in getattr(self, "now_is", {}).items()
            if key in self.jobs and (key in self.gone or self._undrained(key))
        }
        for key, contender in self.gpu.contenders.items():
            if key not in self.now_is:
                holds = ("alone" if contender.word is Word.OPEN else "held") if self.gpu.holder == key else ""
                self.now_is[key] = (holds, contender.waiting_since is not None)

    def _undrained(self, key: str) -> bool:
        """It came back to this daemon, and what it had under the one before may still be on the GPU."""
        contender = self.gpu.contenders.get(key)
        return contender is not None and contender.epoch == 0 and not all(c.drained for c in contender.clients.values())

    def crash(self, down: int = 0) -> None:
        """The daemon dies where it is (nothing is closed), and another starts `down` ns later: all jobs are missing."""
        for key, (holds, waits) in self.now_is.items():
            self.truth[key].update({holds: down} if holds else {})
            self.truth[key].update({"wait": down} if waits else {})
        self.clock.advance(down)
        self.gone = set(self.jobs)
        if self.books._entering is not None:
            self.books._entering.cancel()  # what its thread is writing, it may still write: old figures
        self._dead.append(self.books)
        self._daemon()
        self.gpu.hold_until = 1 << 60
        self.books.begin()

    def bury(self) -> None:
        """Close what the dead daemons had open, once their threads have ended."""
        for books in self._dead:
            books._thread.shutdown(wait=True)
            books.live.close()
            books.database.close()

    def come_back(self, job: FakeJob) -> None:
        """It attaches again; what it had may still be on the GPU."""
        client = Client(job.number, drained=False)
        events.attach(self.gpu, job.id, 1, client)
        self.turn()
        self.gone.discard(job.id)
        if not self.gone:
            self.gpu.hold_until = 0
        self.turn()

    # ---- what the books say

    async def billed(self) -> dict[str, Sums]:
        """The sums of every job, in ns."""
        await self.books.bills(0, None, "job")
        rows = self.books.database.bills(0, 1e12, "job")
        return {row["job"]: Sums(*(row[name] for name in Sums._fields)) for row in rows}
