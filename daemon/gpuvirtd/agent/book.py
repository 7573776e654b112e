# SPDX-License-Identifier: Apache-2.0
"""What the agent must know after a restart: the highest term, commands that were carried out, attempts of jobs.

SQLite, written by a thread of its own: a disk is slow, and the arbiters' turns share the loop. Who writes awaits it
before anything is done or answered that depends on it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from gpuvirt.fencing import Done
from gpuvirtd.database_file import Contents, Transaction, open_database

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE commands (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, content TEXT NOT NULL, outcome BLOB NOT NULL
);
CREATE TABLE attempts (job TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
CONTENTS = Contents(
    name="agent's database",
    setting="agent.database",
    after_loss="terms and jobs of before are forgotten: the scheduler learns what still runs by registering",
    schema=1,
    tables=TABLES,
    names=("meta", "commands", "attempts"),
    one_thread=False,
)


@dataclass(slots=True)
class Attempt:
    """The last attempt of a scheduler's job on this host."""

    job: str
    attempt: int
    command: str  # id of the command that started it
    uid: int
    log: str
    since: float  # wall clock
    boot: str  # pids mean something within one boot only
    pid: int = 0  # of its supervisor (`gpuvirt run`), which leads a session of its own; 0: it was never started
    start: int = 0  # clock ticks after boot
    local: str = ""  # the host's id; empty until its supervisor has asked for a job
    limits: dict[str, int] = field(default_factory=dict)  # as asked: fields of the messages
    standing: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    exit: int | None = None
    reason: str = ""
    held_s: float = 0.0  # when it has ended
    waited_s: float = 0.0

    @property
    def origin(self) -> str:
        """What the host's job remembers of it."""
        return f"{self.job}/{self.attempt}"


class Book:
    """The database. Raises ConfigError where none can be had; every write raises sqlite3.Error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db, self.note = open_database(path, CONTENTS)
        self._writer = ThreadPoolExecutor(1, "gpuvirtd-agent")

    # ---- at the start

    def term(self) -> int:
        return int(self._value("term") or 0)

    def draining(self) -> str | None:
        """The reason; None: it takes jobs."""
        return self._value("draining")

    def done(self) -> list[Done]:
        rows = self._db.execute("SELECT id, content, outcome FROM commands ORDER BY number")
        return [Done(command, content, bytes(outcome)) for command, content, outcome in rows]

    def attempts(self) -> list[Attempt]:
        known = {one.name for one in fields(Attempt)}
        rows = self._db.execute("SELECT value FROM attempts ORDER BY rowid").fetchall()
        return [
            Attempt(**{name: value for name, value in json.loads(text).items() if name in known}) for (text,) in rows
        ]

    def _value(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    # ---- later

    async def put_term(self, term: int) -> None:
        await self._write(lambda: self._put("term", str(term)))

    async def put_draining(self, reason: str | None) -> None:
        await self._write(lambda: self._put("draining", reason))

    async def put_done(self, done: Done, forgotten: list[str]) -> None:
        def write() -> None:
            row = (done.command, done.content, done.outcome)
            self._db.execute("INSERT OR REPLACE INTO commands (id, content, outcome) VALUES (?, ?, ?)", row)
            self._db.executemany("DELETE FROM commands WHERE id = ?", [(command,) for command in forgotten])

        await self._write(write)

    async def put_attempt(self, attempt: Attempt, forgotten: list[str]) -> None:
        """As it is now; the last ones of other jobs may be forgotten."""
        row = (attempt.job, json.dumps(asdict(attempt)))

        def write() -> None:
            self._db.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?)", row)
            self._db.executemany("DELETE FROM attempts WHERE job = ?", [(job,) for job in forgotten])

        await self._write(write)

    async def remove_attempt(self, job: str) -> None:
        await self._write(lambda: self._db.execute("DELETE FROM attempts WHERE job = ?", (job,)))

    def _put(self, key: str, value: str | None) -> None:
        if value is None:
            self._db.execute("DELETE FROM meta WHERE key = ?", (key,))
        else:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    async def _write(self, change: Callable[[], object]) -> None:
        """In the order of the calls."""

        def carry_out() -> None:
            with Transaction(self._db):
                change()

        await asyncio.get_running_loop().run_in_executor(self._writer, carry_out)

    def close(self) -> None:
        self._writer.shutdown()
        self._db.close()
