# SPDX-License-Identifier: Apache-2.0
"""State in a SQLite file: for one scheduler on one machine, and one that stands by on the same.

Who leads holds a lock on a file beside the database, which the kernel gives up when its process ends, however it ends.
What fences is not the lock but the term in the database: a commit compares it in its own transaction. All of SQLite is
done in one thread, so a slow disk does not stop the loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from gpuvirt.errors import ConfigError
from gpuvirt_scheduler.store.base import Changes, NotLeader, Saved, StoreAway

SCHEMA = 1
TABLES = """
CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE state (one INTEGER PRIMARY KEY CHECK (one = 1), revision INTEGER, term INTEGER, leader TEXT);
INSERT INTO state VALUES (1, 0, 0, '');
"""
LOOK_EVERY_S = 0.2  # for the lock
BUSY_S = 5.0

T = TypeVar("T")


class SqliteStore:
    """One scheduler's way to it. Raises ConfigError where there is no usable file."""

    def __init__(self, path: Path, name: str) -> None:
        self._path, self._name, self._term = path, name, 0
        self._thread = ThreadPoolExecutor(1, "store")
        self._gone = asyncio.Event()
        self._reason = ""
        self._lock, self._closed = -1, False
        try:
            self._database = self._thread.submit(_open, path).result()
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def lead(self) -> int:
        while not await self._do(self._take_lock):
            await asyncio.sleep(LOOK_EVERY_S)
        self._gone.clear()
        self._term = await self._do(self._begin_term)
        return self._term

    async def lost(self) -> str:
        await self._gone.wait()
        return self._reason

    async def leader(self) -> str:
        def look() -> str:
            if self._lock < 0 and not _is_locked(self._lock_file()):
                return ""
            return str(self._database.execute("SELECT leader FROM state").fetchone()[0])

        return await self._do(look)

    async def load(self) -> Saved:
        def read() -> Saved:
            with _transaction(self._database, "DEFERRED"):
                (revision,) = self._database.execute("SELECT revision FROM state").fetchone()
                return Saved(dict(self._database.execute("SELECT key, value FROM entries")), revision)

        return await self._do(read)

    async def commit(self, term: int, changes: Changes) -> int:
        def write() -> int:
            with _transaction(self._database, "IMMEDIATE"):
                revision, leads, leader = self._database.execute("SELECT revision, term, leader FROM state").fetchone()
                if term != leads or term != self._term:
                    raise NotLeader(f"term {term} is over: {leader} leads in term {leads}")
                self._database.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?)", changes.puts.items())
                self._database.executemany("DELETE FROM entries WHERE key = ?", [(key,) for key in changes.deletes])
                self._database.execute("UPDATE state SET revision = ?", (revision + 1,))
                return int(revision) + 1

        try:
            return await self._do(write)
        except NotLeader as error:
            self._lose(error.message)
            raise

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._lose("it was closed")
        with contextlib.suppress(StoreAway):
            await self._do(self._end)
        self._thread.shutdown(wait=True)

    def _lose(self, reason: str) -> None:
        self._reason = self._reason if self._gone.is_set() else reason
        self._gone.set()

    async def _do(self, work: Callable[[], T]) -> T:
        """In the store's thread. Raises StoreAway, and whatever `work` raises by itself."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except sqlite3.Error as error:
            raise StoreAway(
                f"{self._path} cannot be used: {error}", "free space there, or see what its disk says"
            ) from None
        except OSError as error:
            raise StoreAway(f"{self._lock_file()} cannot be used: {error.strerror}") from None

    # ---- in the store's thread

    def _lock_file(self) -> Path:
        return self._path.with_name(self._path.name + ".lock")

    def _take_lock(self) -> bool:
        if self._lock >= 0 and not _same_file(self._lock, self._lock_file()):
            os.close(self._lock)  # somebody has removed the file: others lock another one
            self._lock = -1
        if self._lock >= 0:
            return True
        handle = os.open(self._lock_file(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        self._lock = handle
        return True

    def _begin_term(self) -> int:
        with _transaction(self._database, "IMMEDIATE"):
            (term,) = self._database.execute("SELECT term FROM state").fetchone()
            self._database.execute("UPDATE state SET term = ?, leader = ?", (term + 1, self._name))
            return int(term) + 1

    def _end(self) -> None:
        self._database.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, kind: str) -> Iterator[None]:
    """All of it or nothing."""
    database.execute(f"BEGIN {kind}")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:  # a full disk has rolled back by itself
            database.execute("ROLLBACK")
        raise


def _open(path: Path) -> sqlite3.Connection:
    """Never made anew where there is something that cannot be read: it says which jobs there are."""
    advice = "put back a copy, or move it away to begin with nothing: hosts go on with their jobs meanwhile"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.close(handle)
        database = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except OSError as error:
        raise ConfigError(
            f"the store {path} cannot be opened: {error.strerror}", "choose another with --store"
        ) from None
    except sqlite3.Error as error:
        raise ConfigError(f"the store {path} cannot be opened: {error}", "choose another with --store") from None
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version == 0:
            database.executescript(f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version={SCHEMA}; COMMIT;")
        elif version != SCHEMA:
            raise ConfigError(f"the store {path} has schema {version}, this scheduler knows {SCHEMA}", advice)
        (check,) = database.execute("PRAGMA quick_check").fetchone()
        if check != "ok":
            raise ConfigError(f"the store {path} is damaged: {check}", advice)
        database.execute("SELECT revision, term, leader FROM state").fetchone()
    except sqlite3.Error as error:
        database.close()
        raise ConfigError(f"the store {path} cannot be used: {error}", advice) from None
    except ConfigError:
        database.close()
        raise
    return database


def _same_file(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    """Does a process hold it?"""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
