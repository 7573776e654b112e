# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt usage` against a daemon that only answers."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from gpuvirt.cli.usage import moment
from gpuvirt.errors import UsageError

Cli = Callable[..., subprocess.CompletedProcess[str]]
SUMS = {"gpu_s": 30.0, "held_s": 20.0, "alone_s": 50.0, "busy_s": 10.0, "wait_s": 90.0, "overrun_s": 0.25,
        "overruns": 2, "switches": 400, "waits": 399}  # fmt: skip
ADA = {"uid": 1, "user": "ada", "jobs": 2, **SUMS}
BOB = {"uid": 2, "user": "bob", "jobs": 1, **SUMS, "gpu_s": 10.0, "held_s": 0.0, "overrun_s": 0.0, "switches": 1}
JOB = {"uid": 1, "user": "ada", "job": "j1", "name": "train", "since": 1000.0, "ended": False, **SUMS}
NOW = datetime(2026, 11, 23, 12, 0).timestamp()


def shown(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_bills_of_tenants_and_their_sum(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(usage={"rows": [ADA, BOB]})
    heading, *lines = shown(gpuvirt("usage"))
    assert " ".join(heading) == "TENANT JOBS GPU TIME SHARE HELD ALONE WAITED OVERRUN SWITCHES"
    assert lines == [
        ["ada", "2", "30.0s", "75%", "20.0s", "10.0s", "1m30s", "0.25s", "400"],
        ["bob", "1", "10.0s", "25%", "0.00s", "10.0s", "1m30s", "0.00s", "1"],
        ["all", "40.0s", "100%", "20.0s", "20.0s", "3m00s", "0.25s", "401"],
    ]


def test_one_line_needs_no_sum(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(usage={"rows": [JOB]})
    heading, line = shown(gpuvirt("usage", "--by", "job", "-w", environ={"TZ": "UTC"}))
    assert heading[:4] == ["JOB", "NAME", "TENANT", "GPU"]
    words = "j1 train ada 30.0s 100% 20.0s 10.0s 1m30s 0.25s 400 2 399 50.0s 0.05s 1970-01-01 00:16"
    assert " ".join(line) == words


def test_gpus(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(
        usage={"rows": [{"gpu": 0, "uuid": "GPU-0", "jobs": 3, **SUMS}, {"gpu": None, "uuid": "GPU-9", **SUMS}]}
    )
    heading, first, gone, whole = shown(gpuvirt("usage", "--by", "gpu"))
    assert heading[:3] == ["GPU", "UUID", "JOBS"]
    assert (first[:3], gone[:2], whole[0]) == (["0", "GPU-0", "3"], ["-", "GPU-9"], "all")


def test_rows_for_programs(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(usage={"rows": [ADA, BOB]})
    assert json.loads(gpuvirt("usage", "-o", "json").stdout) == [ADA, BOB]
    assert [json.loads(line) for line in gpuvirt("usage", "-o", "jsonl").stdout.splitlines()] == [ADA, BOB]


def test_what_is_asked_for(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = make_daemon(usage={"rows": []})
    assert gpuvirt("usage", "--since", "7d").stdout == "no GPU time since 7d\n"
    assert json.loads(gpuvirt("usage", "-o", "json").stdout) == []
    before = time.time()
    gpuvirt("usage", "--since", "2026-11-01", "--until", "1h", "--by", "gpu")
    asked = daemon.requests[-1]
    assert (asked["op"], asked["by"], asked["since"]) == ("usage", "gpu", datetime(2026, 11, 1).timestamp())
    assert before - 3600 <= asked["until"] <= time.time() - 3600


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h", 3600), (" 1.5 h", 5400), ("7d", 7 * 86400), ("2w", 14 * 86400), ("10m", 600),
     ("2026-11-23", 12 * 3600), ("2026-11-23T11:30", 1800), ("2026-11-23 11:59:59.5", 0.5), ("9999w", NOW)],
)  # fmt: skip
def test_moments(text: str, seconds: float) -> None:
    assert moment(text, NOW) == pytest.approx(NOW - seconds)


def test_moments_elsewhere() -> None:
    assert moment("2026-11-23T00:00+00:00", NOW) == 1795392000


@pytest.mark.parametrize("text", ["", "1", "yesterday", "1y", "-1h", "2026-13-01", "99999999999999999d", "1h ago"])
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(UsageError, match="neither"):
        moment(text, NOW)


def test_wrong_order(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon()
    done = gpuvirt("usage", "--since", "1h", "--until", "2h")
    assert done.returncode == 2 and done.stderr.startswith("gpuvirt usage: error: --since 1h is after --until 2h")
    done = gpuvirt("usage", "--since", "tomorrow")
    assert done.returncode == 2 and "'tomorrow' is neither a time nor how long ago" in done.stderr
