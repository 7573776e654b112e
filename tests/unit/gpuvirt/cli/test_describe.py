# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt describe` against a daemon that only answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20
PROCESS = {
    "pid": 101, "client": 1, "gpu": 0, "state": "running", "charged": 350 * MIB, "resident": 300 * MIB,
    "fixed": 80 * MIB, "allowance": 300 * MIB, "swapped": 50 * MIB, "pinned": 7 * MIB, "busy_s": 1.5, "gate_s": 0.25,
    "submitted": 4711, "passed_calls": 12, "unknown_names": 1,
}  # fmt: skip
FLOW = {"copied": 10 * MIB, "zero": 3 * MIB, "clean": 4 * MIB, "duplicate": 0}
SWITCH = {
    "at": 100.25, "gpu": 0, "kind": "turn", "from": "j2", "to": "j1", "delay_s": 0.131, "drain_s": 0.003,
    "stayed": 5 * MIB,
    "out": {**FLOW, "copy_s": 0.1, "hash_s": 0.01, "map_s": 0.002, "rate": 104857600.0, "requests": 1, "failed": 0},
    "in": {**FLOW, "copy_s": 0.1, "hash_s": 0.0, "map_s": 0.002, "rate": 51.2e9, "requests": 1, "failed": 0},
}  # fmt: skip
JOB = {
    "job": "j1", "name": "train", "user": "alice", "uid": 1000, "gpu": [0], "state": "waiting",
    "reason": "job j2 holds 5 B that cannot be moved: CUDA arrays", "pids": [101], "weight": 2,
    "memory": 400 * MIB, "memory_quota": 400 * MIB, "charged": 350 * MIB, "resident": 300 * MIB, "native": 80 * MIB,
    "pinned": 7 * MIB, "pinned_quota": 64 * MIB, "swapped": 50 * MIB, "held_s": 12.5, "busy_s": 11.25, "gate_s": 1.0,
    "share": 0.667, "wait_s": 3.0, "switches": 7, "overruns": 0, "overrun_s": 0.0, "out_bytes": 10 * MIB,
    "in_bytes": 20 * MIB, "submitted": 4711, "passed_calls": 12, "unknown_names": 1, "since": 5.0,
    "command": ["python", "train.py", "\x1b[2Jevil"], "processes": [PROCESS],
    "fixed": [
        {"kind": "arrays", "bytes": 64 * MIB, "pieces": 3, "what": "CUDA arrays", "reason": "no address to keep"},
        {"kind": "managed", "bytes": 16 * MIB, "pieces": 1, "what": "managed memory", "reason": "the driver moves it"},
    ],
    "arena": 55 * MIB, "lost_s": 1.25, "lost_share": 0.034,
    "moved": {
        "out": {**FLOW, "early": 2 * MIB}, "in": {"copied": 20 * MIB, "zero": 0, "clean": 0, "duplicate": 6 * MIB},
        "copy_s": 1.5, "hash_s": 0.25, "map_s": 0.0125, "hash_errors": 0, "verify_errors": 0,
    },
    "last_switches": [SWITCH],
    "events": [{"at": 6.0, "pid": 101, "text": "something was said"}],
}  # fmt: skip


def test_everything_is_shown(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe=lambda request: {"job": JOB} if request["job"] == "train" else {})
    done = gpuvirt("describe", "train")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(None, 1) for line in done.stdout.splitlines()[:16] if " " in line)
    assert shown["job"] == "j1 (train), of alice"
    assert shown["state"] == "waiting: job j2 holds 5 B that cannot be moved: CUDA arrays"
    assert shown["limit"] == "400 MiB"
    assert shown["memory"] == "350 MiB: 300 MiB on the device, 50 MiB swapped"
    assert shown["fixed"] == "80 MiB of it cannot be moved"
    assert "7 MiB of 64 MiB a process" in done.stdout
    assert "1 names that this gpuvirt does not know" in done.stdout
    rows = [line.split(None, 3) for line in done.stdout.splitlines()]
    assert ["arrays", "64", "3", "no address to keep"] in rows
    assert ["managed", "16", "1", "the driver moves it"] in rows
    assert any(line.split()[:4] == ["101", "0", "running", "350"] for line in done.stdout.splitlines())
    assert "something was said" in done.stdout
    assert "\x1b" not in done.stdout


def test_what_moved_is_told_in_words(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe={"job": JOB})
    lines = gpuvirt("describe", "train").stdout.splitlines()
    assert "host memory   55 MiB for what is, or was, swapped out" in lines
    assert "moved out     10 MiB copied (2 MiB of it early); not copied: 3 MiB zero, 4 MiB unchanged" in lines
    assert "moved in      20 MiB copied; not copied: 6 MiB there twice" in lines
    assert "moving took   1.50s, of it 250ms for hashes; 12ms for mapping" in lines
    assert "lost          1.25s to switching, 3.4% of its time" in lines
    assert not any(line.startswith("ERRORS") for line in lines)
    place = lines.index("Last switches that moved memory")
    assert lines[place + 2].split()[1:] == ["j2", "j1", "131ms", "3.0ms", "10M", "10M", "14M", "0.10/51.2"]
    assert max(map(len, lines[place:])) <= 80


def test_limits_are_all_shown(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe={"job": {**JOB, "memory_soft": 100 * MIB, "memory_reserve": 50 * MIB}})
    text = gpuvirt("describe", "train").stdout
    assert "limit         400 MiB, first to be swapped beyond 100 MiB, 50 MiB set aside for it" in text


def test_events_come_with_their_kind_and_how_often(make_daemon: Any, gpuvirt: Cli) -> None:
    often = {"at": 66.0, "first": 6.0, "kind": "memory", "pid": 0, "text": "no room", "count": 3}
    make_daemon(describe={"job": {**JOB, "events": [*JOB["events"], often]}})  # type: ignore[misc]
    said, counted = gpuvirt("describe", "train", environ={"TZ": "UTC"}).stdout.splitlines()[-2:]
    assert said == "1970-01-01 00:00:06  client   pid 101: something was said"
    assert counted == "1970-01-01 00:01:06  memory   no room (3 times since 00:00:06)"


def test_errors_are_not_to_be_missed(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe={"job": {**JOB, "moved": {**dict(JOB["moved"]), "verify_errors": 2}}})  # type: ignore[call-overload]
    assert "ERRORS        2 pages came back with another content" in gpuvirt("describe", "train").stdout


def test_a_daemon_of_before_is_understood(make_daemon: Any, gpuvirt: Cli) -> None:
    new = ("moved", "lost_s", "lost_share", "arena", "last_switches")
    make_daemon(describe={"job": {key: value for key, value in JOB.items() if key not in new}})
    assert "moved         10 MiB out, 20 MiB in" in gpuvirt("describe", "train").stdout


def test_json_is_the_answer(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe={"job": JOB})
    assert json.loads(gpuvirt("describe", "1", "-o", "json").stdout) == JOB


def test_a_job_without_anything_special_is_short(make_daemon: Any, gpuvirt: Cli) -> None:
    bare = {**JOB, "fixed": [], "events": [], "processes": [], "native": 0, "memory": None}
    make_daemon(describe={"job": bare})
    text = gpuvirt("describe", "train").stdout
    assert "fixed         nothing" in text
    assert "(no --memory)" in text
    for title in ("Memory that stays", "Processes", "Events"):
        assert title not in text


def test_a_wrong_word_is_one_line(gpuvirt: Cli) -> None:
    done = gpuvirt("describe")
    assert done.returncode == 2
    assert done.stderr.startswith("gpuvirt describe: error: missing argument 'JOB'")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_what_is_no_name(make_daemon: Any, gpuvirt: Cli, name: str) -> None:
    make_daemon()
    done = gpuvirt("describe", name)
    assert done.returncode == 2
    assert "is no name of a job; see: gpuvirt ps -a" in done.stderr
