# SPDX-License-Identifier: Apache-2.0
"""The one way to open a database, for both of the daemon's: what is moved aside, what is left alone, all or nothing."""

from __future__ import annotations

import re
import sqlite3
from functools import partial

import pytest

from gpuvirt.errors import ConfigError
from gpuvirtd import state
from gpuvirtd.accounts import database
from gpuvirtd.database_file import Transaction, open_database

BOTH = pytest.mark.parametrize("contents", [state.CONTENTS, database.CONTENTS], ids=lambda contents: contents.setting)


@BOTH
def test_a_new_one_and_the_same_again(tmp_path, contents):
    path = tmp_path / "some.db"
    for _ in range(2):
        opened, note = open_database(path, contents)
        assert note == ""
        assert opened.execute("PRAGMA user_version").fetchone() == (contents.schema,)
        assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        tables = {name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert tables == set(contents.names)
        opened.close()
    assert path.stat().st_mode & 0o777 == 0o600


@BOTH
def test_what_cannot_be_used_is_kept_aside(tmp_path, contents):
    path = tmp_path / "some.db"
    path.write_bytes(b"no database " * 1000)
    opened, note = open_database(path, contents)
    [aside] = tmp_path.glob("some.db.corrupt-*")
    assert str(aside) in note and note.endswith(contents.after_loss)
    assert aside.read_bytes().startswith(b"no database")
    opened.execute(f"PRAGMA user_version={contents.schema + 1}")
    opened.close()
    again, note = open_database(path, contents)
    assert f"schema {contents.schema + 1}, this daemon knows {contents.schema}" in note
    again.close()


@BOTH
def test_what_may_be_sound_stays(tmp_path, contents, monkeypatch):
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, timeout=0))
    path = tmp_path / "some.db"
    opened, _ = open_database(path, contents)
    opened.execute("PRAGMA locking_mode=EXCLUSIVE")
    opened.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigError, match=f"{contents.name} {re.escape(str(path))} cannot be used.*{contents.setting}"):
        open_database(path, contents)
    opened.close()
    assert list(tmp_path.glob("*corrupt*")) == []
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(ConfigError, match=f"cannot be opened: .*{contents.setting}"):
        open_database(tmp_path / "link.db", contents)


def test_all_or_nothing(tmp_path):
    opened, _ = open_database(tmp_path / "some.db", state.CONTENTS)
    with Transaction(opened):
        opened.execute("INSERT INTO meta VALUES ('a', '1')")

    def fails():
        with Transaction(opened):
            opened.execute("INSERT INTO meta VALUES ('b', '1')")
            opened.execute("INSERT INTO meta VALUES ('a', '2')")

    with pytest.raises(sqlite3.IntegrityError):
        fails()
    assert opened.execute("SELECT * FROM meta").fetchall() == [("a", "1")]
    assert not opened.in_transaction
    opened.close()
