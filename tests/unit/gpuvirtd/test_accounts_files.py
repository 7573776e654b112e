# SPDX-License-Identifier: Apache-2.0
"""The two files of the books: the live one survives every way to die, the database counts nothing twice."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
from pathlib import Path

import pytest

from gpuvirt.errors import ConfigError
from gpuvirtd.accounts.account import NOTHING, Account, Mode, Owner, Sums
from gpuvirtd.accounts.database import DAY, HOUR, MINUTE, Database, Entry
from gpuvirtd.accounts.live import COPIES_AT, FIRST, HEADER, SLOT, Live
from gpuvirtd.identity import boot_id

OWNER = Owner("j1", 12.5, "träin", 1000, "ada", "GPU-1", 77)
NOON = 1_800_000_000 // DAY * DAY + DAY // 2
SOME = Sums(held=1, alone=2, busy=3, wait=4, overrun=5, overruns=6, switches=7, waits=8)


def owner(number: int) -> Owner:
    return dataclasses.replace(OWNER, job=f"j{number}")


# ---- the live file


def test_what_was_put_is_there_without_a_close(tmp_path: Path) -> None:
    path = tmp_path / "live"
    live = Live(path)
    live.begin(5, 6)
    account = Account(OWNER, *SOME, Mode.ALONE, 9, 10)
    live.take(account)
    for wait in (None, 0, 11):
        account.wait_since = wait
        live.put(account)
        found = Live(path)
        assert (found.boot, found.last_beat) == (boot_id(), (5, 6))
        (again,) = found.accounts()
        assert (again.owner, again.sums, again.mode) == (OWNER, SOME, Mode.ALONE)
        assert (again.since, again.busy_from, again.wait_since, again.slot) == (9, 10, wait, account.slot)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("changes", [1, 2])
def test_a_copy_that_was_being_written_does_not_count(tmp_path: Path, changes: int) -> None:
    path = tmp_path / "live"
    live = Live(path)
    account = Account(OWNER)
    live.take(account)
    for n in range(changes):
        account.held = n + 1
        live.put(account)
    live.begin(0, 0)
    data = bytearray(path.read_bytes())
    newest = max(COPIES_AT, key=lambda at: data[HEADER + account.slot * SLOT + at])
    data[HEADER + account.slot * SLOT + newest] += 1  # its first word is written, its last one is not
    path.write_bytes(data)
    assert [found.sums for found in Live(path).accounts()] == [Sums(held=changes - 1)]


def test_many_accounts_and_their_ends(tmp_path: Path) -> None:
    live = Live(tmp_path / "live")
    live.begin(0, 0)
    accounts = [Account(owner(n), held=n) for n in range(3 * FIRST)]
    for account in accounts:
        live.take(account)
    assert len({account.slot for account in accounts}) == 3 * FIRST
    for account in accounts[::2]:
        live.free(account.slot)
    live = Live(tmp_path / "live")
    assert {found.owner: found.sums for found in live.accounts()} == {a.owner: a.sums for a in accounts[1::2]}
    again = Account(OWNER)
    live.take(again)
    assert again.slot in {account.slot for account in accounts[::2]}, "freed slots are used again"


@pytest.mark.parametrize("damage", ["rubbish", "short", "other version", "owner"])
def test_a_file_that_makes_no_sense_is_begun_anew(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "live"
    live = Live(path)
    live.begin(0, 0)
    account = Account(OWNER)
    live.take(account)
    data = bytearray(path.read_bytes())
    if damage == "rubbish":
        data[:] = b"\xa5" * len(data)
    elif damage == "short":
        del data[HEADER + 100 :]
    elif damage == "other version":
        data[17:18] = b"9"
    else:
        data[HEADER + account.slot * SLOT + 320] = 0xFF
    path.write_bytes(data)
    live = Live(path)
    assert live.accounts() == []
    live.begin(0, 0)
    live.take(account)
    assert [found.owner for found in Live(path).accounts()] == [OWNER]


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "live").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="cannot be kept"):
        Live(tmp_path / "live")


# ---- the database


def sums_of(database: Database, since: float = 0, until: float = 1e12) -> Sums:
    rows = database.bills(since, until, "job")
    assert len(rows) <= 1
    return Sums(*(rows[0][name] for name in Sums._fields)) if rows else NOTHING


def test_what_is_entered_twice_counts_once(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    first = Entry(OWNER, [(NOON, Sums(held=10)), (NOON + 60, Sums(held=15, wait=3))])
    later = Entry(OWNER, [(NOON, Sums(held=10)), (NOON + 60, Sums(held=22, wait=3)), (NOON + 120, Sums(held=30))])
    for entry in (first, first, later, first):  # the last one is of a daemon that has been dead for a while
        database.enter([entry])
        database = Database(tmp_path / "db")
    assert sums_of(database) == Sums(held=30, wait=3)
    assert sums_of(database, until=NOON + 60) == Sums(held=10)
    assert sums_of(database, since=NOON + 120) == Sums(held=8), "the third minute"
    assert sums_of(database, since=NOON + 60, until=NOON + 120) == Sums(held=12, wait=3)


def test_all_or_nothing(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    bad = Entry(owner(2), [(NOON, Sums(held=1 << 70))])  # no number for SQLite
    with pytest.raises(OverflowError):
        database.enter([Entry(OWNER, [(NOON, SOME)]), bad])
    assert sums_of(database) == NOTHING
    database.enter([Entry(OWNER, [(NOON, SOME)])])
    assert sums_of(database) == SOME


def test_minutes_become_hours_and_go_in_the_end(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    sums = [Sums(held=7 * n, wait=n) for n in range(1, 181)]
    database.enter([Entry(OWNER, [(NOON + MINUTE * n, one) for n, one in enumerate(sums)], ended=True)])

    def hours() -> list[Sums]:
        return [sums_of(database, NOON + HOUR * n, NOON + HOUR * (n + 1)) for n in range(3)]

    before = hours()
    assert before == [Sums(held=420, wait=60)] * 3
    database.tidy(NOON + 2 * DAY + HOUR + 1, 30.0 * DAY)  # the first hour is more than two days ago
    database.tidy(NOON + 2 * DAY + HOUR + 1, 30.0 * DAY)
    assert hours() == before
    assert sums_of(database, NOON + 30 * MINUTE, NOON + 31 * MINUTE) == Sums(held=420, wait=60), "it is one now"
    assert sums_of(database, NOON + HOUR + 1, NOON + HOUR + 30) == Sums(held=7, wait=1)
    database.tidy(NOON + 30 * DAY + HOUR, 30.0 * DAY)
    assert hours() == [NOTHING, *before[1:]]
    database.tidy(NOON + 31 * DAY, 30.0 * DAY)
    assert sums_of(database) == NOTHING
    assert database._db.execute("SELECT count(*) FROM accounts").fetchone()[0] == 0


def test_an_account_that_goes_on_is_kept_however_old(tmp_path: Path) -> None:
    database = Database(tmp_path / "db")
    database.enter([Entry(OWNER, [(NOON, Sums(held=100))])])
    database.tidy(NOON + 60 * DAY, 30.0 * DAY)
    database.enter([Entry(OWNER, [(NOON + 60 * DAY, Sums(held=101))])])
    assert sums_of(database) == Sums(held=1), "else it would all be on the bill again"


@pytest.mark.parametrize("kind", ["rubbish", "schema"])
def test_a_broken_database_is_kept_and_replaced(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "db"
    database = Database(path)
    database.enter([Entry(OWNER, [(NOON, SOME)])])
    database.close()
    if kind == "rubbish":
        path.write_bytes(b"\xa5" * 9000)
    else:
        other = sqlite3.connect(path)
        other.execute("PRAGMA user_version=99")
        other.close()
    database = Database(path)
    assert "is kept as" in database.note and list(tmp_path.glob("db.corrupt-*"))
    database.enter([Entry(OWNER, [(NOON, SOME)])])
    assert sums_of(database) == SOME


def test_where_none_can_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        Database(tmp_path / "missing" / "db")
