# SPDX-License-Identifier: Apache-2.0
"""What was used when, in SQLite (WAL). One thread uses it, never the daemon's loop: a slow disk delays no grant.

Each row of `usage` says what one account has added up in one minute; later minutes become hours, and what is older than
the retention goes. `accounts` has the sums that have been entered: only what is beyond them is added, so that entering
the same figures twice (a daemon that died in between) changes nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gpuvirtd.accounts.account import Owner, Sums
from gpuvirtd.database_file import Contents, Transaction, open_database

MINUTE, HOUR, DAY = 60, 3600, 86400
MINUTES_KEPT = 48 * HOUR  # seconds; then they become hours
_FIGURES = ", ".join(f"{name} INTEGER NOT NULL" for name in Sums._fields)
TABLES = f"""
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, job TEXT NOT NULL, since REAL NOT NULL, name TEXT NOT NULL, uid INTEGER NOT NULL,
    user TEXT NOT NULL, gpu TEXT NOT NULL, opened INTEGER NOT NULL, ended INTEGER NOT NULL, {_FIGURES},
    UNIQUE (opened, job, gpu)
);
CREATE TABLE usage (
    start INTEGER NOT NULL, account INTEGER NOT NULL, width INTEGER NOT NULL, {_FIGURES},
    PRIMARY KEY (start, account, width)
) WITHOUT ROWID;
"""
CONTENTS = Contents(
    name="accounts",
    setting="accounts.database",
    after_loss="bills begin anew",
    schema=1,
    tables=TABLES,
    names=("accounts", "usage"),
    synchronous="NORMAL",  # the live file has what a crash of the daemon would cost
    one_thread=False,  # opened by another one than the one that uses it
)
_NAMES = ", ".join(Sums._fields)
_MARKS = ", ".join("?" * len(Sums._fields))
_ADD = (
    f"INSERT INTO usage (start, account, width, {_NAMES}) VALUES (?, ?, ?, {_MARKS}) ON CONFLICT DO UPDATE SET "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in Sums._fields)
)
_SET = f"UPDATE accounts SET ended = ?, {', '.join(f'{name} = ?' for name in Sums._fields)} WHERE id = ?"
_TOTALS = ", ".join(f"sum(u.{name}) AS {name}" for name in Sums._fields)
By = Literal["tenant", "job", "gpu"]
GROUPS: dict[By, tuple[str, str]] = {  # columns that say who it is, the key of a group
    "tenant": ("a.uid, a.user, count(DISTINCT a.job || ' ' || a.since) AS jobs", "a.uid"),
    "job": ("a.uid, a.user, a.job, a.name, a.since, min(a.ended) AS ended", "a.job, a.since, a.uid"),
    "gpu": ("a.gpu AS uuid, count(DISTINCT a.job || ' ' || a.since) AS jobs", "a.gpu"),
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One account's sums at the end of some periods, the last one with all that is known."""

    owner: Owner
    periods: Sequence[tuple[int, Sums]]  # (start of the minute: seconds since 1970, sums at its end)
    ended: bool = False


class Database:
    """The file. `note` says what happened to a corrupt one (empty: nothing). Raises ConfigError where none can be."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db, self.note = open_database(path, CONTENTS)
        self._db.row_factory = sqlite3.Row

    def enter(self, entries: Sequence[Entry]) -> None:
        """Everything or nothing. Raises sqlite3.Error."""
        with Transaction(self._db):
            for entry in entries:
                number, before = self._account(entry.owner)
                for start, sums in entry.periods:
                    more = [max(0, new - old) for new, old in zip(sums, before, strict=True)]
                    if any(more):
                        self._db.execute(_ADD, (start, number, MINUTE, *more))
                        before = Sums(*map(max, sums, before))
                self._db.execute(_SET, (int(entry.ended), *before, number))

    def _account(self, owner: Owner) -> tuple[int, Sums]:
        key = (owner.opened, owner.job, owner.gpu)
        found = self._db.execute(
            f"SELECT id, {_NAMES} FROM accounts WHERE opened = ? AND job = ? AND gpu = ?", key
        ).fetchone()
        if found is not None:
            return int(found["id"]), Sums(*tuple(found)[1:])
        made = self._db.execute(
            f"INSERT INTO accounts (opened, job, gpu, since, name, uid, user, ended, {_NAMES}) "
            f"VALUES (?, ?, ?, ?, ?, ?, ?, 0, {_MARKS})",
            (*key, owner.since, owner.name, owner.uid, owner.user, *Sums()),
        )
        assert made.lastrowid is not None
        return made.lastrowid, Sums()

    def bills(self, since: float, until: float, by: By) -> list[dict[str, Any]]:
        """Sums by tenant, job or GPU of all periods that lie in [since, until), or partly: seconds since 1970."""
        columns, group = GROUPS[by]
        rows = self._db.execute(
            f"SELECT {columns}, min(u.start) AS first, max(u.start + u.width) AS last, {_TOTALS} "
            "FROM usage u JOIN accounts a ON a.id = u.account "
            f"WHERE u.start + u.width > ? AND u.start < ? GROUP BY {group} ORDER BY sum(u.held + u.busy) DESC, {group}",
            (since, until),
        )
        return [dict(row) for row in rows]

    def tidy(self, now: float, retention: float) -> None:
        """Old minutes become hours, what is older than the retention (s) goes. Raises sqlite3.Error."""
        with Transaction(self._db):
            old = int(now - MINUTES_KEPT) // HOUR * HOUR
            self._db.execute(
                _ADD.replace(f"VALUES (?, ?, ?, {_MARKS})", "%s")
                % (
                    f"SELECT u.start / {HOUR} * {HOUR}, u.account, {HOUR}, {_TOTALS} FROM usage u "
                    f"WHERE u.width = {MINUTE} AND u.start < ? GROUP BY 1, 2"
                ),
                (old,),
            )
            self._db.execute("DELETE FROM usage WHERE width = ? AND start < ?", (MINUTE, old))
            self._db.execute("DELETE FROM usage WHERE start + width <= ?", (now - retention,))
            self._db.execute("DELETE FROM accounts WHERE ended AND id NOT IN (SELECT account FROM usage)")

    def close(self) -> None:
        self._db.close()
