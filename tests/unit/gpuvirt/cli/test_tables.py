# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt ps` and `gpuvirt gpus` against a daemon that only answers; what they import; how errors look."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20
MOVED = {
    "out": {"copied": 10 * MIB, "zero": 3 * MIB, "clean": 4 * MIB, "duplicate": 5 * MIB, "early": 0},
    "in": {"copied": 20 * MIB, "zero": 6 * MIB, "clean": 0, "duplicate": 0},
    "copy_s": 1.5, "hash_s": 0.25, "map_s": 0.0125, "hash_errors": 0, "verify_errors": 0,
}  # fmt: skip
JOB = {
    "job": "j1",
    "name": "train",
    "user": "alice",
    "gpu": [0],
    "state": "running",
    "pids": [101, 102],
    "weight": 2,
    "memory_quota": None,
    "charged": 350 * MIB,
    "resident": 300 * MIB,
    "swapped": 50 * MIB,
    "held_s": 12.5,
    "busy_s": 11.25,
    "share": 0.667,
    "wait_s": 3.0,
    "switches": 7,
    "out_bytes": 10 * MIB,
    "in_bytes": 20 * MIB,
    "moved": MOVED,
    "lost_s": 4.5,
    "lost_share": 0.034,
    "arena": 60 * MIB,
    "since": 5.0,
    "reason": "",
    "command": ["python", "train.py"],
}
WAITING = {
    **JOB,
    "job": "j2",
    "name": "a-name-that-is-much-too-long-for-this-table",
    "user": "somebody-else",
    "state": "waiting",
    "reason": "needs 350 MiB, j1 holds the GPU",
    "command": ["\x1b[2Jevil"],
}
ENDED = {**JOB, "job": "j0", "state": "ended"}
GPU = {
    "index": 0,
    "uuid": "GPU-0",
    "name": "Soft GPU with quite a long product name",
    "memory_total": 512 * MIB,
    "memory_used": 350 * MIB,
    "residue": 3 * MIB,
    "capacity": 500 * MIB,
    "holder": "j1",
    "queue": ["j2"],
    "epoch": 9,
    "switches": 7,
    "swapped": 50 * MIB,
    "lost_s": 1.25,
    "link": {
        "out_rate": 2e9,
        "in_rate": 1e9,
        "rate": 8e9,
        "share": 0.25,
        "measured": True,
        "out_bytes": 1,
        "in_bytes": 2,
    },
}


def status(request: dict[str, Any]) -> dict[str, Any]:
    """As the daemon: ended jobs only when asked for all."""
    return {"daemon": {}, "gpus": [GPU], "jobs": [JOB, WAITING, ENDED] if request["all"] else [JOB, WAITING]}


SLOW = {"asyncio", "structlog", "pynvml", "psutil", "grpc", "cffi", "msgspec", "gpuvirt.control", "unittest", "ctypes"}


def test_ps(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    done = gpuvirt("ps")
    heading, first, second = done.stdout.splitlines()
    assert heading.split() == ["JOB", "NAME", "USER", "GPU", "STATE", "SHARE", "WAITED", "RES/MEM", "REASON"]
    assert first.split() == ["j1", "train", "alice", "0", "running", "67%", "3.00s", "300/350M", "-"]
    assert "needs" in second
    assert max(len(line) for line in (heading, first, second)) <= 80
    assert "\x1b" not in done.stdout


def test_ps_fits_with_large_values(make_daemon: Any, gpuvirt: Cli) -> None:
    large = {**WAITING, "job": "j123456", "gpu": [0, 1], "state": "recovering", "wait_s": 36000.0, "share": 1.0,
             "resident": 80 << 30, "charged": 160 << 30}  # fmt: skip
    make_daemon(status={"jobs": [large]})
    line = gpuvirt("ps").stdout.splitlines()[1]
    assert len(line) <= 80
    assert "80.0/160.0G" in line


def test_a_roomy_terminal_shows_what_is_lost(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    heading, first, second = gpuvirt("ps", environ={"COLUMNS": "100"}).stdout.splitlines()
    assert heading.split()[6:8] == ["WAITED", "LOST"] and first.split()[6:8] == ["3.00s", "3%"]
    assert max(map(len, (heading, first, second))) <= 100


def test_w_is_wide(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    for verb in ("ps", "gpus"):
        assert gpuvirt(verb, "-w").stdout == gpuvirt(verb, "-o", "wide").stdout == gpuvirt(verb, "-wo", "wide").stdout
    assert "LOST TIME" in gpuvirt("gpus", "-w").stdout
    done = gpuvirt("ps", "-w", "-o", "json")
    assert done.returncode == 2 and "-w is for tables" in done.stderr


def test_ps_wide_sums_what_was_saved(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status={"jobs": [JOB, {key: value for key, value in JOB.items() if key not in ("moved", "arena")}]})
    heading, new, old = gpuvirt("ps", "-w").stdout.splitlines()
    place = heading.index("SAVED MiB")
    assert new[place:].split()[0] == "18" and old[place:].split()[0] == "-", "a daemon of before tells nothing"


def test_ps_wide_is_safe_for_the_terminal(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    done = gpuvirt("ps", "-a", "-o", "wide")
    assert len(done.stdout.splitlines()) == 4
    assert "101,102" in done.stdout
    assert "python train.py" in done.stdout
    assert "\\x1b[2Jevil" in done.stdout


def test_ps_json_has_all_keys(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    assert json.loads(gpuvirt("ps", "-o", "json").stdout) == [JOB, WAITING]
    lines = gpuvirt("ps", "-a", "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["job"] for line in lines] == ["j1", "j2", "j0"]


def test_gpus(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(status=status)
    heading, line = gpuvirt("gpus").stdout.splitlines()
    assert line.split()[-6:] == ["350/512", "500", "25%", "j1", "1", "7"]
    assert max(len(heading), len(line)) <= 80
    assert json.loads(gpuvirt("gpus", "-o", "json").stdout) == [GPU]
    assert "GPU-0" in gpuvirt("gpus", "-o", "wide").stdout


def test_nothing_to_show(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon()
    assert "no jobs" in gpuvirt("ps").stdout
    assert gpuvirt("ps", "-o", "json").stdout == "[]\n"
    assert gpuvirt("ps", "-o", "jsonl").stdout == ""
    assert "no GPU" in gpuvirt("gpus").stdout


@pytest.mark.parametrize("verb", ["ps", "gpus"])
def test_no_daemon(gpuvirt: Cli, verb: str) -> None:
    done = gpuvirt(verb)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"gpuvirt {verb}: error: no gpuvirtd is running")
    assert done.stderr.count("\n") == 1


def test_fast_path_imports_little(make_daemon: Any, runtime: Path) -> None:
    """Start-up time is imports: those that would make `ps` slow must not happen."""
    make_daemon(status=status)
    for arguments in ("ps", "--help", "gpus -o json"):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "gpuvirt.cli.main", *arguments.split()],
            env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        imported = {
            line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")
        }
        assert "click" in imported
        assert imported & SLOW == set(), arguments


def test_help_of_every_verb(gpuvirt: Cli) -> None:
    from gpuvirt.cli.main import VERBS

    overview = gpuvirt("--help").stdout
    for verb, words in VERBS.items():
        assert words in overview
        done = gpuvirt(verb, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"gpuvirt {verb}" in done.stdout


def test_unknown_verb(gpuvirt: Cli) -> None:
    done = gpuvirt("pss")
    assert done.returncode == 2
    assert done.stderr == "gpuvirt: error: there is no verb 'pss'; did you mean 'gpuvirt ps'?\n"


def test_closed_pipe_is_no_error(make_daemon: Any, runtime: Path) -> None:
    make_daemon(status={"jobs": [JOB] * 5000})
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m gpuvirt.cli.main ps -o jsonl | head -n 1"],
        env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert json.loads(done.stdout)["job"] == "j1"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_exit_code_when_the_reader_has_gone(make_daemon: Any, runtime: Path, unbuffered: str) -> None:
    make_daemon(status={"jobs": [JOB] * 5000})
    done = subprocess.run(
        ["sh", "-c", f"{{ {sys.executable} -m gpuvirt.cli.main ps -o jsonl; echo ended with $? >&2; }} | head -n 1"],
        env={**os.environ, "GPUVIRT_RUNTIME": str(runtime), "PYTHONUNBUFFERED": unbuffered},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == "ended with 0\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(gpuvirt: Cli, shell: str) -> None:
    assert "_GPUVIRT_COMPLETE" in gpuvirt("completion", shell).stdout


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("met", "metrics"), ("doc", "doctor"), ("doctor --sec", "--seconds"), ("sw", "switches"), ("top --on", "--once")],
)
def test_what_completion_offers(gpuvirt: Cli, typed: str, offered: str) -> None:
    words = f"gpuvirt {typed}"
    environ = {"_GPUVIRT_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert gpuvirt(environ=environ).stdout == f"plain,{offered}\n"


@pytest.mark.parametrize("verb", ["describe", "switches", "limit"])
def test_completion_knows_the_jobs(make_daemon: Any, gpuvirt: Cli, verb: str) -> None:
    make_daemon(status=status)

    def offered(typed: str) -> list[str]:
        environ = {"_GPUVIRT_COMPLETE": "bash_complete", "COMP_WORDS": f"gpuvirt {verb} {typed}", "COMP_CWORD": "2"}
        return gpuvirt(environ=environ).stdout.split()

    assert offered("tr") == ["plain,train"]
    assert offered("j") == ["plain,j1", "plain,j2", "plain,j0"]


def test_completion_without_a_daemon_offers_nothing_and_says_nothing(gpuvirt: Cli) -> None:
    environ = {"_GPUVIRT_COMPLETE": "bash_complete", "COMP_WORDS": "gpuvirt describe j", "COMP_CWORD": "2"}
    done = gpuvirt(environ=environ)
    assert (done.stdout.strip(), done.stderr) == ("", "")
