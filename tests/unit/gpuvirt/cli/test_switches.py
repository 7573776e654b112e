# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt switches` against a daemon that only answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20
FLOW = {"copied": 72 * MIB, "zero": 3 * MIB, "clean": 4 * MIB, "duplicate": 5 * MIB, "copy_s": 0.08, "hash_s": 0.01,
        "map_s": 0.004, "rate": 0.95e9, "requests": 1, "failed": 0}  # fmt: skip
NONE = {**FLOW, "copied": 0, "zero": 0, "clean": 0, "duplicate": 0, "rate": None}
TURN = {"at": 1000.125, "gpu": 0, "kind": "turn", "from": "j1", "to": "j2", "delay_s": 0.131, "drain_s": 0.0031,
        "stayed": 88 * MIB, "out": FLOW, "in": {**FLOW, "rate": 1.1e9}}  # fmt: skip
ROOM = {**TURN, "at": 2000.0, "kind": "room", "from": None, "in": NONE}


def shown(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_the_last_one_is_at_the_end(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = make_daemon(switches={"switches": [ROOM, TURN]})
    heading, turn, room = shown(gpuvirt("switches", environ={"TZ": "UTC"}))
    assert heading == ["TIME", "FROM", "TO", "DELAY", "DRAIN", "OUT", "IN", "SAVED", "GB/s", "NOTE"]
    assert turn == ["00:16:40", "j1", "j2", "131ms", "3.1ms", "72M", "72M", "24M", "0.95/1.10"]
    assert room == ["00:33:20", "-", "j2", "131ms", "3.1ms", "72M", "0", "12M", "0.95/-", "made", "room"]
    assert daemon.requests[-1] == {"op": "switches", "count": 20, "all": False, "gpu": None, "job": None}


def test_what_is_asked_for(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = make_daemon(switches={"switches": []})
    assert "no memory has moved" in gpuvirt("switches").stdout
    assert "no switch yet" in gpuvirt("switches", "-a").stdout
    gpuvirt("switches", "train", "--gpu", "1", "-n", "5", "-a")
    assert daemon.requests[-1] == {"op": "switches", "count": 5, "all": True, "gpu": 1, "job": "train"}


def test_several_gpus_get_a_column(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(switches={"switches": [TURN, {**TURN, "gpu": 1}]})
    heading, first, _ = shown(gpuvirt("switches"))
    assert heading[1] == "GPU" and first[1] == "1"


def test_a_failure_is_seen(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(switches={"switches": [{**TURN, "in": {**NONE, "failed": 2}}]})
    assert gpuvirt("switches").stdout.splitlines()[1].endswith("2 failed")


def test_it_fits_with_large_values(make_daemon: Any, gpuvirt: Cli) -> None:
    big = {**FLOW, "copied": 160 << 30, "zero": 80 << 30, "rate": 51.2e9}
    row = {**TURN, "from": "j123456", "to": "j123457", "delay_s": 131.0, "drain_s": 12.0, "out": big, "in": big}
    make_daemon(switches={"switches": [row, {**row, "gpu": 7, "kind": "room"}]})
    lines = gpuvirt("switches").stdout.splitlines()
    assert max(map(len, lines)) <= 90, lines


def test_wide_and_json(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(switches={"switches": [TURN]})
    heading, line = gpuvirt("switches", "-w", environ={"TZ": "UTC"}).stdout.splitlines()
    assert heading.split()[6:12] == ["OUT", "MiB", "ZERO", "CLEAN", "DUP", "IN"] and "1970-01-01 00:16:40.125" in line
    assert line.split()[7:15] == ["72", "3", "4", "5", "72", "3", "5", "88"]
    assert json.loads(gpuvirt("switches", "-o", "json").stdout) == [TURN]
