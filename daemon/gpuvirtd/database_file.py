# SPDX-License-Identifier: Apache-2.0
"""The one way in which the daemon opens its SQLite files, and writes to them all or nothing.

A file that is unusable is moved aside and a new one begun, with a note that says so; one that merely cannot be opened
(a full disk, no access) is no reason to forget what may be sound in it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from gpuvirt.errors import ConfigError

BLAMELESS = (  # results that say nothing against the file's content
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
)


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a file, and what people are told of it."""

    name: str  # "state database": begins the messages of errors
    setting: str  # by which another place can be chosen
    after_loss: str  # what happens when the old content cannot be used
    schema: int  # user_version of the file
    tables: str  # statements that make them
    names: tuple[str, ...]  # of the tables
    more: str = ""  # statements for every file, new or not; each changes nothing where it has been run before
    synchronous: str = "FULL"
    one_thread: bool = True  # only the thread that opens it uses it

    @property
    def advice(self) -> str:
        return f"free space there, or choose another place with {self.setting}"


def open_database(path: Path, contents: Contents) -> tuple[sqlite3.Connection, str]:
    """The database (WAL, statements commit by themselves), and what happened to a corrupt one (empty: nothing).

    Raises ConfigError where none can be had.
    """
    try:
        return _open(path, contents), ""
    except (sqlite3.DatabaseError, ValueError) as error:
        if _blameless(error):
            raise ConfigError(f"{contents.name} {path} cannot be used: {error}", contents.advice) from None
        aside = _move_aside(path)
        note = f"{path} was unusable ({error}); it is kept as {aside}, {contents.after_loss}"
    try:
        return _open(path, contents), note
    except sqlite3.DatabaseError as again:
        raise ConfigError(f"{contents.name} {path} cannot be made: {again}", contents.advice) from None


def _open(path: Path, contents: Contents) -> sqlite3.Connection:
    try:  # what is in it is the daemon's alone
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise ConfigError(f"{contents.name} {path} cannot be opened: {error.strerror}", contents.advice) from None
    os.close(fd)
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=contents.one_thread)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute(f"PRAGMA synchronous={contents.synchronous}")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN; {contents.tables} PRAGMA user_version={contents.schema}; COMMIT;")
        elif version != contents.schema:
            raise ValueError(f"schema {version}, this daemon knows {contents.schema}")
        if contents.more:
            database.executescript(contents.more)
        check = database.execute("PRAGMA quick_check").fetchone()[0]
        if check != "ok":
            raise ValueError(check)
        for name in contents.names:
            database.execute(f"SELECT count(*) FROM {name}")
    except BaseException:
        database.close()
        raise
    return database


def _blameless(error: Exception) -> bool:
    """True if the database may be sound although it could not be opened (no space, no access)."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in BLAMELESS


def _move_aside(path: Path) -> Path:
    aside = path.with_name(f"{path.name}.corrupt-{int(time.time())}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    return aside


class Transaction:
    """`with Transaction(database):` everything in it or nothing. Raises sqlite3.Error."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def __enter__(self) -> None:
        self.database.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self.database.execute("COMMIT")
        finally:
            # Also after a COMMIT that failed (a full disk): what is left open would swallow every later write.
            if self.database.in_transaction:
                self.database.execute("ROLLBACK")
