# SPDX-License-Identifier: Apache-2.0
"""The state database survives restarts; a broken one is kept and replaced."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvirt.errors import ConfigError
from gpuvirtd.state import EXTRA, State, StoredClient, StoredExtra, StoredJob

JOB = StoredJob("j1", "t" * 32, "train", 1000, 100, None, ["python", "a b.py"], 12, 34, 5.5)
CLIENT = StoredClient(13, 35, "j1", "GPU-x")


def test_jobs_and_clients_come_back(tmp_path):
    path = tmp_path / "state.db"
    state = State(path)
    assert state.next_generation() == 1
    state.put_job(JOB)
    state.put_client(CLIENT)
    state.close()
    state = State(path)
    assert state.next_generation() == 2
    assert state.jobs() == [JOB]
    assert state.clients() == [CLIENT]
    state.remove_client(CLIENT)
    assert state.clients() == []
    state.put_client(CLIENT)
    state.remove_job("j1")
    assert (state.jobs(), state.clients()) == ([], [])
    state.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_was_acknowledged_is_there_without_a_close(tmp_path):
    state = State(tmp_path / "state.db")
    state.put_job(JOB)
    again = State(tmp_path / "state.db")
    assert again.jobs() == [JOB]


@pytest.mark.parametrize("kind", ["rubbish", "header", "schema"])
def test_broken_database_is_kept_and_replaced(tmp_path, kind):
    path = tmp_path / "state.db"
    state = State(path)
    state.put_job(JOB)
    state.close()
    if kind == "schema":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version=99")
        database.close()
    else:
        data = bytearray(path.read_bytes())
        data[: len(data) if kind == "rubbish" else 20] = b"\xa5" * (len(data) if kind == "rubbish" else 20)
        path.write_bytes(data)
    state = State(path)
    assert "is kept as" in state.note
    assert state.jobs() == []
    assert state.next_generation() > 1_000_000  # above any that was given out before
    assert list(tmp_path.glob("state.db.corrupt-*"))


def test_everything_of_an_earlier_boot_is_forgotten(tmp_path, monkeypatch):
    state = State(tmp_path / "state.db")
    state.next_generation()
    state.put_job(JOB)
    state.put_gpu_owner("GPU-x", "j1")
    monkeypatch.setattr("gpuvirtd.state.boot_id", lambda: "another boot")
    assert state.next_generation() == 2
    assert state.jobs() == [] and state.gpu_owners() == {}


FULL_DISK = """
import resource, sys
from pathlib import Path
from gpuvirt.errors import ConfigError
from gpuvirtd.state import State
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    State(Path(sys.argv[1])).next_generation()
except ConfigError as error:
    print(error)
"""


def test_a_full_disk_is_no_reason_to_forget_the_jobs(tmp_path):
    path = tmp_path / "state.db"
    state = State(path)
    state.put_job(JOB)
    state.close()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"state database {path} cannot be" in done.stdout
    assert not list(tmp_path.glob("*.corrupt-*"))
    assert State(path).jobs() == [JOB]


@pytest.mark.parametrize("where", ["missing/state.db", "folder", "link"])
def test_no_place_for_the_database(tmp_path, where):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="cannot be opened"):
        State(tmp_path / where)


def test_trials_are_forgotten_with_their_job(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    assert state.trials() == set()
    state.put_job(JOB)
    state.put_trial(JOB.id)
    state.put_trial("j2")
    assert state.trials() == {JOB.id, "j2"}
    state.remove_job(JOB.id)
    assert state.trials() == {"j2"}
    state.close()


def test_a_job_is_recorded_with_its_limits_or_not_at_all(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    extra = StoredExtra(soft=1, reserve=2, queued=3)
    trigger = (
        "CREATE TRIGGER full BEFORE INSERT ON meta WHEN NEW.key LIKE 'extra%' BEGIN SELECT RAISE(ABORT, 'full'); END"
    )
    with sqlite3.connect(state.path) as other:
        other.execute(trigger)
    with pytest.raises(sqlite3.Error, match="full"):
        state.put_job(JOB, extra)
    assert (state.jobs(), state.extras()) == ([], {})  # nothing of a job that its user was refused
    with sqlite3.connect(state.path) as other:
        other.execute("DROP TRIGGER full")
    state.put_job(JOB, extra)
    assert (state.jobs(), state.extras()) == ([JOB], {JOB.id: extra})
    state.close()


def test_a_write_that_fails_at_its_end_costs_no_later_one(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    state._db.executescript(
        "PRAGMA foreign_keys=ON; CREATE TABLE one (id INTEGER PRIMARY KEY);"
        "CREATE TABLE two (id REFERENCES one (id) DEFERRABLE INITIALLY DEFERRED);"
        "CREATE TRIGGER late AFTER INSERT ON owners BEGIN INSERT INTO two VALUES (1); END;"
    )
    with pytest.raises(sqlite3.Error):
        state.put_client(CLIENT)  # COMMIT fails, as it does on a full disk
    state._db.execute("DROP TRIGGER late")
    state.put_client(CLIENT)
    assert State(state.path).clients() == [CLIENT]


def test_what_a_later_version_has_recorded_is_no_obstacle(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    state._db.execute("INSERT INTO meta VALUES (?, ?)", (EXTRA + "j1", '{"reserve": 5, "colour": "red"}'))
    state._db.execute("INSERT INTO meta VALUES (?, ?)", (EXTRA + "j2", "rubbish"))
    assert state.extras()["j1"] == StoredExtra(reserve=5)
    assert state.extras().get("j2", StoredExtra()) == StoredExtra()


def test_who_has_a_gpu_for_itself(tmp_path: Path) -> None:
    state = State(tmp_path / "state.db")
    state.put_gpu_owner("GPU-0", "j1")
    state.put_gpu_owner("GPU-0", "j2")
    state.put_gpu_owner("GPU-1", "j1")
    state.put_gpu_owner("GPU-2", "j3")
    state.remove_job("j1")  # its id may be another's
    state.put_gpu_owner("GPU-2", None)
    state.close()
    state = State(tmp_path / "state.db")
    assert state.gpu_owners() == {"GPU-0": "j2"}
    state.close()
