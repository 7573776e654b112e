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
JOB = {
    "job": "j1", "name": "train", "user": "alice", "uid": 1000, "gpu": [0], "state": "waiting",
    "reason": "job j2 holds 5 bytes that cannot be moved: CUDA arrays", "pids": [101], "weight": 2,
    "memory": 400 * MIB, "memory_quota": 400 * MIB, "charged": 350 * MIB, "resident": 300 * MIB, "native": 80 * MIB,
    "pinned": 7 * MIB, "pinned_quota": 64 * MIB, "swapped": 50 * MIB, "held_s": 12.5, "busy_s": 11.25, "gate_s": 1.0,
    "share": 0.667, "wait_s": 3.0, "switches": 7, "overruns": 0, "overrun_s": 0.0, "out_bytes": 10 * MIB,
    "in_bytes": 20 * MIB, "submitted": 4711, "passed_calls": 12, "unknown_names": 1, "since": 5.0,
    "command": ["python", "train.py", "\x1b[2Jevil"], "processes": [PROCESS],
    "fixed": [
        {"kind": "arrays", "bytes": 64 * MIB, "pieces": 3, "what": "CUDA arrays", "reason": "no address to keep"},
        {"kind": "managed", "bytes": 16 * MIB, "pieces": 1, "what": "managed memory", "reason": "the driver moves it"},
    ],
    "events": [{"at": 6.0, "pid": 101, "text": "something was said"}],
}  # fmt: skip


def test_everything_is_shown(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(describe=lambda request: {"job": JOB} if request["job"] == "train" else {})
    done = gpuvirt("describe", "train")
    assert (done.returncode, done.stderr) == (0, "")
    shown = dict(line.split(None, 1) for line in done.stdout.splitlines()[:16] if " " in line)
    assert shown["job"] == "j1 (train), of alice"
    assert shown["state"] == "waiting: job j2 holds 5 bytes that cannot be moved: CUDA arrays"
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
