# SPDX-License-Identifier: Apache-2.0
"""What a restarted daemon must know: jobs and attached clients, in SQLite (WAL, synchronous=FULL).

Leases are never written. Written at changes of jobs and clients only.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from gpuvirt.errors import ConfigError
from gpuvirtd.database_file import Contents, Transaction, open_database
from gpuvirtd.identity import boot_id

TRIAL, EXTRA = "trial ", "extra "  # and the job: keys of `meta`, so that the tables stay as they were
POLICY, OWNER = "policy ", "exclusive owner "  # and the UUID of the GPU
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, token TEXT NOT NULL UNIQUE, name TEXT NOT NULL, uid INTEGER NOT NULL, weight INTEGER NOT NULL,
    memory INTEGER, command TEXT NOT NULL, root_pid INTEGER NOT NULL, root_start INTEGER NOT NULL, since REAL NOT NULL
);
CREATE TABLE clients (
    pid INTEGER NOT NULL, start INTEGER NOT NULL, job TEXT NOT NULL, device TEXT NOT NULL,
    PRIMARY KEY (pid, start, device)
);
"""
# Apart, so that the tables stay as a daemon of an earlier version knows them.
OWNERS = """
CREATE TABLE IF NOT EXISTS owners (
    pid INTEGER NOT NULL, start INTEGER NOT NULL, device TEXT NOT NULL, owner INTEGER NOT NULL,
    PRIMARY KEY (pid, start, device)
);
"""

CONTENTS = Contents(
    name="state database",
    setting="daemon.state",
    after_loss="jobs are rebuilt from clients that come back",
    schema=1,
    tables=TABLES,
    names=("jobs", "clients", "meta", "owners"),
    more=OWNERS,
)


@dataclass(frozen=True, slots=True)
class StoredJob:
    id: str
    token: str
    name: str
    uid: int
    weight: int
    memory: int | None
    command: list[str]
    root_pid: int
    root_start: int
    since: float  # wall clock, for people


@dataclass(frozen=True, slots=True)
class StoredExtra:
    """Limits besides --memory, what policies heed of it, its place in the line of those that wait to be started."""

    soft: int | None = None
    reserve: int = 0
    queued: int | None = None
    priority: int = 0
    tier: str = ""
    due_in: int = 0
    suspended: bool = False
    origin: str = ""  # what a scheduler calls it (agent/book.py); empty: started by its user


@dataclass(frozen=True, slots=True)
class StoredClient:
    pid: int
    start: int
    job: str
    device: str
    owner: int = -1  # its number in the arena of its job; -1: not known


class State:
    """The database. `note` says what happened to a corrupt one (empty: nothing).

    Raises ConfigError where none can be had: a full disk is no reason to forget the jobs in a sound database.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._db, self.note = open_database(path, CONTENTS)

    def next_generation(self) -> int:
        """Number of this start: one more than the last; forgets everything of an earlier boot. Raises ConfigError."""
        try:
            return self._next_generation()
        except sqlite3.Error as error:
            raise ConfigError(f"state database {self.path} cannot be written: {error}", CONTENTS.advice) from None

    def _next_generation(self) -> int:
        stored = dict(self._db.execute("SELECT key, value FROM meta"))
        # After a loss of the database the last number is not known: seconds since 1970 are above it.
        last = int(stored.get("generation", int(time.time()) if self.note else 0))
        generation = last + 1
        boot = boot_id()
        with self._transaction():
            if stored.get("boot", boot) != boot:
                self._db.execute("DELETE FROM jobs")
                self._db.execute("DELETE FROM clients")
                self._db.execute("DELETE FROM owners")
                for kind in (TRIAL, EXTRA, OWNER):
                    self._db.execute("DELETE FROM meta WHERE key LIKE ?", (kind + "%",))
            for key, value in (("generation", str(generation)), ("boot", boot)):
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))
        return generation

    def jobs(self) -> list[StoredJob]:
        rows = self._db.execute("SELECT * FROM jobs").fetchall()
        return [
            StoredJob(*[json.loads(value) if index == 6 else value for index, value in enumerate(row)]) for row in rows
        ]

    def trials(self) -> set[str]:
        """Jobs of which nothing is shown when they have ended. In `meta`, so that the tables stay as they were."""
        return {key.removeprefix(TRIAL) for (key,) in self._db.execute("SELECT key FROM meta") if key.startswith(TRIAL)}

    def put_trial(self, job: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, '1')", (TRIAL + job,))

    def extras(self) -> dict[str, StoredExtra]:
        """What jobs have besides their row, by job."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key LIKE ?", (EXTRA + "%",)).fetchall()
        return {key.removeprefix(EXTRA): _extra(value) for key, value in rows}

    def policies(self) -> dict[str, str]:
        """Policies that were set while a daemon ran, by the UUID of the GPU. They outlive the host's boots."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key LIKE ?", (POLICY + "%",)).fetchall()
        return {key.removeprefix(POLICY): value for key, value in rows}

    def put_policy(self, device: str, name: str | None) -> None:
        """None: as configured."""
        if name is None:
            self._db.execute("DELETE FROM meta WHERE key = ?", (POLICY + device,))
        else:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (POLICY + device, name))

    def gpu_owners(self) -> dict[str, str]:
        """Jobs that have a GPU for themselves (policy `exclusive`), by the UUID of the GPU."""
        rows = self._db.execute("SELECT key, value FROM meta WHERE key LIKE ?", (OWNER + "%",)).fetchall()
        return {key.removeprefix(OWNER): value for key, value in rows}

    def put_gpu_owner(self, device: str, job: str | None) -> None:
        """None: nobody has it for itself."""
        if job is None:
            self._db.execute("DELETE FROM meta WHERE key = ?", (OWNER + device,))
        else:
            self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (OWNER + device, job))

    def clients(self) -> list[StoredClient]:
        rows = self._db.execute(
            "SELECT pid, start, job, device, ifnull(owner, -1) FROM clients LEFT JOIN owners USING (pid, start, device)"
        )
        return [StoredClient(*row) for row in rows.fetchall()]

    def put_job(self, job: StoredJob, extra: StoredExtra | None = None) -> None:
        """Both or nothing: a job in line that lost its place would start at once after a restart."""
        row = (
            job.id,
            job.token,
            job.name,
            job.uid,
            job.weight,
            job.memory,
            json.dumps(job.command),
            job.root_pid,
            job.root_start,
            job.since,
        )
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
            if extra is not None:
                value = json.dumps(asdict(extra))
                self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (EXTRA + job.id, value))

    def remove_job(self, job: str) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM jobs WHERE id = ?", (job,))
            self._db.execute(
                "DELETE FROM owners WHERE (pid, start, device) IN"
                " (SELECT pid, start, device FROM clients WHERE job = ?)",
                (job,),
            )
            self._db.execute("DELETE FROM clients WHERE job = ?", (job,))
            for kind in (TRIAL, EXTRA):
                self._db.execute("DELETE FROM meta WHERE key = ?", (kind + job,))
            # Its id may be another job's after a restart.
            self._db.execute("DELETE FROM meta WHERE key LIKE ? AND value = ?", (OWNER + "%", job))

    def put_client(self, client: StoredClient) -> None:
        key = (client.pid, client.start, client.device)
        with self._transaction():
            self._db.execute(
                "INSERT OR REPLACE INTO clients VALUES (?, ?, ?, ?)",
                (client.pid, client.start, client.job, client.device),
            )
            self._db.execute("INSERT OR REPLACE INTO owners VALUES (?, ?, ?, ?)", (*key, client.owner))

    def remove_client(self, client: StoredClient) -> None:
        for table in ("clients", "owners"):
            self._db.execute(
                f"DELETE FROM {table} WHERE pid = ? AND start = ? AND device = ?",
                (client.pid, client.start, client.device),
            )

    def _transaction(self) -> Transaction:
        return Transaction(self._db)

    def close(self) -> None:
        self._db.close()


def _extra(value: str) -> StoredExtra:
    """What of it this version knows; nothing of what no version has written."""
    try:
        found = json.loads(value)
        return StoredExtra(**{field.name: found[field.name] for field in fields(StoredExtra) if field.name in found})
    except (ValueError, TypeError):
        return StoredExtra()
