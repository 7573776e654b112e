# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt run` in the line, and `gpuvirt limit`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuvirt.cli.limit import lines
from gpuvirt.cli.line import duration

Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20


def queued(position: int, estimate: float | None = None) -> dict[str, Any]:
    return {"position": position, "reason": "the budget is taken", "estimate_s": estimate}


def in_line(make_daemon: Any, answers: list[Any]) -> Any:
    """A daemon whose new job waits; `answers` to await_start, one after the other."""
    rest = list(answers)
    daemon = make_daemon(await_start=lambda _: rest.pop(0))
    daemon.answers["create_job"] = {**daemon.answers["create_job"], "queued": queued(2)}
    return daemon


def test_it_says_so_once_and_again_when_its_place_changes(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = in_line(
        make_daemon,
        [{"queued": queued(2), "unchanged": True}, {"queued": queued(1, 240.0)}, {"queued": None}],
    )
    done = gpuvirt("run", "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")
    said = done.stderr.splitlines()
    assert said[0] == "gpuvirt run: job j1 waits in line, place 2: the budget is taken; no estimate yet"
    assert said[1] == "gpuvirt run: job j1 waits in line, place 1: the budget is taken; about 4 min"
    assert said[2].startswith("gpuvirt run: job j1 starts after ")
    assert daemon.operations()[:4] == ["create_job", "await_start", "await_start", "await_start"]
    assert daemon.requests[0]["wait"] is True


def test_quiet_waits_without_a_word(make_daemon: Any, gpuvirt: Cli) -> None:
    in_line(make_daemon, [{"queued": None}])
    assert gpuvirt("run", "-q", "--", "true").stderr == ""


def test_no_wait_fails_at_once(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    daemon = in_line(make_daemon, [])
    done = gpuvirt("run", "--no-wait", "--", "touch", str(tmp_path / "ran"))
    assert done.returncode == 75
    assert done.stderr == (
        "gpuvirt run: error: the job would have to wait in line, place 2: the budget is taken; no estimate yet; "
        "leave out --no-wait\n"
    )
    assert daemon.operations() == ["create_job", "end_job"]
    assert not (tmp_path / "ran").exists()


def test_the_daemon_may_go_and_come_back_meanwhile(make_daemon: Any, gpuvirt: Cli) -> None:
    in_line(make_daemon, [None, {"queued": None}])  # None: it hangs up
    done = gpuvirt("run", "--", "sh", "-c", "echo ran")
    assert done.stdout == "ran\n"
    assert "gpuvirtd has gone, waiting for it to come back" in done.stderr


def test_a_daemon_that_does_not_know_the_job_any_more(make_daemon: Any, gpuvirt: Cli) -> None:
    in_line(make_daemon, [{"refused": "there is no job 'j1'"}])
    done = gpuvirt("run", "--", "echo", "ran")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no job 'j1'" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_line(make_daemon: Any, runtime: Path, tmp_path: Path, number: signal.Signals) -> None:
    daemon = in_line(make_daemon, [{"queued": queued(2), "unchanged": True}] * 100)
    environ = {**os.environ, "GPUVIRT_RUNTIME": str(runtime)}
    with subprocess.Popen(
        [sys.executable, "-m", "gpuvirt.cli.main", "run", "--", "touch", str(tmp_path / "ran")],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stderr is not None
        assert "waits in line" in program.stderr.readline()
        program.send_signal(number)
        code = program.wait(10)
        assert "Traceback" not in program.stderr.read()
    assert code == (130 if number is signal.SIGINT else -signal.SIGTERM)
    assert not (tmp_path / "ran").exists()
    if number is signal.SIGINT:
        assert daemon.operations()[-1] == "end_job"


def test_wishes_are_told(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = make_daemon()
    gpuvirt("run", "--memory", "2M", "--memory-soft", "1M", "--memory-reserve", "512K", "--", "true")
    create = daemon.requests[0]
    assert (create["memory"], create["soft"], create["reserve"]) == (2 * MIB, MIB, MIB // 2)


def test_limit(make_daemon: Any, gpuvirt: Cli) -> None:
    limits = {"job": "j1", "memory": 20 << 30, "soft": None, "reserve": 0}
    daemon = make_daemon(limit={"limits": limits, "notes": ["5 GiB are allocated already"]})
    done = gpuvirt("limit", "j1", "--memory", "20G", "--soft", "none")
    assert done.stdout == "j1: memory 20 GiB, soft none, reserve none\nnote: 5 GiB are allocated already\n"
    assert daemon.requests[0] == {"op": "limit", "job": "j1", "memory": 20 << 30, "soft": None}
    done = gpuvirt("limit", "j1", "-o", "json")
    assert json.loads(done.stdout)["limits"] == limits
    assert daemon.requests[1] == {"op": "limit", "job": "j1"}


def test_limit_with_wrong_usage(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(limit={"refused": "job j1 has ended"})
    done = gpuvirt("limit", "j1", "--memory", "much")
    assert done.returncode == 2
    assert "size 'much'" in done.stderr
    done = gpuvirt("limit", "j1", "--memory", "1G")
    assert (done.returncode, done.stderr) == (1, "gpuvirt limit: error: job j1 has ended; ask for less\n")


def test_words() -> None:
    assert [duration(value) for value in (0.2, 60, 240, 7200)] == ["1 s", "60 s", "4 min", "2.0 h"]
    assert lines({"limits": {"job": "j2", "memory": None, "soft": MIB, "reserve": MIB}}) == [
        "j2: memory up to the device, soft 1 MiB, reserve 1 MiB"
    ]
